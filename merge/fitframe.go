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
	step, min := w.frame.D[s/per], float32(0)
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

// makeGram computes, of every row, the products in H of what its frame variables do
// to it: a scale adds the levels of its sub-block's codes, a minimum ones.
func (w *fitWork) makeGram() {
	f, sub := w.f, w.f.g.Sub
	p := f.vars
	for t := range f.subs {
		for r := range w.rows {
			x := w.block.Row(r)
			for i, c := range w.codes[r*f.n+t*sub : r*f.n+(t+1)*sub] {
				x[i] = f.g.Levels[c]
			}
		}
		hi := (t + 1) * sub
		v := w.moved.Sub(0, w.rows, 0, hi)
		kernel.GemmNN(nil, v, w.block, f.in.h.Sub(t*sub, hi, 0, hi), false)
		for r := range w.rows {
			g, x := w.gram[r*p*p:(r+1)*p*p], v.Row(r)
			for s := range t + 1 {
				var sum float64
				for i, c := range w.codes[r*f.n+s*sub : r*f.n+(s+1)*sub] {
					sum += float64(f.g.Levels[c] * x[s*sub+i])
				}
				g[t*p+s] = sum
			}
			if !f.g.HasMin {
				continue
			}
			for s := range f.subs {
				var sum float64
				for i, l := range w.block.Row(r) {
					sum += float64(l * f.pooled.Row(s)[t*sub+i])
				}
				g[(f.subs+s)*p+t] = sum
			}
			for s := range t + 1 {
				g[(f.subs+t)*p+f.subs+s] = f.square[t*f.subs+s]
			}
		}
	}
}

// refit finds new frame numbers for every row, of the kind that vary knows.
func (w *fitWork) refit(vary func(r int, gram, push []float64) []variable) {
	f, sub, p := w.f, w.f.g.Sub, w.f.vars
	w.pushLeft()
	push := make([]float64, p)
	for r := range w.rows {
		clear(push)
		for i, v := range w.push.Row(r) {
			push[i/sub] += float64(f.g.Levels[w.codes[r*f.n+i]] * v)
			if f.g.HasMin {
				push[f.subs+i/sub] += float64(v)
			}
		}
		w.refitRow(r, w.gram[r*p*p:(r+1)*p*p], push, vary)
	}
	f.g.PackFrame(w.raw, w.frame)
	f.g.Unpack(w.codes, w.step, w.min, w.raw)
	w.update()
}

// variable is a number of the frame that is being refitted. One of the two is set.
type variable struct {
	half    *float32
	integer *int16
	lo, hi  int16 // of the integer
	sub     int   // the first sub-block that depends on it
}

// move adds to the number what it can hold, and returns that.
func (v *variable) move(by float64) float64 {
	if v.half == nil {
		was := *v.integer
		*v.integer = int16(max(float64(v.lo), min(float64(v.hi), float64(was)+math.Round(by))))
		return float64(*v.integer) - float64(was)
	}
	const largest = 65504
	was := *v.half
	*v.half = kernel.F16Value(kernel.F16Bits(float32(max(-largest, min(largest, float64(was)+by)))))
	return float64(*v.half) - float64(was)
}

// refitRow solves for the variables of a row. Those that would take sums out of the
// reach of the levels are left alone, and the others solved for again.
func (w *fitWork) refitRow(r int, gram, push []float64, vary func(r int, gram, push []float64) []variable) {
	f := w.f
	could := make([]bool, f.subs)
	for s := range could {
		could[s] = w.reached(r*f.subs+s, 1)
	}
	var fixed []bool
	for {
		vars := vary(r, gram, push)
		if fixed == nil {
			fixed = make([]bool, len(vars))
		}
		halves, integers := make([]float32, len(vars)), make([]int16, len(vars))
		for i := range vars {
			if v := &vars[i]; v.half != nil {
				halves[i] = *v.half
			} else {
				integers[i] = *v.integer
			}
			if fixed[i] {
				w.lat.fix(i)
			}
		}
		w.lat.solve()
		better := w.lat.round(func(i int, best float64) float64 { return vars[i].move(best) })
		again := false
		n := f.subs / (len(vars) / (f.vars / f.subs)) // sub-blocks of a variable
		for i := range vars {
			for s := vars[i].sub; !fixed[i] && s < vars[i].sub+n; s++ {
				if could[s-r*f.subs] && !w.reached(s, 1) {
					fixed[i], again = true, true
				}
			}
		}
		if better && !again {
			return
		}
		for i := range vars {
			if v := &vars[i]; v.half != nil {
				*v.half = halves[i]
			} else {
				*v.integer = integers[i]
			}
		}
		if !again {
			return
		}
	}
}

// halves are the float16 scales and minimums of a type without integers.
func (w *fitWork) halves(r int, gram, push []float64) []variable {
	f, p := w.f, w.f.vars
	w.lat.resize(p)
	copy(w.lat.g, gram)
	copy(w.lat.b, push)
	vars := make([]variable, p)
	for v := range vars {
		s := r*f.subs + v%f.subs
		vars[v] = variable{half: &w.frame.D[s], sub: s}
		if v >= f.subs {
			vars[v].half = &w.frame.M[s]
		}
	}
	return vars
}

// factors are those of super-blocks: D moves all its scales by their integers, M
// all minimums.
func (w *fitWork) factors(r int, gram, push []float64) []variable {
	f, p := w.f, w.f.vars
	per := f.subs / f.blocks
	coef := make([]float64, p) // the factor's variable is the sum of coef times those of its sub-blocks
	for s := range f.subs {
		coef[s] = float64(w.frame.Scale[r*f.subs+s])
		if f.g.HasMin {
			coef[f.subs+s] = -float64(w.frame.Min[r*f.subs+s])
		}
	}
	q := p / per
	w.lat.resize(q)
	clear(w.lat.g)
	clear(w.lat.b)
	for i := range p {
		w.lat.b[i/per] += float64(coef[i] * push[i])
		for j := range i {
			v := float64(coef[i] * coef[j] * gram[i*p+j])
			w.lat.g[i/per*q+j/per] += v
			if i/per == j/per {
				w.lat.g[i/per*q+j/per] += v
			}
		}
		w.lat.g[i/per*q+i/per] += float64(coef[i] * coef[i] * gram[i*p+i])
	}
	vars := make([]variable, q)
	for v := range vars {
		b := r*f.blocks + v%f.blocks
		vars[v] = variable{half: &w.frame.D[b], sub: b * per}
		if v >= f.blocks {
			vars[v].half = &w.frame.M[b]
		}
	}
	return vars
}

// integers are the scales and minimums of sub-blocks.
func (w *fitWork) integers(r int, gram, push []float64) []variable {
	f, p := w.f, w.f.vars
	per := f.subs / f.blocks
	w.lat.resize(p)
	vars := make([]variable, p)
	unit := make([]float64, p) // what one more adds to the variable
	for v := range vars {
		s := r*f.subs + v%f.subs
		if v < f.subs {
			vars[v] = variable{integer: &w.frame.Scale[s], lo: f.coding.ScaleLo, hi: f.coding.ScaleHi, sub: s}
			unit[v] = float64(w.frame.D[s/per])
		} else {
			vars[v] = variable{integer: &w.frame.Min[s], hi: f.coding.MinHi, sub: s}
			unit[v] = -float64(w.frame.M[s/per])
		}
	}
	for i := range p {
		w.lat.b[i] = unit[i] * push[i]
		for j := range i + 1 {
			w.lat.g[i*p+j] = float64(unit[i] * unit[j] * gram[i*p+j])
		}
	}
	return vars
}
