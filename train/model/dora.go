package model

import (
	"fmt"
	"math"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// DoRA (Liu et al. 2024, as PEFT computes it): with V = W + Scale·B·A and n the norms
// of V's rows, y = (m/n)∘(x·Vᵀ) + bias. n is taken as a constant in the backward pass:
//
//	dm = Σ dy∘(x·Vᵀ)/n    and, with g = (m/n)∘dy in dy's place, all else as without m.
//
// Dropout, as everywhere here, is on the branch through A alone. Of the embedding see
// [Model.columnNorms].

// normed is a DoRA pair's row norms on one matrix, until its adapter changes.
type normed struct {
	version uint64
	norm    []float32 // n
	factor  []float32 // m/n; 1 where n is 0
}

// besideRows refuses DoRA of a matrix of which rows are replaced: its norms would be others.
func besideRows(l *linear) error {
	return format.Unsupported("DoRA of %s beside rows of tokens: leave it out of the targets", l.name)
}

// setFactor makes the factors of magnitudes.
func (n *normed) setFactor(magnitude []float32) {
	n.factor = slices.Clone(magnitude)
	for i, x := range n.norm {
		if n.factor[i] /= x; x == 0 {
			n.factor[i] = 1 // there is nothing to scale
		}
	}
}

// normKey says whose norms they are.
type normKey struct {
	l     *linear
	pair  *Pair // of the adapter, not a part of it
	scale float32
}

// renormed says whether the outputs of l are scaled by row.
func (l *linear) renormed() bool {
	for i := range l.bound {
		if l.bound[i].norms != nil {
			return true
		}
	}
	return false
}

// normed gives a DoRA pair its norms, for used: those of the last pass, or what compute gives
// where the adapter has changed since.
func (m *Model) normed(used map[normKey]*normed, l *linear, b *bound, compute func(*linear, *bound) []float32) *normed {
	key := normKey{l, b.whole, b.scale}
	n := m.norms[key]
	if n == nil || n.version != b.version {
		n = &normed{version: b.version, norm: compute(l, b)}
	}
	n.setFactor(b.pair.Magnitude)
	used[key] = n
	return n
}

// findNorms gives the DoRA pairs bound their norms: those of the last pass where the
// adapter did not change since.
func (m *Model) findNorms() error {
	used := map[normKey]*normed{}
	find := func(l *linear) error {
		for i := range l.bound {
			b := &l.bound[i]
			if b.pair.Magnitude == nil {
				continue
			}
			if l.rows != nil {
				return besideRows(l)
			}
			if b.grad != nil && len(l.bound) > 1 {
				return fmt.Errorf("model: the DoRA pair of %s cannot be trained beside another", l.name)
			}
			b.norms = m.normed(used, l, b, m.rowNorms)
		}
		return nil
	}
	for i := range m.layers {
		for _, l := range m.layers[i].linears() {
			if err := find(l); err != nil {
				return err
			}
		}
		if len(used) > 0 {
			m.giveBack(i)
		}
	}
	if !m.TiedHead {
		if err := find(m.head); err != nil {
			return err
		}
	}
	if err := m.columnNorms(used); err != nil {
		return err
	}
	if len(used) > 0 {
		m.norms = used
	}
	return nil
}

// RowNorms gives the norms of the rows of a matrix that [Model.Matrices] lists, or of
// a stack that [Model.Stacks] lists: DoRA's magnitudes to begin with, but of the
// embedding, see [Model.ColumnNorms].
func (m *Model) RowNorms(name string) ([]float32, error) {
	to := m.stacks[name]
	if l := m.byName[name]; l != nil {
		to = []*linear{l}
	}
	if to == nil {
		return nil, m.noSuchMatrix(name)
	}
	var all []float32
	for _, l := range to {
		for _, s := range m.rowSquares(l) {
			all = append(all, float32(math.Sqrt(s)))
		}
	}
	return all, m.fail.take()
}

// rowSquares are the sums of squares of l's rows. They are kept.
func (m *Model) rowSquares(l *linear) []float64 {
	if l.squares != nil {
		return l.squares
	}
	sq := make([]float64, l.out)
	const block = 16
	rows := make([][]float32, m.pool.Threads())
	m.pool.For((l.out+block-1)/block, func(b, worker int) {
		if rows[worker] == nil {
			rows[worker] = make([]float32, l.in)
		}
		for o := b * block; o < min(l.out, (b+1)*block); o++ {
			l.w.DecodeRows(rows[worker], o)
			sq[o] = kernel.SumSquares64(rows[worker])
		}
	})
	l.squares = sq
	return sq
}

// rowNorms computes the norms of W + s·B·A without forming it:
//
//	n² = ‖W‖² + 2s·(W·Aᵀ)∘B + s²·B·(A·Aᵀ)∘B, summed by row,
//
// which costs as much as a pass of r tokens through the matrix. Where the sum
// cancels, the row is formed after all.
func (m *Model) rowNorms(l *linear, b *bound) []float32 {
	sq, a, s := m.rowSquares(l), b.pair.A, float64(b.scale)
	wa := kernel.NewMat(a.Rows, l.out)
	kernel.MulNTs(m.pool, a, kernel.Term{Y: wa, W: l.w})
	aa := kernel.NewMat(a.Rows, a.Rows)
	kernel.GemmNT(m.pool, aa, a, a, false)
	n := make([]float32, l.out)
	m.rows(l.out, func(o, _ int) {
		row := b.pair.B.Row(o)
		var cross, own float64
		for j, x := range row {
			cross += float64(float64(x) * float64(wa.Row(j)[o]))
			own += float64(float64(x) * float64(kernel.Dot(row, aa.Row(j))))
		}
		sum := sq[o] + float64(2*s*cross) + float64(s*s*own)
		if sum < 1e-3*(sq[o]+float64(s*s*own)) {
			w := make([]float32, l.in)
			l.w.DecodeRows(w, o)
			for j, x := range row {
				kernel.Axpy(w, b.scale*x, a.Row(j))
			}
			sum = kernel.SumSquares64(w)
		}
		n[o] = float32(math.Sqrt(sum))
	})
	return n
}

// renorm finishes the outputs of a matrix with DoRA pairs: p.y holds x·Wᵀ, and the
// change of the pair besides where there is but one. u, from *at on, is changes'.
func (m *Model) renorm(p part, u kernel.Mat, at *int, us []scratch) {
	l := p.l
	if len(l.bound) == 1 {
		b := &l.bound[0]
		*at += b.pair.Rank()
		if b.grad != nil {
			v := us[b.slot+1].mat(p.y.Rows, l.out)
			m.rows(p.y.Rows, func(t, _ int) { copy(v.Row(t), p.y.Row(t)) })
		}
		m.rows(p.y.Rows, func(t, _ int) { kernel.Mul(p.y.Row(t), p.y.Row(t), b.norms.factor) })
	} else {
		m.renormMany(p, u, at)
	}
	if l.bias != nil {
		m.rows(p.y.Rows, func(t, _ int) { kernel.Add(p.y.Row(t), l.bias) })
	}
}

// renormMany adds what several pairs do to the matrix: each, beside the others, what
// it would do alone.
func (m *Model) renormMany(p part, u kernel.Mat, at *int) {
	sum := slices.Repeat([]float32{1}, p.l.out)
	for i := range p.l.bound {
		if n := p.l.bound[i].norms; n != nil {
			for o, f := range n.factor {
				sum[o] += f - 1
			}
		}
	}
	m.rows(p.y.Rows, func(t, _ int) { kernel.Mul(p.y.Row(t), p.y.Row(t), sum) })
	z := m.work.dora.mat(p.y.Rows, p.l.out)
	for i := range p.l.bound {
		b := &p.l.bound[i]
		kernel.GemmNT(m.pool, z, b.columns(u, at), b.pair.B, false)
		m.rows(z.Rows, func(t, _ int) {
			if b.norms != nil {
				kernel.Mul(z.Row(t), z.Row(t), b.norms.factor)
			}
			kernel.Add(p.y.Row(t), z.Row(t))
		})
	}
}

// renormBackward adds to the gradient of a DoRA pair's magnitude and turns p.y, the
// gradient of the outputs, into that of what they were before they were scaled.
func (m *Model) renormBackward(p part, us []scratch) {
	if !p.l.renormed() {
		return
	}
	b := &p.l.bound[0]
	v := us[b.slot+1].mat(p.y.Rows, p.l.out)
	const block = 64
	m.pool.For((p.l.out+block-1)/block, func(k, _ int) {
		lo, hi := k*block, min(p.l.out, (k+1)*block)
		dm, norm := b.grad.Magnitude[lo:hi], b.norms.norm[lo:hi]
		for t := range p.y.Rows {
			w := float32(1)
			if m.work.weights != nil {
				w = m.work.weights[t]
			}
			x := v.Row(t)[lo:hi]
			for i, g := range p.y.Row(t)[lo:hi] {
				if norm[i] != 0 {
					dm[i] += float32(float32(g*w) * (x[i] / norm[i]))
				}
			}
		}
	})
	m.rows(p.y.Rows, func(t, _ int) { kernel.Mul(p.y.Row(t), p.y.Row(t), b.norms.factor) })
}
