package merge

import (
	"context"
	"fmt"
	"math"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

func init() {
	register(&Method{Name: "fit", open: openFit, Data: true,
		Help: "scales and minimums refitted and codes moved by compensated rounding, so that outputs on real inputs are the adapter's; needs --data"})
}

const (
	fitRows    = 16 // rows worked on together: few enough for the cache, enough for products
	fitSample  = 64 // rows of a tensor that its stretch is found on
	maxStretch = 8
)

// fitter merges rows of one tensor by method fit. What is wanted of a row is D, what
// it gets is R, and the error is that of its outputs, (R-D)·H·(R-D)ᵀ. In turn
//
//  0. a block with a value that its levels do not reach gets the frame and the
//     codes that quantizing the sum anew gives;
//  1. the numbers of the frame (scales, minimums, factors) are refitted by least
//     squares, rounded to what the type can hold with the rounding compensated;
//  2. codes are moved by compensated rounding of the rest, stretched: rounding to
//     nearest shrinks a change that is small against the step;
//  3. frame factors are refitted once more.
//
// The stretch is one number for the tensor, the one for which the gain in H,
// <R, D> / <D, D>, is 1 on a sample of its rows. Rows do not depend on each other.
type fitter struct {
	t      *target
	g      *quant.Grid
	coding quant.Coding
	in     *inputs
	n      int
	subs   int // sub-blocks of a row
	blocks int
	vars   int // frame variables of a row: its sub-blocks' scales, then their minimums
	// With S the pooling of columns by sub-block: S·H, and S·H·Sᵀ. Nil without minimums.
	pooled kernel.Mat
	square []float64

	stretch float32
}

func openFit(t *target) (encoder, error) {
	g, ok := quant.GridOf(t.typ)
	if !ok {
		return openKeep(t)
	}
	f := &fitter{t: t, g: g, coding: g.Coding(), n: t.cols, subs: t.cols / g.Sub, blocks: t.cols / g.Block}
	f.vars = f.subs
	if g.HasMin {
		f.vars = 2 * f.subs
	}
	keep, err := openKeep(t)
	if err != nil {
		return nil, err
	}
	t.prepare = func(ctx context.Context) error {
		in, err := t.inputs(ctx)
		if err != nil || in == nil {
			return err
		}
		return f.prepare(in)
	}
	t.finish = func() { f.in, f.pooled, f.square = nil, kernel.Mat{}, nil }
	return func(dst, raw []byte, delta []float32, row int64) error {
		if f.in == nil {
			return keep(dst, raw, delta, row)
		}
		rowBytes := f.blocks * g.Bytes
		w := f.newWork()
		for i := 0; i*f.n < len(delta); i += fitRows {
			to := min(i+fitRows, len(delta)/f.n)
			if err := w.begin(raw[i*rowBytes:to*rowBytes], delta[i*f.n:to*f.n]); err != nil {
				return fmt.Errorf("rows from %d: %w", row, err)
			}
			w.frames()
			w.round(f.stretch)
			copy(dst[i*rowBytes:], w.raw)
		}
		return nil
	}, nil
}

func (f *fitter) prepare(in *inputs) error {
	if in.n != f.n {
		return fmt.Errorf("moments of %d inputs for a matrix of %d", in.n, f.n)
	}
	f.in = in
	if f.g.HasMin {
		f.pooled = kernel.NewMat(f.subs, f.n)
		f.square = make([]float64, f.subs*f.subs)
		for i := range f.n {
			kernel.Add(f.pooled.Row(i/f.g.Sub), in.h.Row(i))
		}
		for s := range f.subs {
			for i, v := range f.pooled.Row(s) {
				f.square[s*f.subs+i/f.g.Sub] += float64(v)
			}
		}
	}
	return f.findStretch()
}

// findStretch bisects for the stretch at which the gain on rows spread over the tensor is 1.
func (f *fitter) findStretch() error {
	var works []*fitWork
	rows := int(f.t.rows)
	take := min(rows, fitSample)
	rowBytes := f.blocks * f.g.Bytes
	for first := 0; first < take; first += fitRows {
		n := min(fitRows, take-first)
		raw, delta := make([]byte, n*rowBytes), make([]float32, n*f.n)
		base := make([]float32, f.n)
		for i := range n {
			row := int64((first + i) * rows / take)
			one := raw[i*rowBytes : (i+1)*rowBytes]
			if err := f.t.raw.ReadRaw(one, row); err != nil {
				return err
			}
			f.t.codec.Decode(base, one)
			f.t.delta.Change(delta[i*f.n:(i+1)*f.n], base, row)
		}
		w := f.newWork()
		if err := w.begin(raw, delta); err != nil {
			return err
		}
		w.frames()
		works = append(works, w)
	}
	gain := func(stretch float32) float64 {
		var rd, dd float64
		for _, w := range works {
			w.save()
			w.round(stretch)
			a, b := w.gain()
			rd, dd = rd+a, dd+b
			w.restore()
		}
		if dd == 0 {
			return 1
		}
		return rd / dd
	}
	lo, hi := float32(1), float32(maxStretch)
	for range 7 {
		mid := (lo + hi) / 2
		if gain(mid) < 1 {
			lo = mid
		} else {
			hi = mid
		}
	}
	f.stretch = (lo + hi) / 2
	if gain(1) >= 1 {
		f.stretch = 1
	}
	return nil
}

// fitWork is the work on some rows.
type fitWork struct {
	f            *fitter
	rows         int
	raw          []byte // as merged so far
	base         []float32
	delta        kernel.Mat
	left         kernel.Mat // what is wanted and not there yet
	push         kernel.Mat // left·H
	toward       kernel.Mat // delta·H
	change       kernel.Mat
	codes        []uint8
	step, min    []float32
	least, most  []float32 // of the sums in each sub-block
	frame        *quant.Frame
	gram         []float64 // of each row: vars x vars, the lower part
	lat          lattice
	saved        []byte
	savedLeft    []float32
	block, moved kernel.Mat
}

func (f *fitter) newWork() *fitWork {
	w := &fitWork{f: f, base: make([]float32, fitRows*f.n),
		delta: kernel.NewMat(fitRows, f.n), left: kernel.NewMat(fitRows, f.n), push: kernel.NewMat(fitRows, f.n),
		toward: kernel.NewMat(fitRows, f.n), change: kernel.NewMat(fitRows, f.n), moved: kernel.NewMat(fitRows, f.n),
		codes: make([]uint8, fitRows*f.n), step: make([]float32, fitRows*f.subs), min: make([]float32, fitRows*f.subs),
		least: make([]float32, fitRows*f.subs), most: make([]float32, fitRows*f.subs),
		gram: make([]float64, fitRows*f.vars*f.vars), block: kernel.NewMat(fitRows, f.g.Sub)}
	return w
}

// begin takes rows of the base and the change wanted of them.
func (w *fitWork) begin(raw []byte, delta []float32) error {
	f := w.f
	w.rows = len(delta) / f.n
	w.raw = append(w.raw[:0], raw...)
	w.base = w.base[:len(delta)]
	f.t.codec.Decode(w.base, raw)
	for _, m := range []*kernel.Mat{&w.delta, &w.left, &w.push, &w.toward, &w.change, &w.moved, &w.block} {
		m.Rows, m.Data = w.rows, m.Data[:w.rows*m.Cols]
	}
	copy(w.delta.Data, delta)
	copy(w.left.Data, delta)
	w.codes, w.step, w.min = w.codes[:len(delta)], w.step[:w.rows*f.subs], w.min[:w.rows*f.subs]
	w.frame = f.g.NewFrame(w.rows * f.blocks)
	f.g.UnpackFrame(w.frame, w.raw)
	f.g.Unpack(w.codes, w.step, w.min, w.raw)
	kernel.GemmNN(nil, w.toward, w.delta, f.in.h, false)
	w.least, w.most = w.least[:len(w.step)], w.most[:len(w.step)]
	for s := range w.step {
		least, most := float32(math.Inf(1)), float32(math.Inf(-1))
		for i := s * f.g.Sub; i < (s+1)*f.g.Sub; i++ {
			sum := w.base[i] + delta[i]
			least, most = min(least, sum), max(most, sum)
		}
		w.least[s], w.most[s] = least, most
	}
	if err := w.renew(); err != nil {
		return err
	}
	w.makeGram()
	return nil
}

// renew quantizes the sum anew in blocks whose levels do not reach it.
func (w *fitWork) renew() error {
	g := w.f.g
	any := false
	var sum []float32
	per := g.Block / g.Sub
	for b := range w.rows * w.f.blocks {
		if w.reached(b*per, (b+1)*per-1) {
			continue
		}
		any = true
		sum = append(sum[:0], w.base[b*g.Block:(b+1)*g.Block]...)
		kernel.Add(sum, w.delta.Data[b*g.Block:(b+1)*g.Block])
		if err := w.f.t.codec.Encode(w.raw[b*g.Bytes:(b+1)*g.Bytes], sum, g.Block, nil); err != nil {
			return err
		}
	}
	if any {
		g.UnpackFrame(w.frame, w.raw)
		g.Unpack(w.codes, w.step, w.min, w.raw)
		w.update()
	}
	return nil
}

// reached says whether the sums in sub-blocks first to last of all rows', as the frame is,
// lie within their levels and half a step.
func (w *fitWork) reached(first, last int) bool {
	g, per := w.f.g, w.f.g.Block/w.f.g.Sub
	lo, hi := g.Levels[0]-0.5, g.Levels[len(g.Levels)-1]+0.5
	for s := first; s <= last; s++ {
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
			continue
		}
		y, z := (w.least[s]-min)/step, (w.most[s]-min)/step
		if !(y >= lo && y <= hi && z >= lo && z <= hi) {
			return false
		}
	}
	return true
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

// frames refits all numbers of the frame.
func (w *fitWork) frames() {
	if !w.f.coding.Integer() {
		w.refit(w.chooseHalves)
		return
	}
	w.refit(w.chooseFactors)
	w.refit(w.chooseIntegers)
}

// round moves codes towards what is left, and refits the factors.
func (w *fitWork) round(stretch float32) {
	f := w.f
	kernel.Scale(w.moved.Data, stretch, w.left.Data)
	roundCompensated(f.in, f.g, w.codes, w.step, w.moved, w.change)
	f.g.Pack(w.raw, w.codes)
	w.update()
	w.makeGram()
	if f.coding.Integer() {
		w.refit(w.chooseFactors)
	} else {
		w.refit(w.chooseHalves)
	}
}

// update computes what is left from the bytes as they are now.
func (w *fitWork) update() {
	w.f.t.codec.Decode(w.left.Data, w.raw)
	for i, now := range w.left.Data {
		w.left.Data[i] = w.delta.Data[i] - (now - w.base[i])
	}
}

// refit lets choose find new frame numbers for every row.
func (w *fitWork) refit(choose func(r int, gram, push []float64)) {
	f, sub, p := w.f, w.f.g.Sub, w.f.vars
	kernel.GemmNN(nil, w.push, w.left, f.in.h, false)
	push := make([]float64, p)
	for r := range w.rows {
		clear(push)
		for i, v := range w.push.Row(r) {
			push[i/sub] += float64(f.g.Levels[w.codes[r*f.n+i]] * v)
			if f.g.HasMin {
				push[f.subs+i/sub] += float64(v)
			}
		}
		choose(r, w.gram[r*p*p:(r+1)*p*p], push)
	}
	f.g.PackFrame(w.raw, w.frame)
	f.g.Unpack(w.codes, w.step, w.min, w.raw)
	w.update()
}

// chooseHalves refits the float16 scales and minimums of a type without integers.
func (w *fitWork) chooseHalves(r int, gram, push []float64) {
	f, p := w.f, w.f.vars
	w.lat.resize(p)
	copy(w.lat.g, gram)
	copy(w.lat.b, push)
	w.lat.solve()
	w.lat.round(func(v int, best float64) float64 {
		if v < f.subs {
			return w.moveHalf(&w.frame.D[r*f.blocks+v], best, r*f.subs+v, 1)
		}
		return w.moveHalf(&w.frame.M[r*f.blocks+v-f.subs], best, r*f.subs+v-f.subs, 1)
	})
}

// chooseFactors refits the factors of super-blocks: D moves all its scales by
// their integers, M all minimums.
func (w *fitWork) chooseFactors(r int, gram, push []float64) {
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
		w.lat.b[i/per] += coef[i] * push[i]
		for j := range i {
			v := coef[i] * coef[j] * gram[i*p+j]
			w.lat.g[i/per*q+j/per] += v
			if i/per == j/per {
				w.lat.g[i/per*q+j/per] += v
			}
		}
		w.lat.g[i/per*q+i/per] += coef[i] * coef[i] * gram[i*p+i]
	}
	w.lat.solve()
	w.lat.round(func(v int, best float64) float64 {
		if v < f.blocks {
			return w.moveHalf(&w.frame.D[r*f.blocks+v], best, r*f.subs+v*per, per)
		}
		return w.moveHalf(&w.frame.M[r*f.blocks+v-f.blocks], best, r*f.subs+(v-f.blocks)*per, per)
	})
}

// chooseIntegers moves integer scales and minimums.
func (w *fitWork) chooseIntegers(r int, gram, push []float64) {
	f, p := w.f, w.f.vars
	per := f.subs / f.blocks
	unit := make([]float64, p) // what one more adds to the variable
	for s := range f.subs {
		unit[s] = float64(w.frame.D[r*f.blocks+s/per])
		if f.g.HasMin {
			unit[f.subs+s] = -float64(w.frame.M[r*f.blocks+s/per])
		}
	}
	w.lat.resize(p)
	for i := range p {
		w.lat.b[i] = unit[i] * push[i]
		for j := range i + 1 {
			w.lat.g[i*p+j] = unit[i] * unit[j] * gram[i*p+j]
		}
	}
	w.lat.solve()
	w.lat.round(func(v int, best float64) float64 {
		if v < f.subs {
			return w.moveInteger(&w.frame.Scale[r*f.subs+v], best, f.coding.ScaleLo, f.coding.ScaleHi, r*f.subs+v)
		}
		return w.moveInteger(&w.frame.Min[r*f.subs+v-f.subs], best, 0, f.coding.MinHi, r*f.subs+v-f.subs)
	})
}

// gain returns <R, D> and <D, D> in H, of all rows.
func (w *fitWork) gain() (rd, dd float64) {
	for i, d := range w.delta.Data {
		t := float64(w.toward.Data[i])
		rd += float64(float64(d-w.left.Data[i]) * t)
		dd += float64(float64(d) * t)
	}
	return rd, dd
}

func (w *fitWork) save() {
	w.saved = append(w.saved[:0], w.raw...)
	w.savedLeft = append(w.savedLeft[:0], w.left.Data...)
}

func (w *fitWork) restore() {
	copy(w.raw, w.saved)
	copy(w.left.Data, w.savedLeft)
	w.f.g.UnpackFrame(w.frame, w.raw)
	w.f.g.Unpack(w.codes, w.step, w.min, w.raw)
}

// moveHalf adds to a float16 number of the frame, on which the n sub-blocks from first
// on depend, and returns what was added after rounding: nothing, if sums would then
// be out of the levels' reach.
func (w *fitWork) moveHalf(x *float32, by float64, first, n int) float64 {
	const largest = 65504
	was, could := *x, w.reached(first, first+n-1)
	*x = kernel.F16Value(kernel.F16Bits(float32(max(-largest, min(largest, float64(was)+by)))))
	if could && !w.reached(first, first+n-1) {
		*x = was
	}
	return float64(*x) - float64(was)
}

// moveInteger adds to the integer of a sub-block in the same way.
func (w *fitWork) moveInteger(x *int16, by float64, lo, hi int16, sub int) float64 {
	was, could := *x, w.reached(sub, sub)
	*x = int16(max(float64(lo), min(float64(hi), float64(was)+math.Round(by))))
	if could && !w.reached(sub, sub) {
		*x = was
	}
	return float64(*x) - float64(was)
}
