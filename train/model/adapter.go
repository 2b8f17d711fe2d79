package model

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

// Pair is the low-rank change of one matrix W (out x in): W + Scale·B·A. For
// token_embd.weight the matrix is the one stored (vocabulary x Hidden), so B has a
// row for each token. The matrices are the caller's; rows of a Mat must touch
// (Stride equal to Cols). For a stack of e experts, the e pairs stand under each
// other in A and in B.
type Pair struct {
	A     kernel.Mat // r x in, or e·r x in
	B     kernel.Mat // out x r, or e·out x r
	Scale float32    // alpha/r, or whatever the adapter's kind says
	// Magnitude, of DoRA, are the norms that the rows of the changed matrix get: out
	// of them, or e·out; of the embedding those of its columns, Hidden of them. nil for
	// plain LoRA.
	Magnitude []float32
}

// Rank is r.
func (p *Pair) Rank() int { return p.B.Cols }

// Adapter is a set of pairs, by the GGUF name of the matrix changed
// ("blk.0.attn_q.weight"). B is in GGUF's layout: where the architecture's
// file has the rows of q and k permuted, B's rows are permuted too.
//
// An adapter of token_embd.weight changes the lookup, and in a model with a
// tied head the head as well, since there they are one matrix: that is what the
// merged file will do.
//
// Whoever changes the numbers of an adapter with magnitudes calls [Adapter.Changed]
// before the next pass.
type Adapter struct {
	Pairs map[string]*Pair
	// Fixed are further changes, of the same or of other matrices, that are never
	// trained: what an adapter began with, taken off again (with a negative Scale).
	// They have no magnitudes.
	Fixed map[string]*Pair
	// Rows are whole rows of token_embd.weight and, in a model with a head of its own, of
	// output.weight. The adapter takes part with weight 1 then.
	Rows map[string]*Rows
	// Invocation, if not empty, is what begins the part of a sequence that the adapter
	// acts on (aLoRA): its last occurrence.
	Invocation []int32
	// Merge, if not nil, makes the adapter act as the file does that it is merged into.
	// It must not act together with others then.
	Merge *Merge
	// TrainedFor is the Merge that the adapter was trained with, nil for an ordinary one.
	TrainedFor *Merge

	version uint64
}

// Changed must be called when numbers of an adapter with a Merge or with magnitudes
// have changed.
func (a *Adapter) Changed() { a.version++ }

func sameShape(x, y kernel.Mat) bool {
	return x.Rows == y.Rows && x.Cols == y.Cols && x.Stride == y.Stride && len(x.Data) == len(y.Data)
}

// NewAdapter makes an adapter without pairs.
func NewAdapter() *Adapter { return &Adapter{Pairs: map[string]*Pair{}} }

// Names lists the matrices changed, sorted.
func (a *Adapter) Names() []string { return slices.Sorted(maps.Keys(a.Pairs)) }

// Scaled is an adapter in use, its change multiplied by Weight.
type Scaled struct {
	*Adapter
	Weight float32
}

// Grad is the gradient of a pair: of the shape of its A, its B and its magnitudes. That
// of [Rows] has but Rows.
type Grad struct {
	A, B      kernel.Mat
	Magnitude []float32 // nil where the pair has none
	Rows      kernel.Mat

	apart *Grad // see [Grads.Apart]
}

func (d *Grad) zero() {
	d.A.Zero()
	d.B.Zero()
	clear(d.Magnitude)
	d.Rows.Zero()
}

// ofLookUp is where the lookup of the embedding adds to.
func (d *Grad) ofLookUp() *Grad {
	if d.apart != nil {
		return d.apart
	}
	return d
}

// Grads holds gradients by matrix, as [Adapter] holds pairs. Passes add to them.
type Grads map[string]*Grad

// NewGrads makes zero gradients for every pair and the rows of a.
func NewGrads(a *Adapter) Grads {
	g := Grads{}
	for name, p := range a.Pairs {
		g[name] = &Grad{A: kernel.NewMat(p.A.Rows, p.A.Cols), B: kernel.NewMat(p.B.Rows, p.B.Cols)}
		if p.Magnitude != nil {
			g[name].Magnitude = make([]float32, len(p.Magnitude))
		}
	}
	for name, r := range a.Rows {
		if g[name] == nil {
			g[name] = &Grad{}
		}
		g[name].Rows = kernel.NewMat(r.Data.Rows, r.Data.Cols)
	}
	return g
}

// Zero clears all gradients.
func (g Grads) Zero() {
	for _, d := range g {
		if d.zero(); d.apart != nil {
			d.apart.zero()
		}
	}
}

// Apart makes the gradients of the embedding two sums until [Grads.Join]: of its lookup, and of
// a head that is the same matrix. In each pass the head comes first, so that one sum would
// depend in its last bits on how sequences are divided among passes.
func (g Grads) Apart() {
	if d := g[embedName]; d != nil {
		d.apart = &Grad{A: kernel.NewMat(d.A.Rows, d.A.Cols), B: kernel.NewMat(d.B.Rows, d.B.Cols),
			Magnitude: make([]float32, len(d.Magnitude)), Rows: kernel.NewMat(d.Rows.Rows, d.Rows.Cols)}
	}
}

// Join ends a sum over passes of gradients that are apart.
func (g Grads) Join() {
	d := g[embedName]
	if d == nil || d.apart == nil {
		return
	}
	for _, x := range [][2][]float32{{d.A.Data, d.apart.A.Data}, {d.B.Data, d.apart.B.Data},
		{d.Magnitude, d.apart.Magnitude}, {d.Rows.Data, d.apart.Rows.Data}} {
		kernel.Add(x[0], x[1])
	}
	d.apart.zero()
}

// Dropout zeroes each element of an adapter's input with probability P and scales
// the others by 1/(1-P), on the branch through A only. What is dropped is a
// function of Seed, Step, the matrix, the token's place in the step and the
// column, so recomputation and any number of threads drop the same.
type Dropout struct {
	P    float32 // 0 is none; below 1
	Seed uint64
	Step uint64 // to be different for every step of a run
}

// bound is a pair on the matrix it changes, for the length of one pass.
type bound struct {
	pair  *Pair
	scale float32 // the pair's, times the adapter's weight
	grad  *Grad   // nil unless trained
	drop  rng.Stream
	slot  int // where activations keep its u = x·Aᵀ, and in the next place with DoRA x·Vᵀ

	// Of DoRA.
	whole       *Pair // the adapter's, of which pair may be a part
	version     uint64
	norms       *normed // nil without magnitudes
	columnNorms *normed // the embedding's in its place

	active []bool // tokens that it acts on; nil: all
}

// bind checks adapters against the model and sorts their pairs to its matrices.
// grads, if not nil, belongs to the first adapter.
func (m *Model) bind(adapters []Scaled, grads Grads, drop Dropout) error {
	for _, l := range m.byName {
		l.bound, l.merge, l.rows = l.bound[:0], false, nil
	}
	for _, stack := range m.stacks {
		for _, l := range stack {
			l.bound, l.merge = l.bound[:0], false
		}
	}
	m.ends, m.spent, m.lapped = 0, Spent{}, time.Now()
	for i := range m.layers {
		m.layers[i].slots = 0
	}
	if drop.P < 0 || drop.P >= 1 {
		return fmt.Errorf("model: dropout of %v", drop.P)
	}
	m.merging, m.grads = false, grads != nil
	used := 0
	for i, a := range adapters {
		if a.Adapter == nil || a.Weight == 0 && grads == nil {
			continue
		}
		if used++; a.Merge != nil {
			m.merging = true
		}
		if m.merging && used > 1 {
			return fmt.Errorf("model: an adapter that acts as if merged cannot act together with others")
		}
		active := m.activity(i, a.Adapter)
		var trained Grads
		if i == 0 {
			trained = grads
		}
		if err := m.bindRows(a, trained); err != nil {
			return err
		}
		for _, name := range a.Names() {
			var g *Grad
			if i == 0 && grads != nil {
				p := a.Pairs[name]
				if g = grads[name]; g == nil || !sameShape(g.A, p.A) || !sameShape(g.B, p.B) || len(g.Magnitude) != len(p.Magnitude) {
					return fmt.Errorf("model: no gradient was made for %s, or one of another shape", name)
				}
			}
			if err := m.bindPair(name, a.Pairs[name], g, a, active, drop); err != nil {
				return err
			}
			if m.merging && (a.Pairs[name].Magnitude != nil || len(a.Fixed) > 0 || active != nil) {
				return format.Unsupported("acting as if merged with magnitudes (DoRA), an offset (pissa) or an invocation")
			}
			if m.merging {
				if err := m.mergeInto(name, a.Adapter); err != nil {
					return err
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(a.Fixed)) {
			if a.Fixed[name].Magnitude != nil {
				return fmt.Errorf("model: a fixed change of %s with magnitudes", name)
			}
			if err := m.bindPair(name, a.Fixed[name], nil, a, active, drop); err != nil {
				return err
			}
		}
	}
	if err := m.findNorms(); err != nil {
		return err
	}
	if m.keep = 1; grads != nil {
		m.keep = 1 - drop.P
	}
	return nil
}

// matrices are the one of a name, or those of the stack of that name.
func (m *Model) matrices(name string) []*linear {
	if l := m.byName[name]; l != nil {
		return []*linear{l}
	}
	return m.stacks[name]
}

// bindPair binds a pair to its matrix, or its parts to the matrices of a stack.
func (m *Model) bindPair(name string, p *Pair, g *Grad, a Scaled, active []bool, drop Dropout) error {
	to := m.matrices(name)
	if to == nil {
		return m.noSuchMatrix(name)
	}
	r, n, out, in := p.Rank(), len(to), to[0].out, to[0].in
	if r < 1 || p.A.Rows != n*r || p.A.Cols != in || p.B.Rows != n*out || p.A.Stride != in || p.B.Stride != r {
		return fmt.Errorf("model: adapter of %s: A is %d x %d and B %d x %d, where the %d matrices are %d x %d", name,
			p.A.Rows, p.A.Cols, p.B.Rows, p.B.Cols, n, out, in)
	}
	switch {
	case p.Magnitude == nil:
	case name == embedName && len(p.Magnitude) != in:
		return fmt.Errorf("model: adapter of %s: %d magnitudes for %d columns", name, len(p.Magnitude), in)
	case name != embedName && len(p.Magnitude) != n*out:
		return fmt.Errorf("model: adapter of %s: %d magnitudes for %d rows", name, len(p.Magnitude), n*out)
	}
	if err := checkInvoked(name, p, a.Adapter); err != nil {
		return err
	}
	s := rng.New(drop.Seed, "dropout", name).At(drop.Step)
	for i, l := range to {
		part := func(a, b kernel.Mat) (kernel.Mat, kernel.Mat) {
			return a.Sub(i*r, (i+1)*r, 0, in), b.Sub(i*out, (i+1)*out, 0, r)
		}
		b := bound{pair: p, scale: p.Scale * a.Weight, grad: g, slot: *l.slots, drop: s, whole: p, version: a.version, active: active}
		if n > 1 {
			b.pair, b.drop = &Pair{}, s.At(uint64(i))
			b.pair.A, b.pair.B = part(p.A, p.B)
			if p.Magnitude != nil {
				b.pair.Magnitude = p.Magnitude[i*out : (i+1)*out]
			}
			if g != nil {
				b.grad = &Grad{}
				b.grad.A, b.grad.B = part(g.A, g.B)
				if g.Magnitude != nil {
					b.grad.Magnitude = g.Magnitude[i*out : (i+1)*out]
				}
			}
		}
		if *l.slots++; p.Magnitude != nil {
			*l.slots++
		}
		l.bound = append(l.bound, b)
	}
	return nil
}
