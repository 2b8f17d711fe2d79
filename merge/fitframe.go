package merge

import (
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// extremes finds the least and the largest of the sums in each sub-block.
func (w *fitWork) extremes() {
	sub, lanes := w.f.g.Sub, w.delta.Cols
	inf := float32(math.Inf(1))
	for s := range w.f.subs {
		least, most := w.least.Row(s), w.most.Row(s)
		for r := range least {
			least[r], most[r] = inf, -inf
		}
		lo, hi := s*sub, (s+1)*sub
		kernel.RangeColumns(least, most, w.step.Row(s), w.values.Sub(lo, hi, 0, lanes), w.delta.Sub(lo, hi, 0, lanes))
		kernel.Add(least, w.min.Row(s))
		kernel.Add(most, w.min.Row(s))
	}
}

// reached says whether the sums in a sub-block lie within its levels with such a step and minimum,
// and the last distance of levels beyond, with slack 0 half of it.
func (w *fitWork) reached(s, r int, step, min float32, slack int) bool {
	lo, hi := w.f.reach[slack][0], w.f.reach[slack][1]
	if step < 0 {
		lo, hi = hi, lo
	}
	at := s*w.least.Stride + r
	return w.least.Data[at]-min >= float32(lo*step) && w.most.Data[at]-min <= float32(hi*step)
}

// refit finds new numbers for the frames: the factors, with all also the integers of
// sub-blocks, or in types without integers the float16 numbers.
func (w *fitWork) refit(all bool) {
	f, y := w.f, &w.fine
	if f.g.Fixed {
		return
	}
	w.equations()
	copy(w.was.Data, w.step.Data)
	copy(w.wasMin.Data, w.min.Data)
	y.start()
	never := func(int, int, bool) bool { return false }
	if f.coding.Integer() {
		w.refitFactors(never)
		if all {
			y.solve(w.rows, 2, integers{w}, w.noUnit)
			w.setIntegers()
		}
	} else {
		y.solve(w.rows, 1, halves{w}, never)
		for s := range f.subs {
			for r := range w.rows {
				x, m := y.change(s, r)
				i := r*f.subs + s
				w.frame.D[i] += halves{w}.scale(s, r, x)
				if f.g.HasMin {
					w.frame.M[i] += halves{w}.min(s, r, m)
				}
			}
		}
	}
	w.applyFrame()
}

// equations fills the system of sub-blocks with the products in h of what their scales and minimums do: one more
// of a scale adds the values of its codes, of a minimum ones.
func (w *fitWork) equations() {
	f, in, y := w.f, w.f.in, &w.fine
	sub, lanes := f.g.Sub, w.left.Cols
	kernel.GemmTN(nil, w.missing, in.few, w.left, false)
	for s := range f.subs {
		lo, hi := s*sub, (s+1)*sub
		values := w.values.Sub(lo, hi, 0, lanes)
		z := y.scales(s)
		kernel.GemmTN(nil, z, in.few.Sub(lo, hi, 0, y.k), values, false)
		p := w.products
		p.Zero()
		kernel.ProductColumns(p, in.fewRest[lo:hi], values, w.left.Sub(lo, hi, 0, lanes))
		copy(y.scale2.Row(s), p.Row(0))
		copy(y.b.Row(s), p.Row(1))
		kernel.DotColumns(y.b.Row(s), z, w.missing)
		if !f.g.HasMin {
			continue
		}
		copy(y.both.Row(s), p.Row(3))
		copy(y.bMin.Row(s), p.Row(4))
		kernel.Scale(y.min2.Row(s), f.minRest[s], y.ones.Data)
		for j, v := range f.minZ.Row(s) {
			kernel.Scale(y.zMin.Row(s*y.k+j), v, y.ones.Data)
		}
	}
	if f.g.HasMin {
		kernel.GemmNN(nil, y.bMin, f.minZ, w.missing, true)
	}
}

// refitFactors refits those of super-blocks: D moves all its scales by their integers, M all
// minimums. What that does to the sub-blocks is where their changes begin.
func (w *fitWork) refitFactors(never func(int, int, bool) bool) {
	f, fine, y := w.f, &w.fine, &w.coarse
	per := f.subs / f.blocks
	for _, m := range []*kernel.Mat{&y.scale2, &y.b, &y.z, &y.both, &y.min2, &y.bMin, &y.zMin} {
		clear(m.Data)
	}
	y.start()
	c, cm, t := y.by.Data, y.byM.Data, y.push.Data
	for s := range f.subs {
		p := s / per
		w.coefficients(s, c, cm)
		kernel.Mul(t, c, c)
		kernel.MulAdd(y.scale2.Row(p), t, fine.scale2.Row(s))
		kernel.MulAdd(y.b.Row(p), c, fine.b.Row(s))
		kernel.AxpyColumns(y.scales(p), c, fine.scales(s))
		if !y.min {
			continue
		}
		kernel.Mul(t, c, cm)
		kernel.MulAdd(y.both.Row(p), t, fine.both.Row(s))
		kernel.Mul(t, cm, cm)
		kernel.MulAdd(y.min2.Row(p), t, fine.min2.Row(s))
		kernel.MulAdd(y.bMin.Row(p), cm, fine.bMin.Row(s))
		kernel.AxpyColumns(y.mins(p), cm, fine.mins(s))
	}
	y.solve(w.rows, 1, superFactors{w}, never)
	for b := range f.blocks {
		x, m := y.push.Data, y.byM.Data
		clear(x)
		clear(m)
		for r := range w.rows {
			i := r*f.blocks + b
			x[r], m[r] = y.change(b, r)
			x[r] = superFactors{w}.scale(b, r, x[r])
			w.frame.D[i] += x[r]
			if y.min {
				m[r] = superFactors{w}.min(b, r, m[r])
				w.frame.M[i] += m[r]
			}
		}
		for s := b * per; s < (b+1)*per; s++ {
			c, cm := fine.by.Data, fine.byM.Data
			w.coefficients(s, c, cm)
			kernel.Mul(fine.from.Row(s), c, x)
			kernel.AxpyColumns(fine.u, fine.from.Row(s), fine.scales(s))
			if y.min {
				kernel.Mul(fine.fromMin.Row(s), cm, m)
				kernel.AxpyColumns(fine.u, fine.fromMin.Row(s), fine.mins(s))
			}
		}
	}
}

// coefficients are those of the factors in the step and the minimum of a sub-block.
func (w *fitWork) coefficients(s int, c, cm []float32) {
	clear(c)
	clear(cm)
	for r := range w.rows {
		i := r*w.f.subs + s
		c[r] = float32(w.frame.Scale[i])
		if w.f.g.HasMin {
			cm[r] = -float32(w.frame.Min[i])
		}
	}
}

// setIntegers takes the integers from the changes of the sub-blocks.
func (w *fitWork) setIntegers() {
	f, y, set := w.f, &w.fine, integers{w}
	for s := range f.subs {
		for r := range w.rows {
			i := r*f.subs + s
			x, m := y.change(s, r)
			if !w.noUnit(s, r, false) {
				w.frame.Scale[i] = set.wholeScale(s, r, x)
			}
			if f.g.HasMin && !w.noUnit(s, r, true) {
				w.frame.Min[i] = set.wholeMin(s, r, m)
			}
		}
	}
}

// applyFrame brings steps and minimums up to date with the frame, and what is left with them.
func (w *fitWork) applyFrame() {
	f, lanes := w.f, w.left.Cols
	per := f.subs / f.blocks
	for s := range f.subs {
		step, min := w.step.Row(s), w.min.Row(s)
		for r := range w.rows {
			b, i := r*f.blocks+s/per, r*f.subs+s
			step[r] = w.frame.D[b]
			if f.g.HasMin {
				min[r] = w.frame.M[b]
			}
			if f.coding.Integer() {
				step[r] *= float32(w.frame.Scale[i])
				if f.g.HasMin {
					min[r] *= -float32(w.frame.Min[i])
				}
			}
		}
		by := w.products.Row(0)
		kernel.Sub(by, w.was.Row(s), step)
		lo, hi := s*f.g.Sub, (s+1)*f.g.Sub
		kernel.AxpyColumns(w.left.Sub(lo, hi, 0, lanes), by, w.values.Sub(lo, hi, 0, lanes))
		if f.g.HasMin {
			kernel.Sub(by, w.wasMin.Row(s), min)
			for i := lo; i < hi; i++ {
				kernel.Add(w.left.Row(i), by)
			}
		}
	}
}

// fits says whether a sub-block that reached its sums still does.
func (w *fitWork) fits(s, r int, step, min float32) bool {
	at := s*w.was.Stride + r
	return w.reached(s, r, step, min, 1) || !w.reached(s, r, w.was.Data[at], w.wasMin.Data[at], 1)
}

// halfNear is the change of a float16 next to by.
func halfNear(was, by float32) float32 {
	const largest = 65504
	return kernel.F16Value(kernel.F16Bits(max(-largest, min(largest, was+by)))) - was
}

// halves are the float16 scales and minimums of a type without integers.
type halves struct{ w *fitWork }

func (h halves) scale(s, r int, x float32) float32 {
	return halfNear(h.w.frame.D[r*h.w.f.subs+s], x)
}
func (h halves) min(s, r int, m float32) float32 { return halfNear(h.w.frame.M[r*h.w.f.subs+s], m) }
func (h halves) fits(s, r int, x, m float32) bool {
	return h.w.fits(s, r, h.w.was.Data[s*h.w.was.Stride+r]+x, h.w.wasMin.Data[s*h.w.was.Stride+r]+m)
}

// superFactors are those of super-blocks.
type superFactors struct{ w *fitWork }

func (f superFactors) scale(b, r int, x float32) float32 {
	return halfNear(f.w.frame.D[r*f.w.f.blocks+b], x)
}
func (f superFactors) min(b, r int, m float32) float32 {
	return halfNear(f.w.frame.M[r*f.w.f.blocks+b], m)
}
func (f superFactors) fits(b, r int, x, m float32) bool {
	w := f.w
	per := w.f.subs / w.f.blocks
	d := w.frame.D[r*w.f.blocks+b] + x
	if w.f.g.HasMin {
		m += w.frame.M[r*w.f.blocks+b]
	}
	for s := b * per; s < (b+1)*per; s++ {
		i := r*w.f.subs + s
		var min float32
		if w.f.g.HasMin {
			min = -float32(m * float32(w.frame.Min[i]))
		}
		if !w.fits(s, r, float32(d*float32(w.frame.Scale[i])), min) {
			return false
		}
	}
	return true
}

// integers are the scales and minimums of sub-blocks.
type integers struct{ w *fitWork }

func (n integers) units(s, r int) (d, m float32) {
	f := n.w.f
	b := r*f.blocks + s/(f.subs/f.blocks)
	d = n.w.frame.D[b]
	if f.g.HasMin {
		m = -n.w.frame.M[b]
	}
	return d, m
}

// noUnit says whether a number of a sub-block has no effect.
func (w *fitWork) noUnit(s, r int, min bool) bool {
	d, m := integers{w}.units(s, r)
	if min {
		return m == 0
	}
	return d == 0
}

func whole(x, unit float32, lo, hi int16) int16 {
	return int16(max(float64(lo), min(float64(hi), math.RoundToEven(float64(x/unit)))))
}

func (n integers) wholeScale(s, r int, x float32) int16 {
	d, _ := n.units(s, r)
	return whole(n.w.was.Row(s)[r]+x, d, n.w.f.coding.ScaleLo, n.w.f.coding.ScaleHi)
}

func (n integers) wholeMin(s, r int, x float32) int16 {
	_, m := n.units(s, r)
	return whole(n.w.wasMin.Row(s)[r]+x, m, 0, n.w.f.coding.MinHi)
}

func (n integers) scale(s, r int, x float32) float32 {
	d, _ := n.units(s, r)
	return float32(d*float32(n.wholeScale(s, r, x))) - n.w.was.Row(s)[r]
}

func (n integers) min(s, r int, x float32) float32 {
	_, m := n.units(s, r)
	return float32(m*float32(n.wholeMin(s, r, x))) - n.w.wasMin.Row(s)[r]
}

func (n integers) fits(s, r int, x, m float32) bool {
	return n.w.fits(s, r, n.w.was.Row(s)[r]+x, n.w.wasMin.Row(s)[r]+m)
}
