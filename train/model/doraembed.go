package model

import (
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// DoRA of the embedding is PEFT's: its magnitudes are norms of columns, over the
// vocabulary. With V = W + Scale·B·A and n the norms of V's columns, the embedding is
// V·diag(m/n): a token's row is (m/n)∘v, and a head tied to it gives (x∘(m/n))·Vᵀ. n is a
// constant of the backward pass:
//
//	of the lookup, with g the gradient of a row: dm = Σ g∘v/n, and (m/n)∘g goes on;
//	of a tied head, with g that of x∘(m/n):      dm = Σ g∘x/n, and (m/n)∘g is that of x.

// columnNorms finds the norms of the embedding's DoRA pair, if it has one, which must then be
// the only pair there.
func (m *Model) columnNorms(used map[normKey]*normed) error {
	l := m.embed
	for i := range l.bound {
		b := &l.bound[i]
		if b.pair.Magnitude == nil {
			continue
		}
		if l.rows != nil {
			return besideRows(l)
		}
		if len(l.bound) > 1 {
			return format.Unsupported("DoRA of the embedding beside another change of it: merge the adapter into its base")
		}
		b.columnNorms = m.normed(used, l, b, m.normsOfColumns)
	}
	return nil
}

// normsOfColumns computes the norms of the columns of W + s·B·A:
//
//	n² = ‖W‖² + 2s·(Bᵀ·W)∘A + s²·(BᵀB·A)∘A, summed by column,
//
// at the cost of a pass of r tokens back through the matrix.
func (m *Model) normsOfColumns(l *linear, b *bound) []float32 {
	sq, a, s := m.columnSquares(l), b.pair.A, float64(b.scale)
	bt := kernel.NewMat(a.Rows, l.out)
	for o := range l.out {
		for j, x := range b.pair.B.Row(o) {
			bt.Row(j)[o] = x
		}
	}
	bw := kernel.NewMat(a.Rows, l.in)
	kernel.MulNN(m.pool, bw, bt, l.w, false)
	bb := kernel.NewMat(a.Rows, a.Rows)
	kernel.GemmNT(m.pool, bb, bt, bt, false)
	n := make([]float32, l.in)
	cancels := false
	for c := range n {
		var cross, own float64
		for j := range a.Rows {
			x := float64(a.Row(j)[c])
			cross += float64(x * float64(bw.Row(j)[c]))
			for k, y := range bb.Row(j) {
				own += float64(x * float64(float64(y)*float64(a.Row(k)[c])))
			}
		}
		sum := sq[c] + float64(2*s*cross) + float64(s*s*own)
		cancels = cancels || sum < 1e-3*(sq[c]+float64(s*s*own))
		n[c] = float32(math.Sqrt(max(sum, 0)))
	}
	if !cancels {
		return n
	}
	// Little is left of some column: the rows are formed after all.
	sum, row := make([]float64, l.in), make([]float32, l.in)
	for o := range l.out {
		l.w.DecodeRows(row, o)
		for j, x := range b.pair.B.Row(o) {
			kernel.Axpy(row, b.scale*x, a.Row(j))
		}
		for i, x := range row {
			sum[i] += float64(float64(x) * float64(x))
		}
	}
	for c, x := range sum {
		n[c] = float32(math.Sqrt(x))
	}
	return n
}

// columnSquares are the sums of squares of l's columns. They are kept.
func (m *Model) columnSquares(l *linear) []float64 {
	if l.columns != nil {
		return l.columns
	}
	sq, row := make([]float64, l.in), make([]float32, l.in)
	for o := range l.out {
		l.w.DecodeRows(row, o)
		for i, x := range row {
			sq[i] += float64(float64(x) * float64(x))
		}
	}
	l.columns = sq
	return sq
}

// ColumnNorms gives the norms of the embedding's columns: its DoRA's magnitudes to begin with.
func (m *Model) ColumnNorms() ([]float32, error) {
	var all []float32
	for _, s := range m.columnSquares(m.embed) {
		all = append(all, float32(math.Sqrt(s)))
	}
	return all, m.fail.take()
}

// columns is the DoRA of the embedding in the pass that runs, or nil.
func (m *Model) columns() *bound {
	if len(m.embed.bound) == 1 && m.embed.bound[0].columnNorms != nil {
		return &m.embed.bound[0]
	}
	return nil
}

// headScaled is what the head's matrix multiplies: h, or h∘(m/n) where the head is an
// embedding with DoRA.
func (m *Model) headScaled(h kernel.Mat) kernel.Mat {
	b := m.columns()
	if b == nil || !m.TiedHead {
		return h
	}
	x := m.work.scaled.mat(h.Rows, h.Cols)
	m.rows(h.Rows, func(t, _ int) { kernel.Mul(x.Row(t), h.Row(t), b.columnNorms.factor) })
	return x
}

// headScaledBackward turns dx, the gradient of headScaled's result, into that of h, and adds
// to that of the magnitudes.
func (m *Model) headScaledBackward(dx, h kernel.Mat) {
	b := m.columns()
	if b == nil || !m.TiedHead {
		return
	}
	for t := range dx.Rows {
		b.addMagnitude(b.grad, dx.Row(t), h.Row(t), 1)
	}
	m.rows(dx.Rows, func(t, _ int) { kernel.Mul(dx.Row(t), dx.Row(t), b.columnNorms.factor) })
}

// addMagnitude adds scale·g∘x/n to the gradient of the magnitudes in to, if there is one.
func (b *bound) addMagnitude(to *Grad, g, x []float32, scale float32) {
	if to == nil {
		return
	}
	for i, n := range b.columnNorms.norm {
		if n != 0 {
			to.Magnitude[i] += float32(float32(scale*g[i]) * (x[i] / n))
		}
	}
}
