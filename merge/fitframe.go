package merge

import (
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// reached says whether the sums in a sub-block lie within its levels, as the frame
// is, and slack times the last distance of levels beyond.
func (w *fitWork) reached(s int, slack float32) bool {
	g, per := w.f.g, w.f.g.Block/w.f.g.Sub
	top := len(g.Levels) - 1
	lo, hi := g.Levels[0]-float32(slack*(g.Levels[1]-g.Levels[0])), g.Levels[top]+float32(slack*(g.Levels[top]-g.Levels[top-1]))
	var step, min float32
	if g.Fixed {
		step = w.step[s]
	} else {
		step = w.frame.D[s/per]
	}
	if g.HasMin {
		min = w.frame.M[s/per]
	}
	if w.f.coding.Integer() {
		step *= float32(w.frame.Scale[s])
		if g.HasMin {
			min *= -float32(w.frame.Min[s])
		}
	}
	if step == 0 && w.least[s] == min && w.most[s] == min {
		return true
	}
	y, z := (w.least[s]-min)/step, (w.most[s]-min)/step
	return y >= lo && y <= hi && z >= lo && z <= hi
}

// sums adds up what scales need of codes as they are now.
func (w *fitWork) sums() {
	f, sub, k := w.f, w.f.g.Sub, w.f.in.few.Cols
	for i, c := range w.codes {
		w.values.Data[i] = f.g.Levels[c]
	}
	for s := range f.subs {
		kernel.GemmNN(nil, w.scaleZ.Sub(0, w.rows, s*k, (s+1)*k), w.values.Sub(0, w.rows, s*sub, (s+1)*sub), f.in.few.Sub(s*sub, (s+1)*sub, 0, k), false)
	}
}

// refit finds new frame numbers for every row, of the kind that vary knows.
func (w *fitWork) refit(vary func(r int)) {
	f := w.f
	for r := range w.rows {
		w.products(r)
		vary(r)
	}
	f.g.PackFrame(w.raw, w.frame)
	w.steps()
	w.update()
}

// products fills the system with the products in h of what the scales and minimums of a
// row's sub-blocks do: one more of a scale adds the values of its codes, of a minimum ones.
func (w *fitWork) products(r int) {
	f, sub, k, y := w.f, w.f.g.Sub, w.f.in.few.Cols, &w.sys
	y.resize(f.subs, k, f.g.HasMin)
	copy(y.z, w.scaleZ.Row(r))
	values, left, missing, x := w.values.Row(r), w.left.Row(r), w.missing.Row(r), w.scratch.Row(r)
	kernel.Mul(x, values, f.in.fewRest)
	for s := range f.subs {
		part := x[s*sub : (s+1)*sub]
		y.scale2[s] = float64(kernel.Dot(part, values[s*sub:(s+1)*sub]))
		y.b[s] = float64(kernel.Dot(part, left[s*sub:(s+1)*sub])) + float64(kernel.Dot(y.row(s), missing))
	}
	if !f.g.HasMin {
		return
	}
	copy(y.z[f.subs*k:], f.minZ.Data)
	for s := range f.subs {
		y.both[s] = float64(kernel.Sum(x[s*sub : (s+1)*sub]))
		y.min2[s] = float64(f.minRest[s])
	}
	kernel.Mul(x, left, f.in.fewRest)
	for s := range f.subs {
		y.b[f.subs+s] = float64(kernel.Sum(x[s*sub:(s+1)*sub])) + float64(kernel.Dot(y.row(f.subs+s), missing))
	}
}

// steps brings steps and minimums up to date with the frame.
func (w *fitWork) steps() {
	f := w.f
	per := f.subs / f.blocks
	for s := range w.step {
		w.step[s] = w.frame.D[s/per]
		if f.coding.Integer() {
			w.step[s] *= float32(w.frame.Scale[s])
		}
	}
}

// variable is a number of the frame that is being refitted. One of the two is set.
type variable struct {
	half    *float32
	integer *int16
	lo, hi  int16   // of the integer
	unit    float64 // what one more of the integer adds to the scale or the minimum; 0: it is left alone
	was     float64
	sub     int // the first sub-block that depends on it
}

// nearest is the change of the scale or the minimum next to by that the number can hold.
func (v *variable) nearest(by float64) float64 {
	if v.half == nil {
		return float64(v.unit * (v.whole(by) - v.was))
	}
	return float64(kernel.F16Value(v.bits(by))) - v.was
}

func (v *variable) whole(by float64) float64 {
	return max(float64(v.lo), min(float64(v.hi), v.was+math.Round(by/v.unit)))
}

func (v *variable) bits(by float64) uint16 {
	const largest = 65504
	return kernel.F16Bits(float32(max(-largest, min(largest, v.was+by))))
}

// set changes the number by that; a change that is none puts it back.
func (v *variable) set(by float64) {
	switch {
	case v.half == nil && v.unit != 0:
		*v.integer = int16(v.whole(by))
	case v.half != nil:
		*v.half = kernel.F16Value(v.bits(by))
	}
}

// fitRow solves for the variables of a row. Those that would take sums out of the
// reach of the levels are left alone, and the others solved for again.
func (w *fitWork) fitRow(r int, vars []variable, subsOf int) {
	f, y := w.f, &w.sys
	w.could = w.could[:0]
	for s := range f.subs {
		w.could = append(w.could, w.reached(r*f.subs+s, 1))
	}
	for i := range vars {
		v := &vars[i]
		if v.half != nil {
			v.was, v.unit = float64(*v.half), 1
		} else {
			v.was = float64(*v.integer)
		}
		y.fixed[i] = v.unit == 0
	}
	for {
		y.solve()
		better := y.round(func(i int, by float64) float64 { return vars[i].nearest(by) })
		for i := range vars {
			vars[i].set(y.x[i])
		}
		again := false
		for i := range vars {
			for s := vars[i].sub; !y.fixed[i] && s < vars[i].sub+subsOf; s++ {
				if w.could[s-r*f.subs] && !w.reached(s, 1) {
					y.fixed[i], again = true, true
				}
			}
		}
		if better && !again {
			return
		}
		for i := range vars {
			vars[i].set(0)
		}
		if !again {
			return
		}
	}
}

// halves are the float16 scales and minimums of a type without integers.
func (w *fitWork) halves(r int) {
	f := w.f
	vars := w.sys.variables()
	for v := range vars {
		s := r*f.subs + v%f.subs
		vars[v] = variable{half: &w.frame.D[s], sub: s}
		if v >= f.subs {
			vars[v].half = &w.frame.M[s]
		}
	}
	w.fitRow(r, vars, 1)
}

// factors are those of super-blocks: D moves all its scales by their integers, M
// all minimums.
func (w *fitWork) factors(r int) {
	f := w.f
	per := f.subs / f.blocks
	w.sys.contract(per, func(v int) float64 {
		if v < f.subs {
			return float64(w.frame.Scale[r*f.subs+v])
		}
		return -float64(w.frame.Min[r*f.subs+v-f.subs])
	})
	vars := w.sys.variables()
	for v := range vars {
		b := r*f.blocks + v%f.blocks
		vars[v] = variable{half: &w.frame.D[b], sub: b * per}
		if v >= f.blocks {
			vars[v].half = &w.frame.M[b]
		}
	}
	w.fitRow(r, vars, per)
}

// integers are the scales and minimums of sub-blocks.
func (w *fitWork) integers(r int) {
	f := w.f
	per := f.subs / f.blocks
	vars := w.sys.variables()
	for v := range vars {
		s := r*f.subs + v%f.subs
		if v < f.subs {
			vars[v] = variable{integer: &w.frame.Scale[s], lo: f.coding.ScaleLo, hi: f.coding.ScaleHi, sub: s, unit: float64(w.frame.D[s/per])}
		} else {
			vars[v] = variable{integer: &w.frame.Min[s], hi: f.coding.MinHi, sub: s, unit: -float64(w.frame.M[s/per])}
		}
	}
	w.fitRow(r, vars, 1)
}
