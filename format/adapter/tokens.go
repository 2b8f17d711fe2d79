package adapter

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/safetensors"
)

// TokenRows are whole rows of an embedding or a head, in the place of the base's: PEFT's
// trainable tokens. They are no difference and have no scale.
type TokenRows struct {
	Target string  // GGUF tensor; "" before Resolve unless the adapter is a trainer's
	Module string  // Hugging Face module
	IDs    []int32 // of the tokens, ascending
	Rows   Matrix  // len(IDs) x hidden size
}

// Tokens are what an adapter has for tokens, beside its pairs.
type Tokens struct {
	Rows []TokenRows // of the embedding and, in a model whose head is not tied, of the head
	// Added are the tokens that the base lacks. Of an adapter that is not resolved they
	// are all that its files list, those of the base among them.
	Added []arch.AddedToken
	// Init is how rows of Added begin for which Rows has none, see [arch.Tokens].
	Init string

	beside []string          // files of the tokenizer in the adapter's folder
	listed []arch.AddedToken // all that the files list
	// saved are copies of the base's matrices, resized, which PEFT writes where tokens were
	// added: the names of their tensors by module. They are in the file at path.
	saved map[string]string
	path  string
}

const (
	metaTokens = "graft.tokens"      // the added tokens, JSON
	metaInit   = "graft.tokens.init" // how their rows began
	tokensPart = ".trainable_tokens_delta"
	tokensWrap = ".token_adapter" // between module and part, beside LoRA
)

// noTokens refuses what a format without rows of tokens cannot hold.
func (a *Adapter) noTokens(what string) error {
	if a.Tokens == nil {
		return nil
	}
	return format.Unsupported("%s has no place for the rows of tokens that %s has: write a PEFT folder, or merge it into its base (graft merge BASE ADAPTER -o MERGED)", what, orName(a))
}

func orName(a *Adapter) string {
	if a.Path != "" {
		return a.Path
	}
	return "the adapter " + a.Name
}

// ModelTokens are the tokens in a model's terms, whose rows they share. a must be resolved.
func (a *Adapter) ModelTokens() arch.Tokens {
	t := arch.Tokens{Rows: map[string]arch.TokenRows{}}
	if a.Tokens == nil {
		return t
	}
	t.Added, t.Init = a.Tokens.Added, a.Tokens.Init
	for _, r := range a.Tokens.Rows {
		t.Rows[r.Target] = arch.TokenRows{IDs: r.IDs, Data: r.Rows.Data}
	}
	return t
}

// IDs are the tokens that have a row, ascending.
func (t *Tokens) IDs() []int32 {
	var all []int32
	for _, r := range t.Rows {
		all = append(all, r.IDs...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Parameters is how many numbers the rows have; t may be nil.
func (t *Tokens) Parameters() (n int64) {
	if t != nil {
		for _, r := range t.Rows {
			n += int64(len(r.Rows.Data))
		}
	}
	return n
}

// Name is what the files call a token; "" where they do not say.
func (t *Tokens) Name(id int32) string {
	for _, list := range [][]arch.AddedToken{t.Added, t.listed} {
		for _, a := range list {
			if a.ID == int(id) {
				return a.Token
			}
		}
	}
	return ""
}

// tokenReader gathers the rows of tokens while a PEFT file is read.
type tokenReader struct {
	wanted bool // the configuration has trained tokens
	rows   []TokenRows
	saved  map[string]string
}

// wholeNames are the modules of which PEFT saves the whole where tokens were added.
var wholeNames = []string{"embed_tokens", "lm_head"}

// read takes a tensor if it is one of a module with trained tokens.
func (tr *tokenReader) read(key string, t *format.Tensor) (taken bool, err error) {
	for _, copied := range []string{".base_layer.weight", ".original_module.weight", ".weight"} {
		module, ok := strings.CutSuffix(key, copied)
		if !ok || !tr.wanted {
			continue
		}
		module = strings.TrimSuffix(module, tokensWrap)
		if !slices.Contains(wholeNames, module[strings.LastIndexByte(module, '.')+1:]) {
			break
		}
		if tr.saved == nil {
			tr.saved = map[string]string{}
		}
		tr.saved[module] = t.Name
		return true, nil
	}
	if strings.Contains(key, ".trainable_tokens_original") {
		return true, nil // the base's rows, which the base has
	}
	i := strings.LastIndex(key, tokensPart)
	if i < 0 {
		return false, nil
	}
	if rest := key[i+len(tokensPart):]; rest != "" && (rest[0] != '.' || strings.Contains(rest[1:], ".")) {
		return false, nil
	}
	m, err := readMatrix(t)
	if err != nil {
		return true, err
	}
	module := strings.TrimSuffix(key[:i], tokensWrap)
	if slices.ContainsFunc(tr.rows, func(r TokenRows) bool { return r.Module == module }) {
		return true, format.Unsupported("%s: several adapters in one file (%s)", t.Path, t.Name)
	}
	tr.rows = append(tr.rows, TokenRows{Module: module, Rows: m})
	return true, nil
}

// finish gives the rows their ids, by the configuration.
func (tr *tokenReader) finish(a *Adapter, c *peftConfig, dir string) error {
	corrupt := func(field string, f string, args ...any) error {
		return &format.CorruptError{Path: c.path, Offset: -1, Field: field, Err: fmt.Errorf(f, args...)}
	}
	if len(tr.rows) == 0 {
		if c.tokens != nil {
			return corrupt("trainable_token_indices", "the file has no rows of tokens")
		}
		return nil
	}
	t := &Tokens{Init: a.Meta[metaInit], saved: tr.saved, path: filepath.Join(dir, checkpoint.AdapterWeightsName)}
	for _, r := range tr.rows {
		ids, ok := c.tokensOf(r.Module)
		if !ok {
			return corrupt("trainable_token_indices", "the file has rows of tokens for %s, the configuration has no indices", r.Module)
		}
		if len(ids) != r.Rows.Rows {
			return corrupt("trainable_token_indices", "there are %d indices for %s, and %d rows in the file", len(ids), r.Module, r.Rows.Rows)
		}
		sorted, err := r.sorted(ids)
		if err != nil {
			return corrupt("trainable_token_indices", "%w", err)
		}
		t.Rows = append(t.Rows, sorted)
	}
	slices.SortFunc(t.Rows, func(x, y TokenRows) int { return cmp.Compare(y.Module, x.Module) }) // the embedding before lm_head
	var err error
	if t.listed, t.beside, err = listedTokens(a.Meta[metaTokens], dir); err != nil {
		return err
	}
	t.Added = t.listed
	delete(a.Meta, metaTokens) // Tokens has them, and the writers write them anew
	delete(a.Meta, metaInit)
	a.Tokens = t
	return nil
}

// sorted is r with ids, by which its rows are put in order.
func (r TokenRows) sorted(ids []int32) (TokenRows, error) {
	order := make([]int, len(ids))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(x, y int) int { return cmp.Compare(ids[x], ids[y]) })
	out := TokenRows{Target: r.Target, Module: r.Module, Rows: Matrix{Rows: r.Rows.Rows, Cols: r.Rows.Cols}}
	for i, from := range order {
		if i > 0 && ids[from] == ids[order[i-1]] {
			return out, fmt.Errorf("token %d is there twice", ids[from])
		}
		out.IDs = append(out.IDs, ids[from])
		out.Rows.Data = append(out.Rows.Data, r.Rows.Row(from)...)
	}
	return out, nil
}

// listedTokens are the added tokens that an adapter's metadata, or the tokenizer saved
// beside it, list.
func listedTokens(meta, dir string) (list []arch.AddedToken, files []string, err error) {
	for _, name := range checkpoint.TokenizerFiles {
		if path := filepath.Join(dir, name); exists(path) {
			files = append(files, path)
		}
	}
	if meta != "" {
		if err := json.Unmarshal([]byte(meta), &list); err != nil {
			return nil, nil, &format.CorruptError{Path: dir, Offset: -1, Field: metaTokens, Err: err}
		}
		return list, files, nil
	}
	var doc struct {
		Added []struct {
			ID      int    `json:"id"`
			Content string `json:"content"`
			Special bool   `json:"special"`
		} `json:"added_tokens"`
	}
	path := filepath.Join(dir, "tokenizer.json")
	if err := readJSON(path, &doc); err != nil {
		return nil, nil, err
	}
	for _, t := range doc.Added {
		list = append(list, arch.AddedToken{ID: t.ID, Token: t.Content, Special: t.Special})
	}
	if list == nil {
		var byName map[string]int
		if err := readJSON(filepath.Join(dir, "added_tokens.json"), &byName); err != nil {
			return nil, nil, err
		}
		for t, id := range byName {
			list = append(list, arch.AddedToken{ID: id, Token: t})
		}
	}
	slices.SortFunc(list, func(x, y arch.AddedToken) int { return cmp.Compare(x.ID, y.ID) })
	return list, files, nil
}

// readJSON reads a file that may be absent.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &format.CorruptError{Path: path, Offset: -1, Field: "JSON", Err: err}
	}
	return nil
}

// resolveTokens brings the rows to a base's terms and finds out which tokens it lacks.
func (a *Adapter) resolveTokens(m *arch.Model) error {
	t := a.Tokens
	if t == nil {
		return nil
	}
	if t.listed == nil {
		t.listed = t.Added
	}
	texts, _ := m.Meta.Strs("tokenizer.ggml.tokens")
	used := m.TokensInUse()
	if v := m.View(arch.EmbeddingName); texts == nil && v != nil { // opened without its tokenizer
		used = int(v.Shape[0])
	}
	t.Added = nil
	byID := map[int]arch.AddedToken{}
	for _, l := range t.listed {
		byID[l.ID] = l
		if l.ID >= used {
			t.Added = append(t.Added, l)
		}
	}
	if !a.native {
		if err := t.untie(m); err != nil {
			return err
		}
		if err := t.takeSaved(m); err != nil {
			return err
		}
	}
	for i := range t.Rows {
		r := &t.Rows[i]
		if a.native {
			r.Module, _ = m.HFModule(r.Target, 0)
		} else if r.Target, _, _ = m.Module(r.Module); r.Target == "" {
			return format.Usagef("%s has no module %s", m.Arch, r.Module)
		}
		if r.Target != arch.EmbeddingName && r.Target != arch.HeadName {
			return format.Unsupported("rows of tokens in %s, which is neither the embedding nor the head", r.Module)
		}
		v := m.View(r.Target)
		if v == nil {
			return format.Usagef("the base has no tensor %s (its head is tied to the embedding), of which the adapter has rows", r.Target)
		}
		if len(v.Shape) != 2 || v.Shape[1] != int64(r.Rows.Cols) {
			return format.Usagef("the rows of tokens for %s have %d numbers, the base's %s is %v", r.Module, r.Rows.Cols, r.Target, v.Shape)
		}
		for _, p := range a.Pairs {
			if p.Target == r.Target {
				return format.Unsupported("%s changes %s as a whole, of which it has rows of tokens, too", orName(a), r.Target)
			}
		}
		for _, id := range r.IDs {
			switch l, ok := byID[int(id)]; {
			case ok && int(id) < used && int(id) < len(texts) && plainToken(texts[id]) != plainToken(l.Token):
				return format.Usagef("its token %d is %q, the base's is %q", id, l.Token, texts[id])
			case !ok && int64(id) >= v.Shape[0]:
				return format.Usagef("it has a row for token %d, the base has %d tokens, and nothing says what that token is: the tokenizer belongs beside the adapter (tokenizer.json)", id, v.Shape[0])
			}
		}
	}
	return nil
}

// untie leaves out rows of a head that is the embedding, and has the same: PEFT writes them
// for both.
func (t *Tokens) untie(m *arch.Model) error {
	if m.View(arch.HeadName) != nil {
		return nil
	}
	var embedding, head *TokenRows
	for i := range t.Rows {
		switch target, _, _ := m.Module(t.Rows[i].Module); target {
		case arch.EmbeddingName:
			embedding = &t.Rows[i]
		case arch.HeadName:
			head = &t.Rows[i]
		}
	}
	if head == nil || embedding == nil {
		return nil
	}
	if !slices.Equal(head.IDs, embedding.IDs) || !slices.Equal(head.Rows.Data, embedding.Rows.Data) {
		return format.Usagef("its rows of tokens differ for %s and %s, which are one matrix in the base", embedding.Module, head.Module)
	}
	t.Rows = slices.DeleteFunc(t.Rows, func(r TokenRows) bool { return r.Module == head.Module })
	return nil
}

// takeSaved takes, of matrices that were saved whole, the rows that the base lacks: of tokens
// that were added and of which these are not trained. What else is in them must be the base's.
func (t *Tokens) takeSaved(m *arch.Model) error {
	if len(t.saved) == 0 {
		return nil
	}
	last := int32(-1) // beyond it are rows that no token has
	for _, r := range t.Rows {
		last = max(last, r.IDs[len(r.IDs)-1])
	}
	for _, a := range t.listed {
		last = max(last, int32(a.ID))
	}
	f, err := safetensors.Open(t.path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, module := range slices.Sorted(maps.Keys(t.saved)) {
		target, _, _ := m.Module(module)
		v := m.View(target)
		if v == nil {
			continue // a tied head
		}
		x := f.Tensor(t.saved[module])
		if x == nil {
			return fmt.Errorf("%s has changed while it was read", t.path)
		}
		saved, err := format.StoredRows(x)
		if err != nil {
			return err
		}
		rows, cols := saved.Dims()
		if have, c := v.Rows.Dims(); have > rows || c != cols {
			return format.Usagef("the weight of %s that was saved with it is %d x %d, the base's is %d x %d", module, rows, cols, have, c)
		}
		if err := sameWeights(module, saved, v.Rows, nil); err != nil {
			return err
		}
		i := slices.IndexFunc(t.Rows, func(r TokenRows) bool { return r.Module == module })
		if i < 0 {
			t.Rows = append(t.Rows, TokenRows{Module: module, Rows: Matrix{Cols: int(cols)}})
			i = len(t.Rows) - 1
		}
		r := &t.Rows[i]
		for id := int32(v.Shape[0]); id < int32(rows) && id <= last; id++ {
			at, has := slices.BinarySearch(r.IDs, id)
			if has {
				continue
			}
			row := make([]float32, cols)
			if err := saved.ReadRows(row, int64(id)); err != nil {
				return err
			}
			r.IDs = slices.Insert(r.IDs, at, id)
			r.Rows.Data = slices.Insert(r.Rows.Data, at*int(cols), row...)
			r.Rows.Rows++
		}
		if len(r.IDs) == 0 {
			t.Rows = slices.Delete(t.Rows, i, i+1)
		}
	}
	return nil
}

// plainToken is a token as both kinds of files spell it: GGUF has spaces in tokens of the user's.
func plainToken(s string) string { return strings.ReplaceAll(s, "▁", " ") }

// PEFTTokens is the key under which PEFT has rows of tokens of a, which is resolved.
func (a *Adapter) PEFTTokens(r TokenRows) string {
	if len(a.Pairs) == 0 {
		return peftPrefix + r.Module + tokensPart
	}
	return peftPrefix + r.Module + tokensWrap + tokensPart
}

// putTokens adds the rows to a plan and what they need to a configuration. alone says
// that there are no pairs: then the adapter is one of PEFT's type TRAINABLE_TOKENS.
func (a *Adapter) putTokens(plan *format.Plan, c map[string]any, typ format.Type) error {
	t := a.Tokens
	if t == nil {
		return nil
	}
	alone := len(a.Pairs) == 0
	indices := map[string][]int32{}
	var targets []string
	for _, r := range t.Rows {
		if err := output(plan, a.PEFTTokens(r), typ, dims(r.Rows), r.Rows); err != nil {
			return err
		}
		short := r.Module[strings.LastIndexByte(r.Module, '.')+1:]
		indices[short] = r.IDs
		targets = append(targets, short)
	}
	if !alone {
		c["trainable_token_indices"] = indices
		return nil
	}
	first := t.Rows[0].IDs
	for _, r := range t.Rows {
		if !slices.Equal(r.IDs, first) {
			return format.Unsupported("PEFT has the same tokens in embedding and head where there is nothing else; here they differ")
		}
	}
	for key := range c {
		if !slices.Contains([]string{"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "revision", "task_type"}, key) {
			delete(c, key)
		}
	}
	c["peft_type"], c["token_indices"], c["target_modules"], c["init_weights"] = "TRAINABLE_TOKENS", first, targets, true
	return nil
}

// metadata is what the file says of the tokens.
func (t *Tokens) metadata(into map[string]string) error {
	if t == nil || len(t.Added) == 0 {
		return nil
	}
	b, err := json.Marshal(t.Added)
	if err != nil {
		return err
	}
	into[metaTokens] = string(b)
	if t.Init != "" {
		into[metaInit] = t.Init
	}
	return nil
}

// copied are the tokenizer's files that stood beside the adapter when it was read.
func (t *Tokens) copied() (files []File, err error) {
	if t == nil {
		return nil, nil
	}
	for _, path := range t.beside {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, File{filepath.Base(path), b})
	}
	return files, nil
}
