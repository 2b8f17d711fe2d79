package model

import (
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

// linear is y = x·wᵀ + bias, and on top of it the low-rank changes bound for the
// pass that runs.
type linear struct {
	name    string
	out, in int
	w       kernel.Weights
	bias    []float32 // or nil
	bound   []bound
	slots   *int // the count of its layer
}

// trained says whether a gradient is wanted of some pair of l.
func (l *linear) trained() bool {
	for i := range l.bound {
		if l.bound[i].grad != nil {
			return true
		}
	}
	return false
}

// forward computes y[T, out] from x[T, in]. us[slot] receives scale·x·Aᵀ [T, r] of
// each pair, which backward wants.
func (m *Model) forward(l *linear, y, x kernel.Mat, us []scratch) {
	m.product(l, y, x, us, false)
}

// product is forward; with changesOnly it computes the us alone, for a
// recomputation whose y nobody needs.
func (m *Model) product(l *linear, y, x kernel.Mat, us []scratch, changesOnly bool) {
	if m.OnInput != nil && !m.work.again {
		m.OnInput(l.name, x)
	}
	if !changesOnly {
		if l.bias != nil {
			m.rows(y.Rows, func(i, _ int) { copy(y.Row(i), l.bias) })
		}
		kernel.MulNT(m.pool, y, x, l.w, l.bias != nil)
	}
	for i := range l.bound {
		b := &l.bound[i]
		u := us[b.slot].mat(x.Rows, b.pair.Rank())
		kernel.GemmNT(m.pool, u, m.dropped(b, x), b.pair.A, false)
		m.scale(u, b.scale)
		if !changesOnly {
			kernel.GemmNT(m.pool, y, u, b.pair.B, true)
		}
	}
}

// backward adds to the gradients of l's pairs and computes dx[T, in], added to what
// is there when acc is set; a dx without rows is not computed. dy and x are the
// gradient of forward's y and its input, us what it left.
func (m *Model) backward(l *linear, dx, dy, x kernel.Mat, us []scratch, acc bool) {
	if dx.Rows > 0 {
		kernel.MulNN(m.pool, dx, dy, l.w, acc)
	}
	for i := range l.bound {
		b := &l.bound[i]
		if b.grad == nil && dx.Rows == 0 {
			continue
		}
		du := m.work.du.mat(dy.Rows, b.pair.Rank())
		kernel.GemmNN(m.pool, du, dy, b.pair.B, false)
		m.scale(du, b.scale)
		if b.grad != nil {
			kernel.GemmTN(m.pool, b.grad.B, dy, us[b.slot].mat(dy.Rows, b.pair.Rank()), true)
			kernel.GemmTN(m.pool, b.grad.A, du, m.dropped(b, x), true)
		}
		if dx.Rows == 0 {
			continue
		}
		if b.grad == nil || m.keep == 1 {
			kernel.GemmNN(m.pool, dx, du, b.pair.A, true)
			continue
		}
		branch := m.work.drop.mat(dx.Rows, dx.Cols)
		kernel.GemmNN(m.pool, branch, du, b.pair.A, false)
		m.rows(dx.Rows, func(t, _ int) {
			row := branch.Row(t)
			dropRow(row, row, b.drop, m.place(t), m.keep)
			kernel.Add(dx.Row(t), row)
		})
	}
}

// dropped is x as the pair's A sees it: x itself, or a copy with elements dropped.
func (m *Model) dropped(b *bound, x kernel.Mat) kernel.Mat {
	if b.grad == nil || m.keep == 1 {
		return x
	}
	d := m.work.drop.mat(x.Rows, x.Cols)
	m.rows(x.Rows, func(t, _ int) { dropRow(d.Row(t), x.Row(t), b.drop, m.place(t), m.keep) })
	return d
}

// place is the token of the batch that row t of a product's input belongs to.
func (m *Model) place(t int) int {
	if m.work.places == nil {
		return t
	}
	return m.work.places[t]
}

// dropRow copies the input of token t, each element kept with probability keep and then
// divided by it. Two elements share a random number of 64 bits.
func dropRow(dst, src []float32, s rng.Stream, t int, keep float32) {
	limit := uint64(float64(keep) * (1 << 32))
	factor := 1 / keep
	pos := s.At(uint64(t))
	for i := 0; i < len(src); i += 2 {
		r := pos.Uint64(uint64(i / 2))
		v := src[i] * factor
		if r&0xffffffff >= limit {
			v = 0
		}
		dst[i] = v
		if i+1 < len(src) {
			v := src[i+1] * factor
			if r>>32 >= limit {
				v = 0
			}
			dst[i+1] = v
		}
	}
}

func (m *Model) scale(x kernel.Mat, s float32) {
	if s == 1 {
		return
	}
	for t := range x.Rows {
		kernel.Scale(x.Row(t), s, x.Row(t))
	}
}

// rows calls f for every row below n, spread over the threads.
func (m *Model) rows(n int, f func(t, worker int)) {
	const block = 8
	if n <= block {
		for t := range n {
			f(t, 0)
		}
		return
	}
	m.pool.For((n+block-1)/block, func(b, worker int) {
		for t := b * block; t < min(n, (b+1)*block); t++ {
			f(t, worker)
		}
	})
}

// normRows makes y the norms of x's rows, each of one or more heads of len(w) columns,
// and leaves in r, [T, heads], what normBackward wants.
func (m *Model) normRows(y, x kernel.Mat, w []float32, r *scratch) {
	heads := x.Cols / len(w)
	rs := r.mat(x.Rows, heads)
	m.rows(x.Rows, func(t, _ int) {
		dst, src := y.Row(t), x.Row(t)
		for h := range heads {
			lo, hi := h*len(w), (h+1)*len(w)
			rs.Row(t)[h] = kernel.RMSNorm(dst[lo:hi], src[lo:hi], w, m.Eps)
		}
	})
}

// normBackward makes dx the gradient of normRows' x, or adds it when acc is set. dx may be dy without acc.
func (m *Model) normBackward(dx, dy, x kernel.Mat, w []float32, r *scratch, acc bool) {
	heads := x.Cols / len(w)
	rs := r.mat(x.Rows, heads)
	m.rows(x.Rows, func(t, _ int) {
		dst, dsrc, src := dx.Row(t), dy.Row(t), x.Row(t)
		for h := range heads {
			lo, hi := h*len(w), (h+1)*len(w)
			kernel.RMSNormBackward(dst[lo:hi], dsrc[lo:hi], src[lo:hi], w, rs.Row(t)[h], acc)
		}
	})
}

// scratch is memory for a matrix, kept from one use to the next.
type scratch struct{ data []float32 }

// mat is the memory as a matrix of that size; its contents are what was left there
// by the last use at that size.
func (s *scratch) mat(rows, cols int) kernel.Mat {
	if n := rows * cols; cap(s.data) < n {
		s.data = make([]float32, n)
	}
	return kernel.Mat{Data: s.data[:rows*cols], Rows: rows, Cols: cols, Stride: cols}
}
