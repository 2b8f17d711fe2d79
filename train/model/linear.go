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
	squares []float64 // of its rows, once DoRA asked for them
	columns []float64 // the same of its columns
	rows    *boundRows
	merge   bool        // the pair bound acts as if merged
	merged  *merged     // the matrix for that, or nil
	stored  *storedRows // the rows bound for that, or nil
	slots   *int        // the count of its layer
	stacked bool        // it is one of a stack
	expert  int         // which
}

// trained says whether a gradient is wanted of some pair or of rows of l.
func (l *linear) trained() bool {
	for i := range l.bound {
		if l.bound[i].grad != nil {
			return true
		}
	}
	return l.rowsTrained()
}

// part is a matrix among those that share an input, and its output or the gradient
// of that.
type part struct {
	l *linear
	y kernel.Mat // [T, out]
}

// forward computes the outputs of parts from their input x[T, in]. What backward
// wants of the pairs bound is left in us.
func (m *Model) forward(x kernel.Mat, us []scratch, parts ...part) {
	var u kernel.Mat
	at := 0
	if !m.merging || m.grads {
		u = m.changes(x, us, parts)
	}
	m.lap(LowRank)
	terms := m.work.terms[:0]
	for _, p := range parts {
		m.observe(p.l, x)
		first := p.l.bias != nil && !p.l.renormed() // else the bias is added last
		if first {
			m.rows(x.Rows, func(t, _ int) { copy(p.y.Row(t), p.l.bias) })
		}
		t := kernel.Term{Y: p.y, W: m.weights(p.l), Acc: first}
		if n := len(p.l.bound); m.merging {
			// The change is in the weights.
		} else if n > 1 && p.l.renormed() {
			for i := range p.l.bound {
				at += p.l.bound[i].pair.Rank()
			}
		} else if n > 0 {
			b := &p.l.bound[0]
			t.U, t.B = b.columns(u, &at), b.pair.B
			for _, other := range p.l.bound[1:] {
				at += other.pair.Rank()
			}
		}
		terms = append(terms, t)
	}
	m.opt.Compute.MulNTs(m.pool, x, terms...)
	clear(terms)
	m.work.terms = terms
	m.lap(Frozen)
	if m.merging {
		return
	}
	at = 0
	for _, p := range parts {
		if p.l.renormed() {
			m.renorm(p, u, &at, us)
			continue
		}
		for i := range p.l.bound {
			b := &p.l.bound[i]
			if one := b.columns(u, &at); i > 0 {
				kernel.GemmNT(m.pool, p.y, one, b.pair.B, true)
			}
		}
	}
	m.lap(LowRank)
}

// forwardLast is forward of a matrix whose outputs, when they have no rows, nobody
// wants: only what backward wants is computed.
func (m *Model) forwardLast(x kernel.Mat, us []scratch, p part) {
	switch {
	case p.y.Rows > 0:
		m.forward(x, us, p)
	case p.l.renormed():
		p.y = m.work.unwanted.mat(x.Rows, p.l.out)
		m.forward(x, us, p)
	default:
		m.changes(x, us, []part{p})
		m.lap(LowRank)
	}
}

// observe shows the hooks the input of a matrix.
func (m *Model) observe(l *linear, x kernel.Mat) {
	switch {
	case m.work.again:
	case l.stacked && m.OnExpertInput != nil:
		m.OnExpertInput(l.name, l.expert, x)
	case !l.stacked && m.OnInput != nil:
		m.OnInput(l.name, x)
	}
}

// changes computes scale·x·Aᵀ of all pairs of parts, side by side in one matrix.
// It is what backward wants of forward, and the whole of a recomputation whose
// outputs nobody needs.
func (m *Model) changes(x kernel.Mat, us []scratch, parts []part) kernel.Mat {
	a := m.stack(&m.work.a, x.Cols, parts, func(b *bound) kernel.Mat { return b.pair.A })
	if a.Rows == 0 {
		return kernel.Mat{}
	}
	u, at := us[slotOf(parts)].mat(x.Rows, a.Rows), 0
	if m.keep == 1 {
		kernel.GemmNT(m.pool, u, x, a, false)
	}
	for _, p := range parts {
		for i := range p.l.bound {
			b := &p.l.bound[i]
			one := b.columns(u, &at)
			if m.keep != 1 {
				kernel.GemmNT(m.pool, one, m.dropped(b, x), b.pair.A, false)
			}
			m.scale(one, b.scale)
			m.silence(b, one)
		}
	}
	return u
}

// slotOf is where us has the changes of parts: the first slot of them.
func slotOf(parts []part) int {
	for _, p := range parts {
		if len(p.l.bound) > 0 {
			return p.l.bound[0].slot
		}
	}
	return 0
}

// columns are the next of x, from *at on, that belong to b.
func (b *bound) columns(x kernel.Mat, at *int) kernel.Mat {
	first := *at
	*at += b.pair.Rank()
	return x.Sub(0, x.Rows, first, *at)
}

// stack puts a matrix of every pair of parts under each other: f's own where there
// is but one, else copies in s.
func (m *Model) stack(s *scratch, cols int, parts []part, f func(b *bound) kernel.Mat) kernel.Mat {
	rows, pairs := 0, 0
	var all kernel.Mat
	for _, p := range parts {
		for i := range p.l.bound {
			all = f(&p.l.bound[i])
			rows += all.Rows
			pairs++
		}
	}
	if pairs < 2 {
		return all
	}
	all, rows = s.mat(rows, cols), 0
	for _, p := range parts {
		for i := range p.l.bound {
			one := f(&p.l.bound[i])
			copy(all.Data[rows*cols:], one.Data)
			rows += one.Rows
		}
	}
	return all
}

// backward adds to the gradients of the pairs of parts and computes dx[T, in],
// added to what is there when acc is set; a dx without rows is not computed. x and
// us are forward's, and every part has the gradient of its output.
func (m *Model) backward(dx, x kernel.Mat, us []scratch, acc bool, parts ...part) {
	for _, p := range parts {
		m.renormBackward(p, us)
	}
	if dx.Rows > 0 {
		for i, p := range parts {
			m.opt.Compute.MulNN(m.pool, dx, p.y, m.weights(p.l), acc || i > 0)
		}
		m.lap(Frozen)
	}
	a := m.stack(&m.work.a, x.Cols, parts, func(b *bound) kernel.Mat { return b.pair.A })
	if a.Rows == 0 {
		return
	}
	u, du, at := us[slotOf(parts)].mat(x.Rows, a.Rows), m.work.du.mat(x.Rows, a.Rows), 0
	frozen := false // some pair is
	for _, p := range parts {
		for i := range p.l.bound {
			b := &p.l.bound[i]
			first := at
			one := b.columns(du, &at)
			kernel.GemmNN(m.pool, one, p.y, b.pair.B, false)
			m.scale(one, b.scale)
			m.silence(b, one)
			if b.grad == nil {
				frozen = true
				continue
			}
			was := b.columns(u, &first)
			m.weigh(was)
			kernel.GemmTN(m.pool, b.grad.B, p.y, was, true)
		}
	}
	defer m.lap(LowRank)
	if m.keep != 1 {
		m.dropBackward(dx, du, x, parts)
		return
	}
	if dx.Rows > 0 && !m.merging {
		kernel.GemmNN(m.pool, dx, du, a, true)
	}
	m.weigh(du)
	if frozen {
		at = 0
		for _, p := range parts {
			for i := range p.l.bound {
				b := &p.l.bound[i]
				if one := b.columns(du, &at); b.grad != nil {
					kernel.GemmTN(m.pool, b.grad.A, one, x, true)
				}
			}
		}
		return
	}
	da := m.stack(&m.work.da, x.Cols, parts, func(b *bound) kernel.Mat { return b.grad.A })
	kernel.GemmTN(m.pool, da, du, x, true)
	m.unstack(da, parts)
}

// weigh multiplies rows by the weights that the gradients of the pairs need and dy,
// for the sake of dx, does not have.
func (m *Model) weigh(x kernel.Mat) {
	for t, w := range m.work.weights {
		kernel.Scale(x.Row(t), w, x.Row(t))
	}
}

// unstack copies stacked gradients of A back to where they belong.
func (m *Model) unstack(da kernel.Mat, parts []part) {
	rows := 0
	for _, p := range parts {
		for i := range p.l.bound {
			g := p.l.bound[i].grad.A
			if g.Rows < da.Rows {
				copy(g.Data, da.Data[rows*da.Cols:])
			}
			rows += g.Rows
		}
	}
}

// dropBackward is what is left of backward where every pair sees inputs of its own.
func (m *Model) dropBackward(dx, du, x kernel.Mat, parts []part) {
	at := 0
	for _, p := range parts {
		for i := range p.l.bound {
			b := &p.l.bound[i]
			one := b.columns(du, &at)
			if dx.Rows > 0 {
				branch := m.work.drop.mat(x.Rows, x.Cols)
				kernel.GemmNN(m.pool, branch, one, b.pair.A, false)
				m.rows(x.Rows, func(t, _ int) {
					row := branch.Row(t)
					dropRow(row, row, b.drop, m.place(t), m.keep)
					kernel.Add(dx.Row(t), row)
				})
			}
			if b.grad != nil {
				m.weigh(one)
				kernel.GemmTN(m.pool, b.grad.A, one, m.dropped(b, x), true)
			}
		}
	}
}

// dropped is a copy of x as the pair's A sees it, with elements dropped.
func (m *Model) dropped(b *bound, x kernel.Mat) kernel.Mat {
	d := m.work.drop.mat(x.Rows, x.Cols)
	m.rows(x.Rows, func(t, _ int) { dropRow(d.Row(t), x.Row(t), b.drop, m.place(t), m.keep) })
	return d
}

// place is the token of the step that row t of a product's input belongs to.
func (m *Model) place(t int) int {
	if m.work.places != nil {
		t = m.work.places[t]
	}
	return m.work.before + t
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
		m.lap(RowWise)
		return
	}
	m.pool.For((n+block-1)/block, func(b, worker int) {
		for t := b * block; t < min(n, (b+1)*block); t++ {
			f(t, worker)
		}
	})
	m.lap(RowWise)
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
