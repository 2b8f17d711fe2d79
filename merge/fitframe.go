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
	switch {
	case !f.coding.Integer():
		y.solve(w.rows, 1, halves{w}, never)
		for s := range f.subs {
			x, m := y.changes(s)
			halves{w}.scales(s, x)
			kernel.Add(w.factor.Row(s), x)
			if f.g.HasMin {
				halves{w}.mins(s, m)
				kernel.Add(w.factorMin.Row(s), m)
			}
		}
	default:
		w.refitFactors(never)
		if all {
			y.solve(w.rows, 2, integers{w}, w.noUnit)
			for s := range f.subs {
				x, m := y.changes(s)
				integers{w}.set(w.scale.Row(s), x, w.was.Row(s), w.factor.Row(s/(f.subs/f.blocks)), f.coding.ScaleLo, f.coding.ScaleHi)
				if f.g.HasMin {
					integers{w}.set(w.minimum.Row(s), m, w.wasMin.Row(s), w.factorMin.Row(s/(f.subs/f.blocks)), -f.coding.MinHi, 0)
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
	t := y.push.Data
	for s := range f.subs {
		p, c := s/per, w.scale.Row(s)
		kernel.Mul(t, c, c)
		kernel.MulAdd(y.scale2.Row(p), t, fine.scale2.Row(s))
		kernel.MulAdd(y.b.Row(p), c, fine.b.Row(s))
		kernel.AxpyColumns(y.scales(p), c, fine.scales(s))
		if !y.min {
			continue
		}
		m := w.minimum.Row(s)
		kernel.Mul(t, c, m)
		kernel.MulAdd(y.both.Row(p), t, fine.both.Row(s))
		kernel.Mul(t, m, m)
		kernel.MulAdd(y.min2.Row(p), t, fine.min2.Row(s))
		kernel.MulAdd(y.bMin.Row(p), m, fine.bMin.Row(s))
		kernel.AxpyColumns(y.mins(p), m, fine.mins(s))
	}
	y.solve(w.rows, 1, superFactors{w}, never)
	for b := range f.blocks {
		x, m := y.changes(b)
		superFactors{w}.scales(b, x)
		if y.min {
			superFactors{w}.mins(b, m)
			kernel.Add(w.factorMin.Row(b), m)
		}
		kernel.Add(w.factor.Row(b), x)
		for s := b * per; s < (b+1)*per; s++ {
			kernel.Mul(fine.from.Row(s), w.scale.Row(s), x)
			kernel.AxpyColumns(fine.u, fine.from.Row(s), fine.scales(s))
			if y.min {
				kernel.Mul(fine.fromMin.Row(s), w.minimum.Row(s), m)
				kernel.AxpyColumns(fine.u, fine.fromMin.Row(s), fine.mins(s))
			}
		}
	}
}

// applyFrame brings steps and minimums up to date with the frame, and what is left with them.
func (w *fitWork) applyFrame() {
	f, lanes := w.f, w.left.Cols
	per := f.subs / f.blocks
	by := w.products.Row(0)
	for s := range f.subs {
		step, min := w.step.Row(s), w.min.Row(s)
		copy(step, w.factor.Row(s/per))
		if f.coding.Integer() {
			kernel.Mul(step, step, w.scale.Row(s))
		}
		kernel.Sub(by, w.was.Row(s), step)
		lo, hi := s*f.g.Sub, (s+1)*f.g.Sub
		kernel.AxpyColumns(w.left.Sub(lo, hi, 0, lanes), by, w.values.Sub(lo, hi, 0, lanes))
		if !f.g.HasMin {
			continue
		}
		copy(min, w.factorMin.Row(s/per))
		if f.coding.Integer() {
			kernel.Mul(min, min, w.minimum.Row(s))
		}
		kernel.Sub(by, w.wasMin.Row(s), min)
		for i := lo; i < hi; i++ {
			kernel.Add(w.left.Row(i), by)
		}
	}
}

// fit finds whether a sub-block that reached its sums still does with such steps and minimums.
func (w *fitWork) fit(s int, step, min []float32, ok []bool) {
	was, wasMin, least, most := w.was.Row(s), w.wasMin.Row(s), w.least.Row(s), w.most.Row(s)
	lo, hi := w.f.reach[1][0], w.f.reach[1][1]
	for r := range ok {
		l, h, d := lo, hi, step[r]
		if d < 0 {
			l, h = h, l
		}
		if !(least[r]-min[r] >= float32(l*d) && most[r]-min[r] <= float32(h*d)) && w.reached(s, r, was[r], wasMin[r], 1) {
			ok[r] = false
		}
	}
}

// nearHalves brings changes of float16 numbers to the next that these can have.
func (w *fitWork) nearHalves(was, by []float32) {
	const largest = 65504
	kernel.Add(by, was)
	for r, v := range by {
		if v > largest {
			by[r] = largest
		} else if v < -largest {
			by[r] = -largest
		}
	}
	kernel.F32ToF16(w.bytes[:2*len(by)], by)
	kernel.F16ToF32(by, w.bytes[:2*len(by)])
	kernel.Sub(by, by, was)
}

// halves are the float16 scales and minimums of a type without integers.
type halves struct{ w *fitWork }

func (h halves) scales(s int, x []float32) { h.w.nearHalves(h.w.was.Row(s), x) }
func (h halves) mins(s int, m []float32)   { h.w.nearHalves(h.w.wasMin.Row(s), m) }

func (h halves) fits(s int, x, m []float32, ok []bool) { h.w.fitChanges(s, x, m, ok) }

// fitChanges is fit with changes.
func (w *fitWork) fitChanges(s int, x, m []float32, ok []bool) {
	step, min := w.products.Row(0), w.products.Row(1)
	for r := range ok {
		ok[r] = true
	}
	copy(step, x)
	kernel.Add(step, w.was.Row(s))
	copy(min, w.wasMin.Row(s))
	if m != nil {
		kernel.Add(min, m)
	}
	w.fit(s, step, min, ok)
}

// superFactors are those of super-blocks.
type superFactors struct{ w *fitWork }

func (f superFactors) scales(b int, x []float32) { f.w.nearHalves(f.w.factor.Row(b), x) }
func (f superFactors) mins(b int, m []float32)   { f.w.nearHalves(f.w.factorMin.Row(b), m) }

func (f superFactors) fits(b int, x, m []float32, ok []bool) {
	w := f.w
	for r := range ok {
		ok[r] = true
	}
	d, dMin, step, min := w.products.Row(0), w.products.Row(1), w.products.Row(2), w.products.Row(3)
	copy(d, x)
	kernel.Add(d, w.factor.Row(b))
	clear(min)
	if m != nil {
		copy(dMin, m)
		kernel.Add(dMin, w.factorMin.Row(b))
	}
	per := w.f.subs / w.f.blocks
	for s := b * per; s < (b+1)*per; s++ {
		kernel.Mul(step, d, w.scale.Row(s))
		if m != nil {
			kernel.Mul(min, dMin, w.minimum.Row(s))
		}
		w.fit(s, step, min, ok)
	}
}

// integers are the scales and minimums of sub-blocks.
type integers struct{ w *fitWork }

// noUnit says whether a number of a sub-block has no effect.
func (w *fitWork) noUnit(s, r int, min bool) bool {
	b := s / (w.f.subs / w.f.blocks)
	if min {
		return w.factorMin.Row(b)[r] == 0
	}
	return w.factor.Row(b)[r] == 0
}

// whole is the integer, in units, next to what was and is changed by by.
func whole(was, by, unit, lo, hi float32) float32 {
	const half = 3 << 22 // what is added to it is rounded to an integer
	v := (was + by) / unit
	if v > hi {
		v = hi
	} else if v < lo {
		v = lo
	}
	return v + half - half
}

func (n integers) scales(s int, x []float32) {
	f := n.w.f
	n.near(x, n.w.was.Row(s), n.w.factor.Row(s/(f.subs/f.blocks)), f.coding.ScaleLo, f.coding.ScaleHi)
}

func (n integers) mins(s int, m []float32) {
	f := n.w.f
	n.near(m, n.w.wasMin.Row(s), n.w.factorMin.Row(s/(f.subs/f.blocks)), -f.coding.MinHi, 0)
}

func (integers) near(by, was, unit []float32, lo, hi int16) {
	l, h := float32(lo), float32(hi)
	for r, v := range by {
		by[r] = float32(unit[r]*whole(was[r], v, unit[r], l, h)) - was[r]
	}
}

// set sets integers, but for those without a unit, from changes.
func (integers) set(n, by, was, unit []float32, lo, hi int16) {
	l, h := float32(lo), float32(hi)
	for r, v := range by {
		if unit[r] != 0 {
			n[r] = whole(was[r], v, unit[r], l, h)
		}
	}
}

func (n integers) fits(s int, x, m []float32, ok []bool) { n.w.fitChanges(s, x, m, ok) }

// takeFrame lays the numbers of the frame side by side; minimums are taken as what the factor is to
// be multiplied with, which is minus the integer.
func (w *fitWork) takeFrame() {
	f, frame := w.f, w.frame
	if f.g.Fixed {
		return
	}
	turn(w.factor, frame.D)
	if f.g.HasMin {
		turn(w.factorMin, frame.M)
	}
	for s := 0; f.coding.Integer() && s < f.subs; s++ {
		for r := range w.rows {
			w.scale.Row(s)[r] = float32(frame.Scale[r*f.subs+s])
			if f.g.HasMin {
				w.minimum.Row(s)[r] = -float32(frame.Min[r*f.subs+s])
			}
		}
	}
}

// packFrame is the way back, into the bytes.
func (w *fitWork) packFrame() {
	f, frame := w.f, w.frame
	if f.g.Fixed {
		return
	}
	for b := range f.blocks {
		for r := range w.rows {
			frame.D[r*f.blocks+b] = w.factor.Row(b)[r]
			if f.g.HasMin {
				frame.M[r*f.blocks+b] = w.factorMin.Row(b)[r]
			}
		}
	}
	for s := 0; f.coding.Integer() && s < f.subs; s++ {
		for r := range w.rows {
			frame.Scale[r*f.subs+s] = int16(w.scale.Row(s)[r])
			if f.g.HasMin {
				frame.Min[r*f.subs+s] = int16(-w.minimum.Row(s)[r])
			}
		}
	}
	f.g.PackFrame(w.raw, frame)
}
