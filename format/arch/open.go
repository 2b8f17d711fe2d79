package arch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/format/safetensors"
)

// Options says how a model is opened. The zero value is good.
type Options struct {
	// Name is the model's name in general.name; "" derives it from the model card,
	// the configuration or the folder, as the reference converter does.
	Name string
	// NoVocab leaves the tokenizer of a Hugging Face folder unread.
	NoVocab bool
}

// Packed is a matrix that a quantized checkpoint keeps in several tensors.
type Packed struct {
	Type  format.Type // NF4, FP4, INT8
	Shape []int64     // of the matrix, row-major
	Rows  format.RowReader
	From  []*format.Tensor // all tensors that belong to it
}

// PackedOpener recognises such a matrix by its weight. find returns any tensor of
// the checkpoint by its name, or nil. It returns nil if weight is a tensor like
// others.
type PackedOpener func(weight *format.Tensor, find func(name string) *format.Tensor) (*Packed, error)

var packedOpeners = map[string]PackedOpener{}

// RegisterPacked makes a quant_method of config.json's quantization_config known.
// It is called from init functions only; package quant has the codecs.
func RegisterPacked(method string, open PackedOpener) { packedOpeners[method] = open }

// Open opens the model at path: a GGUF file (any shard of a split one), a Hugging
// Face folder, or a safetensors file that lies in one. A safetensors file that does
// not, and a folder of diffusers, is opened as it stands: see [OpenStored]. Only headers
// are read.
func Open(path string, opt Options) (*Model, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if kind, err := checkpoint.Sniff(path); err == nil && kind.Adapter() && kind != checkpoint.GGUFAdapter && (!st.IsDir() || storedAlone(path)) {
		return nil, format.Usagef("%s is an adapter, not a model", path)
	}
	switch {
	case st.IsDir() && storedAlone(path) && hasSafetensors(path):
		return OpenStored(path)
	case st.IsDir():
		return openFolder(path, opt)
	case strings.HasSuffix(path, ".safetensors") || strings.HasSuffix(path, ".safetensors.index.json"):
		if storedAlone(filepath.Dir(path)) {
			return OpenStored(path)
		}
		return openFolder(filepath.Dir(path), opt)
	}
	return openGGUF(path, opt)
}

func openGGUF(path string, opt Options) (*Model, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	if _, ok := f.Meta.Str("general.architecture"); !ok {
		f.Close()
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "general.architecture", Err: errors.New("missing")}
	}
	if t, ok := f.Meta.Str("general.type"); ok && t != "model" {
		f.Close()
		return nil, format.Usagef("%s is an %s, not a model", path, t)
	}
	var views []*format.View
	for _, t := range f.Tensors {
		rows, err := format.StoredRows(t)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		views = append(views, &format.View{Name: t.Name, Type: t.Type, Shape: t.Shape, Rows: rows, From: []*format.Tensor{t}})
	}
	meta := f.Meta
	if opt.Name != "" {
		meta = meta.Clone()
		meta.Set("general.name", opt.Name)
	}
	return NewModel(path, meta, views, f.Close), nil
}

// openFolder makes a model of a Hugging Face folder.
func openFolder(dir string, opt Options) (*Model, error) {
	configPath := filepath.Join(dir, "config.json")
	config, err := os.ReadFile(configPath)
	if err != nil {
		return nil, fmt.Errorf("%s is no model folder: %w", dir, err)
	}
	h, err := newHparams(configPath, config)
	if err != nil {
		return nil, err
	}
	if err := h.check(configPath); err != nil {
		return nil, err
	}
	f, err := safetensors.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	m, err := folderModel(dir, h, f, opt)
	if err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

func folderModel(dir string, h *hparams, f *safetensors.File, opt Options) (*Model, error) {
	b := &builder{dir: dir, h: h, f: f, meta: &gguf.Meta{}, used: map[string]bool{}, stacks: map[string]*stackOf{}, seen: map[string]string{}}
	b.w = &metaWriter{meta: b.meta, arch: h.table.Name}
	b.meta.Set("general.architecture", h.table.Name)
	if err := b.ropeTensors(); err != nil {
		return nil, err
	}
	if err := b.tensors(); err != nil {
		return nil, err
	}
	if err := writeGeneral(dir, h, b.meta, b.views, opt.Name); err != nil {
		return nil, err
	}
	b.w.ftype = guessFileType(b.views)
	h.table.keys(h, b.w)
	if b.w.err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "config.json"), b.w.err)
	}
	b.meta.Set(keyClass, h.table.Classes[0])
	b.meta.Set("general.quantization_version", uint32(2))
	if !opt.NoVocab {
		if err := writeVocab(dir, h, b.meta); err != nil {
			return nil, err
		}
		if !b.meta.Has(tok + "model") {
			b.w.note("the folder has no tokenizer.json or tokenizer.model, so the model has no tokenizer")
		}
	}
	m := NewModel(dir, b.meta, b.views, f.Close)
	m.Notes = b.w.notes
	return m, nil
}

// guessFileType is the general.file_type of the first matrix.
func guessFileType(views []*format.View) uint32 {
	for _, v := range views {
		if len(v.Shape) >= 2 {
			switch v.Type {
			case format.F16:
				return FileTypeF16
			case format.BF16:
				return FileTypeBF16
			case format.F32:
				return FileTypeF32
			}
		}
	}
	return FileTypeF16
}

// Values of general.file_type that a conversion writes.
const (
	FileTypeF32  uint32 = 0
	FileTypeF16  uint32 = 1
	FileTypeQ8_0 uint32 = 7
	FileTypeBF16 uint32 = 32
)

// builder makes the views of a folder.
type builder struct {
	dir    string
	h      *hparams
	f      *safetensors.File
	meta   *gguf.Meta
	w      *metaWriter
	views  []*format.View
	used   map[string]bool // source tensors that belong to a packed matrix
	stacks map[string]*stackOf
	seen   map[string]string // GGUF name -> source tensor
}

// stackOf gathers the experts of one layer until all are there.
type stackOf struct {
	parts map[string][]*part // by GGUF name; index is the expert
	have  int
}

type part struct {
	rows  format.RowReader
	typ   format.Type
	shape []int64
	from  []*format.Tensor
}

// tensors maps the tensors of the folder, shard after shard, by name in each, which
// is the order in which the reference converter meets them.
func (b *builder) tensors() error {
	order := make([]*format.Tensor, len(b.f.Tensors))
	copy(order, b.f.Tensors)
	sort.SliceStable(order, func(i, j int) bool {
		if order[i].Path != order[j].Path {
			return order[i].Path < order[j].Path
		}
		return order[i].Name < order[j].Name
	})
	method := ""
	if q, ok := b.h.v["quantization_config"].(map[string]any); ok {
		method, _ = q["quant_method"].(string)
		if _, known := packedOpeners[method]; !known {
			return format.Unsupported("%s: weights quantized as %q", b.dir, method)
		}
	}
	var plain []*part
	var names []string
	for _, t := range order {
		if unused(plainName(t.Name)) {
			continue
		}
		p := &part{typ: t.Type, shape: t.Shape, from: []*format.Tensor{t}}
		if method != "" {
			packed, err := packedOpeners[method](t, b.f.Tensor)
			if err != nil {
				return err
			}
			if packed != nil {
				p = &part{rows: packed.Rows, typ: packed.Type, shape: packed.Shape, from: packed.From}
				for _, part := range packed.From {
					b.used[part.Name] = true
				}
			}
		}
		plain = append(plain, p)
		names = append(names, t.Name)
	}
	for i, p := range plain {
		if p.rows == nil {
			if b.used[names[i]] {
				continue
			}
			rows, err := format.StoredRows(p.from[0])
			if err != nil {
				return err
			}
			p.rows = rows
		}
		if err := b.place(names[i], p); err != nil {
			return fmt.Errorf("%s: tensor %s: %w", b.dir, names[i], err)
		}
	}
	for _, s := range b.stacks {
		for name := range s.parts {
			return fmt.Errorf("%s: %w", b.dir, &format.CorruptError{Offset: -1, Field: "tensor " + name, Err: errors.New("some of its experts are missing")})
		}
	}
	return b.complete()
}

// place puts one source tensor where the table says.
func (b *builder) place(source string, p *part) error {
	name := plainName(source)
	module, suffix := cutSuffix(name)
	pat, layer, expert := pattern(module)
	placed := false
	for _, r := range b.h.table.rules {
		if r.hf != pat || r.bare != (suffix == "") {
			continue
		}
		placed = true
		if r.op == dropped {
			continue
		}
		if suffix == "" {
			suffix = ".weight"
		}
		if err := b.apply(r, fill(r.gguf, layer, -1)+suffix, layer, expert, source, p); err != nil {
			return err
		}
		if r.bare {
			suffix = ""
		}
	}
	if !placed {
		return format.Unsupported("the table of %s knows no such tensor", b.h.table.modelType)
	}
	return nil
}

func (b *builder) apply(r rule, name string, layer, expert int, source string, p *part) error {
	v := &format.View{Name: name, Type: p.typ, Shape: p.shape, Rows: p.rows, From: p.from}
	heads, kv := b.h.heads()
	switch r.op {
	case queryRows, keyRows:
		if b.h.table.Rope != Norm {
			break
		}
		if r.op == keyRows {
			heads = kv
		}
		if err := permute(v, heads, toRope); err != nil {
			return err
		}
		v.Why = "rows of each head interleaved for rope"
	case plusOne:
		// In float32 whatever the checkpoint has; the reference converter adds in
		// float16 where that is the type, and loses bits.
		v.Rows, v.Why = &plus{p.rows, 1}, "one added"
	case tokenRows:
		return b.tokenRows(v, source)
	case experts:
		return b.stack(r, v, layer, expert, source)
	case gateHalf, upHalf:
		if len(p.shape) != 3 || p.shape[1]%2 != 0 {
			return fmt.Errorf("shape %v is no stack of gate and up", p.shape)
		}
		half := p.shape[1] / 2
		off := int64(0)
		v.Why = "first half of each expert's rows"
		if r.op == upHalf {
			off, v.Why = half, "second half of each expert's rows"
		}
		v.Shape = []int64{p.shape[0], half, p.shape[2]}
		v.Rows = mapRows(p.rows, p.shape[0]*half, func(i int64) int64 { return i/half*2*half + off + i%half })
	}
	return b.emit(v, source)
}

// permute reorders the rows of v, or the elements if it is a vector, head by head.
func permute(v *format.View, heads int64, order func(rows, heads int64) func(int64) int64) error {
	n := int64(0)
	if len(v.Shape) > 0 {
		n = v.Shape[0]
	}
	if n == 0 || n%heads != 0 || n/heads%2 != 0 || len(v.Shape) > 2 {
		return fmt.Errorf("shape %v does not divide into %d heads of even size", v.Shape, heads)
	}
	if len(v.Shape) == 1 {
		v.Rows = mapCols(v.Rows, order(n, heads))
	} else {
		v.Rows = mapRows(v.Rows, n, order(n, heads))
	}
	return nil
}

// tokenRows cuts the embedding of Gemma 3 to the tokens that the tokenizer has.
func (b *builder) tokenRows(v *format.View, source string) error {
	n, err := b.tokenCount()
	if err != nil {
		return err
	}
	if len(v.Shape) == 2 && n > 0 && n < v.Shape[0] {
		v.Shape = []int64{n, v.Shape[1]}
		v.Rows = mapRows(v.Rows, n, func(i int64) int64 { return i })
		v.Why = fmt.Sprintf("cut to the tokenizer's %d tokens", n)
	}
	return b.emit(v, source)
}

// tokenCount is the number of rows that the reference converter keeps: vocab_size
// where there is a tokenizer.model, else what tokenizer.json has; 0 without either.
func (b *builder) tokenCount() (int64, error) {
	if _, err := os.Stat(filepath.Join(b.dir, "tokenizer.model")); err == nil {
		n, _ := b.h.int("vocab_size")
		return n, nil
	}
	v := &folderVocab{dir: b.dir, h: b.h}
	var tj tokenizerJSON
	ok, err := readJSON(v.path("tokenizer.json"), &tj)
	if !ok || err != nil {
		return 0, err
	}
	added := len(tj.AddedTokens)
	tj.AddedTokens, v.json = nil, &tj
	ids, _, err := v.vocabulary()
	return int64(len(ids) + added), err
}

// stack keeps an expert until its layer is complete, and then emits the layer's
// stacks in the order of the table.
func (b *builder) stack(r rule, v *format.View, layer, expert int, source string) error {
	n, ok := b.h.int("num_local_experts", "num_experts")
	if !ok || n <= 0 || n > 1<<16 {
		return errors.New("config.json does not say how many experts there are")
	}
	if int64(expert) >= n {
		return fmt.Errorf("expert %d of %d", expert, n)
	}
	key := fmt.Sprint(layer)
	s := b.stacks[key]
	if s == nil {
		s = &stackOf{parts: map[string][]*part{}}
		b.stacks[key] = s
	}
	if s.parts[v.Name] == nil {
		s.parts[v.Name] = make([]*part, n)
	}
	if s.parts[v.Name][expert] != nil {
		return fmt.Errorf("expert %d is there twice", expert)
	}
	s.parts[v.Name][expert] = &part{rows: v.Rows, typ: v.Type, shape: v.Shape, from: v.From}
	s.have++
	var stacks []rule
	for _, r := range b.h.table.rules {
		if r.op == experts {
			stacks = append(stacks, r)
		}
	}
	if int64(s.have) < n*int64(len(stacks)) {
		return nil
	}
	delete(b.stacks, key)
	for _, r := range stacks {
		name := fill(r.gguf, layer, -1) + ".weight"
		if err := b.emitStack(name, s.parts[name], source); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) emitStack(name string, parts []*part, source string) error {
	v := &format.View{Name: name, Why: fmt.Sprintf("%d experts stacked", len(parts))}
	var rows []format.RowReader
	for i, p := range parts {
		if p == nil {
			return fmt.Errorf("%s: expert %d is missing", name, i)
		}
		if i == 0 {
			v.Type = p.typ
			v.Shape = append([]int64{int64(len(parts))}, p.shape...)
		}
		if len(p.shape) != 2 || p.shape[0] != v.Shape[1] || p.shape[1] != v.Shape[2] {
			return fmt.Errorf("%s: expert %d has shape %v, the first %v", name, i, p.shape, v.Shape[1:])
		}
		if p.typ != v.Type {
			v.Type = format.F32
		}
		rows = append(rows, p.rows)
		v.From = append(v.From, p.from...)
	}
	v.Rows = stackRows(rows)
	return b.emit(v, source)
}

func (b *builder) emit(v *format.View, source string) error {
	if other, ok := b.seen[v.Name]; ok {
		return fmt.Errorf("and %s both become %s", other, v.Name)
	}
	b.seen[v.Name] = source
	b.views = append(b.views, v)
	return nil
}

// complete checks that no layer lacks a tensor that others have, and that the
// tensors without which nothing works are there.
func (b *builder) complete() error {
	missing := func(name string) error {
		return &format.CorruptError{Path: b.dir, Offset: -1, Field: "tensor " + name, Err: errors.New("missing")}
	}
	if b.seen["token_embd.weight"] == "" {
		return missing("model.embed_tokens.weight")
	}
	if b.seen["output_norm.weight"] == "" {
		return missing("model.norm.weight")
	}
	tied, _ := b.h.v["tie_word_embeddings"].(bool)
	if b.seen["output.weight"] == "" && !tied {
		if _, stated := b.h.v["tie_word_embeddings"]; stated {
			return missing("lm_head.weight")
		}
	}
	layers, _ := b.h.int("num_hidden_layers")
	for i := range layers {
		if b.seen[fmt.Sprintf("blk.%d.attn_output.weight", i)] == "" {
			return missing(fmt.Sprintf("model.layers.%d.self_attn.o_proj.weight", i))
		}
	}
	if name := fmt.Sprintf("blk.%d.attn_output.weight", layers); b.seen[name] != "" {
		return &format.CorruptError{Path: b.dir, Offset: -1, Field: "tensor " + b.seen[name], Err: fmt.Errorf("the configuration has %d layers", layers)}
	}
	return nil
}
