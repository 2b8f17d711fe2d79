package model

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
)

// Options are settings of a model. The zero value is good, and none of them but
// Context and Compute changes a byte of what is computed.
type Options struct {
	Threads int // 0: one for each processor
	// KeepLayers is how many layers next to the last one keep their activations between
	// the passes, as the last one always does; those under them keep their input and
	// run forward again in the backward pass. 0 needs the least memory; a negative
	// number keeps all. See [Model.SetKeepLayers].
	KeepLayers int
	// KeepAttention keeps what attention gave in the layers that run again, as large
	// as their inputs or so, and spares them attention's part of that.
	KeepAttention bool
	// Stream gives the pages of a layer's mapped weights back when a pass is done with
	// it and asks for the next layer's in advance: for a base larger than memory, or
	// to leave memory to others. Sessions do not do it.
	Stream bool
	// HeadMemory bounds the logits held at a time, in bytes; 0 means 64 MiB. At
	// least sixteen tokens' logits are held.
	HeadMemory int64
	// Context is how many tokens a sequence may have. It sizes nothing; a model
	// with two tables of rope factors (longrope) takes the long one when Context
	// is above its original context, as llama.cpp does. 0 means the original.
	Context int
	// Compute is the arithmetic of the products through the model's own matrices and of
	// those of attention, forward and backward; adapters and all else are float32 in any.
	// New refuses one that the processor does not have.
	Compute kernel.Compute
}

// Model is a decoder ready to run. Its methods must not run at the same time.
type Model struct {
	Config
	// OnHidden, if not nil, is called in every pass forward with the residual
	// stream: layer 0 is the embeddings as scaled, layer i the output of the i-th
	// layer, the last one after the final norm. x must not be changed or kept.
	OnHidden func(layer int, x kernel.Mat)
	// OnInput, if not nil, is called in every pass forward, but not in the
	// recomputation of the backward pass, with the input of each matrix, by its
	// GGUF name: for statistics. x must not be changed or kept.
	OnInput func(name string, x kernel.Mat)
	// OnExpertInput is the same for the matrices of a stack of experts, each with
	// the tokens that went to it. It is not called for an expert without tokens.
	OnExpertInput func(name string, expert int, x kernel.Mat)

	opt    Options
	pool   *kernel.Pool
	embed  *linear
	head   *linear // embed where the head is tied
	layers []layer
	norm   []float32 // the last one
	byName map[string]*linear
	stacks map[string][]*linear // experts, by the name of their stack
	freqs  [2][]float64         // frequency of each rotated pair, for RopeGlobal and RopeLocal
	mscale [2]float64           // what cosines and sines are multiplied by
	fail   failure
	stored []*format.Tensor // what embedding, head and last norm are made of

	// Of the pass that runs.
	ends    int     // pairs bound to embedding and head
	keep    float32 // share of an adapter's inputs that dropout leaves
	grads   bool    // gradients are wanted
	merging bool    // the adapter acts as if merged
	// norms are those of the last pass that had DoRA pairs.
	norms map[normKey]*normed
	work  workspace

	spent  Spent // of the pass, up to lapped
	lapped time.Time
}

// layer is one block: attention, then a feed-forward network, each added to the
// residual. A nil norm is one that the architecture does not have there.
type layer struct {
	attnNorm, ffnNorm []float32 // before
	postAttn, postFFN []float32 // after, before the sum
	q, k, v           *linear   // or
	qkv               *linear   // the three in one
	qNorm, kNorm      []float32 // norms of a head, or of all heads together
	o                 *linear
	gate, up          *linear // or
	gateUp            *linear // the two in one
	down              *linear
	moe               *mixture
	slots             int              // pairs bound to its matrices
	stored            []*format.Tensor // what its weights are made of
}

const (
	defaultHeadMemory = 64 << 20

	embedName = "token_embd.weight"
	headName  = "output.weight"
)

// New prepares src, which must stay open while the model is used. It reads the
// norms and biases, no matrix. Tensors that are missing, of a wrong shape or of no
// use to the architecture are errors.
func New(src *arch.Model, opt Options) (*Model, error) {
	c, err := ConfigOf(src)
	if err != nil {
		return nil, err
	}
	if opt.HeadMemory <= 0 {
		opt.HeadMemory = defaultHeadMemory
	}
	if err := computes(opt.Compute); err != nil {
		return nil, err
	}
	m := &Model{Config: c, opt: opt, byName: map[string]*linear{}, stacks: map[string][]*linear{}}
	m.SetKeepLayers(opt.KeepLayers)
	ld := loader{m: m, src: src, used: map[string]bool{}, slots: &m.ends, stored: &m.stored}
	m.embed = ld.linear("token_embd", c.Vocab, c.Hidden)
	if m.head = m.embed; !c.TiedHead {
		m.head = ld.linear("output", c.Vocab, c.Hidden)
	}
	m.norm = ld.vector("output_norm.weight", c.Hidden)
	m.layers = make([]layer, len(c.Layers))
	for i := range m.layers {
		ld.layer(i)
	}
	ld.frequencies()
	ld.refuseUnused()
	if ld.err != nil {
		return nil, ld.err
	}
	m.pool = kernel.NewPool(opt.Threads)
	return m, nil
}

// Close ends the model's threads. It does not close the source.
func (m *Model) Close() error { m.pool.Close(); return nil }

// Matrices lists the names of all matrices an adapter can change, but the experts'
// (see [Model.Stacks]), in the order of the layers, the embedding first and a head of its own last.
func (m *Model) Matrices() []string {
	names := []string{embedName}
	for _, l := range m.layers {
		for _, w := range l.linears() {
			if !w.stacked {
				names = append(names, w.name)
			}
		}
	}
	if !m.TiedHead {
		names = append(names, headName)
	}
	return names
}

// Stacks lists the names of all stacks of expert matrices, in the order of the
// layers. Adapters can change them too.
func (m *Model) Stacks() []string {
	var names []string
	for _, l := range m.layers {
		if l.moe != nil {
			names = append(names, l.moe.gate[0].name, l.moe.up[0].name, l.moe.down[0].name)
		}
	}
	return names
}

// StackDims gives the number of experts of a stack that [Model.Stacks] lists, and
// the outputs and inputs of each; ok is false for any other name.
func (m *Model) StackDims(name string) (experts, out, in int, ok bool) {
	s := m.stacks[name]
	if s == nil {
		return 0, 0, 0, false
	}
	return len(s), s[0].out, s[0].in, true
}

// MatrixDims gives the outputs and inputs of a matrix that [Model.Matrices] lists;
// ok is false for any other name.
func (m *Model) MatrixDims(name string) (out, in int, ok bool) {
	l := m.byName[name]
	if l == nil {
		return 0, 0, false
	}
	return l.out, l.in, true
}

func (m *Model) noSuchMatrix(name string) error {
	if name == headName && m.TiedHead {
		return format.Unsupported("an adapter of %s: this model's head is its embedding, %s", name, embedName)
	}
	if strings.Contains(name, "ffn_gate_inp") {
		return format.Unsupported("an adapter of %s: routers are not trained", name)
	}
	return fmt.Errorf("the adapter changes %s, which this model (%s, %d layers) does not have as a matrix", name, m.Arch, len(m.layers))
}

// failure keeps the first error of weights that could not be read: products have
// no place to return one.
type failure struct{ err atomic.Pointer[error] }

func (f *failure) set(err error) { f.err.CompareAndSwap(nil, &err) }

// take returns the error and forgets it.
func (f *failure) take() error {
	if p := f.err.Swap(nil); p != nil {
		return *p
	}
	return nil
}

// matrix is rows of a view as weights of a product.
type matrix struct {
	name    string
	rows    format.RowReader
	first   int64
	out, in int
	fail    *failure
}

func (w *matrix) Dims() (rows, cols int) { return w.out, w.in }

func (w *matrix) DecodeRows(dst []float32, row int) {
	if err := w.rows.ReadRows(dst, w.first+int64(row)); err != nil {
		clear(dst)
		w.fail.set(fmt.Errorf("tensor %s: %w", w.name, err))
	}
}

// loader takes the tensors of a model by name and remembers the first error and
// which it took.
type loader struct {
	m    *Model
	src  *arch.Model
	used map[string]bool
	// slots counts the pairs of the layer that is being loaded, and stored are its
	// tensors; the embedding and the head have a count and a list of their own.
	slots  *int
	stored *[]*format.Tensor
	err    error
}

func (ld *loader) bad(name, f string, args ...any) {
	if ld.err == nil {
		ld.err = &format.CorruptError{Path: ld.src.Path, Offset: -1, Field: name, Err: fmt.Errorf(f, args...)}
	}
}

// view takes a tensor of the shape given; nil if it is absent.
func (ld *loader) view(name string, shape ...int) *format.View {
	v := ld.src.View(name)
	if v == nil {
		return nil
	}
	ld.used[name] = true
	*ld.stored = append(*ld.stored, v.From...)
	same := len(v.Shape) == len(shape)
	for i := 0; same && i < len(shape); i++ {
		same = v.Shape[i] == int64(shape[i])
	}
	if !same {
		ld.bad(name, "shape %v where %v is needed", v.Shape, shape)
		return nil
	}
	return v
}

// optional reads a vector; nil if it is absent.
func (ld *loader) optional(name string, n int) []float32 {
	v := ld.view(name, n)
	if v == nil {
		return nil
	}
	x := make([]float32, n)
	if err := v.Rows.ReadRows(x, 0); err != nil && ld.err == nil {
		ld.err = err
	}
	return x
}

func (ld *loader) vector(name string, n int) []float32 {
	x := ld.optional(name, n)
	if x == nil {
		ld.bad(name, "the tensor is missing")
	}
	return x
}

func (ld *loader) has(name string) bool { return ld.src.View(name) != nil }

// linear takes the matrix and, if there is one, the bias of a module.
func (ld *loader) linear(module string, out, in int) *linear {
	name := module + ".weight"
	l := &linear{name: name, out: out, in: in, bias: ld.optional(module+".bias", out)}
	v := ld.view(name, out, in)
	if v == nil {
		ld.bad(name, "the tensor is missing")
		return l
	}
	l.w = &matrix{name: name, rows: ld.rows(v), out: out, in: in, fail: &ld.m.fail}
	l.slots = ld.slots
	ld.m.byName[name] = l
	return l
}

func (ld *loader) layer(i int) {
	c, l := &ld.m.Config, &ld.m.layers[i]
	ld.slots, ld.stored = &l.slots, &l.stored
	p := fmt.Sprintf("blk.%d.", i)
	l.attnNorm = ld.optional(p+"attn_norm.weight", c.Hidden)
	l.postAttn = ld.optional(p+"post_attention_norm.weight", c.Hidden)
	l.ffnNorm = ld.optional(p+"ffn_norm.weight", c.Hidden)
	l.postFFN = ld.optional(p+"post_ffw_norm.weight", c.Hidden)
	if l.attnNorm == nil && l.postAttn == nil || l.ffnNorm == nil && l.postFFN == nil {
		ld.bad(p+"attn_norm.weight", "a block without a norm before or after it")
	}
	if ld.has(p + "attn_qkv.weight") {
		l.qkv = ld.linear(p+"attn_qkv", c.QDim()+c.KDim()+c.VDim(), c.Hidden)
	} else {
		l.q = ld.linear(p+"attn_q", c.QDim(), c.Hidden)
		l.k = ld.linear(p+"attn_k", c.KDim(), c.Hidden)
		l.v = ld.linear(p+"attn_v", c.VDim(), c.Hidden)
	}
	l.qNorm = ld.headNorm(p+"attn_q_norm.weight", c.QDim())
	l.kNorm = ld.headNorm(p+"attn_k_norm.weight", c.KDim())
	if (l.qNorm == nil) != (l.kNorm == nil) {
		ld.bad(p+"attn_k_norm.weight", "queries and keys must both have a norm, or neither")
	}
	l.o = ld.linear(p+"attn_output", c.Hidden, c.ODim())
	if c.Layers[i].Mixed {
		l.moe = ld.mixture(p)
		return
	}
	if c.FF == 0 {
		ld.bad(ld.src.Arch+".feed_forward_length", "the key is missing")
		return
	}
	if ld.has(p + "ffn_gate.weight") {
		l.gate = ld.linear(p+"ffn_gate", c.FF, c.Hidden)
		l.up = ld.linear(p+"ffn_up", c.FF, c.Hidden)
	} else {
		l.gateUp = ld.linear(p+"ffn_up", 2*c.FF, c.Hidden)
	}
	l.down = ld.linear(p+"ffn_down", c.Hidden, c.FF)
}

// headNorm takes the weights of a norm of one head, or of all heads as one vector.
func (ld *loader) headNorm(name string, whole int) []float32 {
	v := ld.src.View(name)
	if v == nil {
		return nil
	}
	if len(v.Shape) == 1 && v.Shape[0] == int64(whole) {
		return ld.optional(name, whole)
	}
	return ld.optional(name, ld.m.KeyDim)
}

// refuseUnused refuses a model with a tensor that nothing here takes: the file
// means something by it.
func (ld *loader) refuseUnused() {
	if ld.err != nil {
		return
	}
	var names []string
	for _, v := range ld.src.Views {
		if !ld.used[v.Name] {
			names = append(names, v.Name)
		}
	}
	if len(names) > 0 {
		ld.err = format.Unsupported("%s models with tensor %s (%d such tensors): nothing here uses it", ld.src.Arch, slices.Min(names), len(names))
	}
}
