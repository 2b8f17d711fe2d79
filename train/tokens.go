package train

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/optim"
)

// NoTargets as the only word of a list of targets trains no matrix: rows of tokens alone.
const NoTargets = "none"

// byNumber is a token by its id, in a list of tokens to train, "#128002".
const byNumber = "#"

// checkTokens says what of the settings of tokens makes no sense.
func (c *Config) checkTokens() error {
	a := &c.Adapter
	bad := func(f string, args ...any) error { return fmt.Errorf("train: "+f, args...) }
	if i := a.NewTokenInit; i != "" && !slices.Contains(arch.TokenInits(), i) {
		return bad("new_token_init is %q: there are %s", i, strings.Join(arch.TokenInits(), ", "))
	}
	some := len(a.NewTokens)+len(a.TrainTokens) > 0
	switch {
	case slices.Contains(a.Targets, NoTargets) && len(a.Targets) > 1:
		return bad("targets are none and others")
	case a.none() && !some && a.From == "":
		return bad("targets is none: then it takes new_tokens or train_tokens, or there is nothing to train")
	case a.none() && (a.DoRA || a.QALoRA || a.Init != "" || a.MergeAware):
		return bad("targets is none: dora, qa_lora, merge_aware and an init are for matrices")
	case some && a.Invocation != "":
		return bad("an invocation does not go with new_tokens or train_tokens, whose rows act on all of a text")
	case len(a.NewTokens) > 0 && c.Distill.Teacher != "":
		return bad("distill does not go with new_tokens: the teacher does not have them")
	}
	return nil
}

// none says that no matrix is to be trained.
func (a *AdapterConfig) none() bool { return len(a.Targets) == 1 && a.Targets[0] == NoTargets }

// ParseTokens reads a list of tokens as a flag has it: texts with commas between them, or
// @FILE with one on each line. Texts with line ends between them may have commas.
func ParseTokens(s string) ([]string, error) {
	if strings.Contains(s, "\n") {
		return strings.Split(strings.TrimRight(s, "\n"), "\n"), nil
	}
	path, ok := strings.CutPrefix(s, "@")
	if !ok || path == "" || strings.Contains(s, ",") {
		return strings.Split(s, ","), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if t := strings.TrimSuffix(lines.Text(), "\r"); t != "" {
			list = append(list, t)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: after %d tokens: %w", path, len(list), err)
	}
	if len(list) == 0 {
		return nil, format.Usagef("%s has no tokens", path)
	}
	return list, nil
}

// Original is the model as its files have it, without the tokens that an adapter adds.
func (b *Base) Original() *arch.Model { return b.original }

// addTokens makes b the base with further tokens, whose rows begin as init says. Sessions
// and whatever was made of the tokenizer before do not know them.
func (b *Base) addTokens(added []arch.AddedToken, init string) error {
	if len(added) == 0 {
		return nil
	}
	src, err := b.Source.WithTokens(arch.Tokens{Added: added, Init: init})
	if err != nil {
		return err
	}
	if err := b.Model.Close(); err != nil {
		return err
	}
	template := b.TemplateSource
	b.Source, b.Template, b.TemplateSource = src, nil, ""
	b.added, b.init = append(b.added, added...), init
	if b.Tokenizer == nil { // a model alone
		b.Model, err = model.New(src, b.options)
		return err
	}
	if err := b.open(b.options); err != nil {
		return err
	}
	if template != "" && template != b.TemplateSource {
		return b.setTemplate(b.Path, template)
	}
	return nil
}

// Prepare makes b the base that a run with c trains on: it adds the tokens of the adapter that
// the run begins with, or new ones. It gives that adapter, nil for a run that begins anew.
func (b *Base) Prepare(c *AdapterConfig) (from *model.Adapter, err error) {
	if c.From != "" {
		a, err := adapter.Open(c.From)
		if err != nil {
			return nil, err
		}
		if from, err = b.UseAdapter(a); err != nil {
			return nil, err
		}
		if a.Tokens != nil {
			return from, b.sameTokens(c, a.Tokens)
		}
	}
	if len(c.NewTokens) == 0 {
		return from, nil
	}
	added, err := b.Source.NewTokens(c.NewTokens)
	if err != nil {
		return nil, err
	}
	return from, b.addTokens(added, c.NewTokenInit)
}

// sameTokens makes sure that a run goes on with the tokens of the adapter that it begins with.
func (b *Base) sameTokens(c *AdapterConfig, t *adapter.Tokens) error {
	if len(c.NewTokens)+len(c.TrainTokens) == 0 {
		return nil
	}
	if ids, err := b.trainedTokens(c); err != nil || !slices.Equal(ids, t.IDs()) {
		return fmt.Errorf("train: the adapter %s has rows of %d tokens already: a run that begins with it trains those, and takes no other new_tokens or train_tokens", c.From, len(t.IDs()))
	}
	return nil
}

// trainedTokens are the tokens whose rows c trains, ascending. b has the new ones already.
func (b *Base) trainedTokens(c *AdapterConfig) ([]int32, error) {
	var ids []int32
	for _, t := range slices.Concat(c.NewTokens, c.TrainTokens) {
		id, ok := b.Tokenizer.ID(t)
		if number, is := strings.CutPrefix(t, byNumber); !ok && is {
			n, err := strconv.ParseUint(number, 10, 31)
			id, ok = int32(n), err == nil && int(n) < b.Model.Vocab
		}
		if !ok {
			return nil, format.Usagef("train_tokens: %q is no token of %s; a token that is to be added is one of new_tokens", t, b.Path)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// tokenRows are the rows of tokens as the base has them, to be trained.
func (b *Base) tokenRows(ids []int32) (map[string]*model.Rows, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	all := map[string]*model.Rows{}
	for _, name := range []string{arch.EmbeddingName, arch.HeadName} {
		_, in, ok := b.Model.MatrixDims(name)
		if !ok {
			continue
		}
		r := &model.Rows{IDs: ids, Data: kernel.NewMat(len(ids), in)}
		for i, id := range ids {
			if err := b.Source.View(name).Rows.ReadRows(r.Data.Row(i), int64(id)); err != nil {
				return nil, fmt.Errorf("tensor %s: %w", name, err)
			}
		}
		all[name] = r
	}
	return all, nil
}

// TrainedToken is a token whose rows are trained.
type TrainedToken struct {
	ID    int32  `json:"id"`
	Token string `json:"token"`
	New   bool   `json:"new,omitempty"` // the base does not have it
}

// tokens lists the tokens whose rows are trained.
func (r *runner) tokens() (list []TrainedToken) {
	rows := r.lora.adapter.Rows[arch.EmbeddingName]
	if rows == nil {
		return nil
	}
	for _, id := range rows.IDs {
		isNew := slices.ContainsFunc(r.base.added, func(a arch.AddedToken) bool { return a.ID == int(id) })
		list = append(list, TrainedToken{id, r.base.Tokenizer.Token(id), isNew})
	}
	return list
}

// startRows are the rows that the run trains, as they begin.
func (r *runner) startRows() (map[string]*model.Rows, error) {
	ids, err := r.base.trainedTokens(&r.cfg.Adapter)
	if err != nil {
		return nil, err
	}
	return r.base.tokenRows(ids)
}

// tokensText says in words which rows of tokens are trained.
func (r *runner) tokensText() string {
	added := 0
	list := r.tokens()
	for _, t := range list {
		if t.New {
			added++
		}
	}
	if len(list) == 0 {
		return ""
	}
	return fmt.Sprintf(" and the rows of %d tokens, %d of them new", len(list), added)
}

// rowsPart is the ending of the names of parameters that are rows of tokens.
const rowsPart = ".rows"

// addRows adds the rows of ad, whose memory becomes the masters, to what is trained.
func (l *lora) addRows(m *model.Model, ad *model.Adapter, whole bool) error {
	for name := range ad.Rows {
		if _, _, ok := m.MatrixDims(name); !ok {
			return fmt.Errorf("train: the adapter has rows of %s, which the base does not have", name)
		}
		if ad.Pairs[name] != nil {
			return format.Unsupported("training rows of tokens of %s beside a LoRA on all of it: leave %s out of the targets", name, strings.Join(names(name), " or "))
		}
	}
	for _, name := range []string{arch.EmbeddingName, arch.HeadName} {
		r := ad.Rows[name]
		if r == nil {
			continue
		}
		if l.adapter.Rows == nil {
			l.adapter.Rows = map[string]*model.Rows{}
		}
		used := &model.Rows{IDs: r.IDs, Data: r.Data}
		if !whole {
			used.Data = kernel.NewMat(r.Data.Rows, r.Data.Cols)
		}
		l.adapter.Rows[name] = used
		l.rowNames = append(l.rowNames, name)
	}
	return nil
}

// rowParams are the parameters of the rows, with what the model computes with.
func (l *lora) rowParams(ad *model.Adapter, whole bool) {
	for _, name := range l.rowNames {
		r, g := ad.Rows[name].Data, l.grads[name].Rows
		l.params = append(l.params, optim.Param{Name: name + rowsPart, Rows: r.Rows, Cols: r.Cols, Value: r.Data, Grad: g.Data, Rate: 1})
		if whole {
			l.used = append(l.used, nil)
		} else {
			l.used = append(l.used, l.adapter.Rows[name].Data.Data)
		}
	}
}

// fileTokens are the rows under training as an adapter's file has them.
func (l *lora) fileTokens(b *Base) *adapter.Tokens {
	if len(l.rowNames) == 0 {
		return nil
	}
	t := &adapter.Tokens{Added: b.added, Init: b.init}
	for _, name := range l.rowNames {
		r := l.adapter.Rows[name]
		t.Rows = append(t.Rows, adapter.TokenRows{Target: name, IDs: r.IDs, Rows: adapter.Matrix{Rows: r.Data.Rows, Cols: r.Data.Cols, Data: r.Data.Data}})
	}
	return t
}
