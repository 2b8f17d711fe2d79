package merge

import (
	"math/bits"

	"github.com/graft-lora/graft/internal/kernel"
)

// round moves the codes of rows towards what is left of the wanted change, stretched, so that
// the error is small where inputs are (LDLQ: Chee et al. 2023, the form that GPTQ has, too).
// With h = L·D·Lᵀ the error e of a row costs
//
//	e·h·eᵀ = sum over j of D_j (e_j + sum over i>j of e_i L_ij)²
//
// so columns are rounded from the last to the first, each with the carried errors of those
// before it added to what is wanted of it. L_ij is z_i·w_j: what is carried to column j is
// w_j·state, with the sum of e_i z_i as the state of a row. Rows are worked on side by side,
// so all is transposed: errs has a row for each column.
func (w *fitWork) round(stretch float32) {
	f, in, lanes := w.f, w.f.in, w.errs.Cols
	kernel.Scale(w.errs.Data, stretch, w.left.Data)
	for s := range f.subs {
		limits := w.limits.Row(s)
		for r, v := range w.step.Row(s) {
			if v < 0 {
				v = -v
			}
			limits[r] = f.half * v
		}
	}
	w.state.Zero()
	at := w.products.Row(0)
	for lo := f.n - ldlqBlock; lo >= 0; lo -= ldlqBlock {
		errs := w.errs.Sub(lo, lo+ldlqBlock, 0, lanes)
		kernel.GemmNN(nil, w.carry, in.w.Sub(lo, lo+ldlqBlock, 0, in.k), w.state, false)
		for i := ldlqBlock - 1; i >= 0; i-- {
			e := errs.Row(i)
			kernel.MixRows(w.carry.Row(i), in.unit.Row(lo + i)[i+1:], errs.Sub(i+1, ldlqBlock, 0, lanes))
			// Nearest to where the code is: most of them.
			for out := kernel.Outside(at, 1, e, w.carry.Row(i), 1, w.limits.Row((lo+i)/f.g.Sub)) & w.present; out != 0; out &= out - 1 {
				r := bits.TrailingZeros64(out)
				w.moveTo(r, lo+i, at[r])
			}
		}
		kernel.GemmTN(nil, w.state, in.z.Sub(lo, lo+ldlqBlock, 0, in.k), errs, true)
	}
}

// moveTo moves a code to the level nearest to where it is and v on.
func (w *fitWork) moveTo(r, col int, v float32) {
	f := w.f
	s := w.step.Row(col / f.g.Sub)[r]
	if s == 0 {
		return
	}
	code := w.codes[r*f.n+col]
	if to := nearestLevel(f.g.Levels, code, f.g.Levels[code]+v/s); to != code {
		w.set(r, col, to)
	}
}

// set makes a code another, and returns by how much its value changes.
func (w *fitWork) set(r, col int, to uint8) float32 {
	f := w.f
	code := &w.codes[r*f.n+col]
	d := float32(w.step.Row(col / f.g.Sub)[r] * (f.levels[to] - f.levels[*code]))
	*code = to
	at := col*w.values.Stride + r
	w.values.Data[at] = f.levels[to]
	w.errs.Data[at] -= d
	w.left.Data[at] -= d
	return d
}

// nearestLevel is the level next to y, found from where the code is now; halfway it
// stays where it came from. A y that is not a number changes nothing.
func nearestLevel(levels []float32, from uint8, y float32) uint8 {
	c := int(from)
	for c+1 < len(levels) && y-levels[c] > levels[c+1]-y {
		c++
	}
	for c > 0 && levels[c]-y > y-levels[c-1] {
		c--
	}
	return uint8(c)
}

// polishSweeps is how often single codes are looked at again.
const polishSweeps = 3

// polish moves single codes by one level where that makes the error of outputs
// smaller, given all others.
func (w *fitWork) polish() {
	f, in := w.f, w.f.in
	at, push := w.products.Row(0), w.carry.Row(0)
	for range polishSweeps {
		moves := 0
		for s := range f.subs {
			limits := w.limits.Row(s)
			for col := s * f.g.Sub; col < (s+1)*f.g.Sub; col++ {
				z := in.z.Row(col)
				clear(push)
				kernel.MixRows(push, z, w.state)
				for out := kernel.Outside(at, in.rest[col], w.errs.Row(col), push, in.diag[col], limits) & w.present; out != 0; out &= out - 1 {
					r := bits.TrailingZeros64(out)
					if d := w.nudge(r, col, at[r]); d != 0 {
						moves++
						for a, z := range z {
							w.state.Data[a*w.state.Stride+r] -= float32(d * z)
						}
					}
				}
			}
		}
		if moves == 0 {
			break
		}
	}
}

// nudge moves a code by a level if that is for the better, p being half the gradient, and
// returns by how much that is.
func (w *fitWork) nudge(r, col int, p float32) float32 {
	f := w.f
	s := w.step.Row(col / f.g.Sub)[r]
	code := w.codes[r*f.n+col]
	to := int(code) + 1
	if p > 0 != (s > 0) {
		to = int(code) - 1
	}
	if s == 0 || to < 0 || to >= len(f.g.Levels) {
		return 0
	}
	// The error changes by d²h - 2dp for a move by d.
	d := float32(s * (f.g.Levels[to] - f.g.Levels[code]))
	if float32(d*f.in.diag[col]) >= 2*p == (d > 0) {
		return 0
	}
	return w.set(r, col, uint8(to))
}
