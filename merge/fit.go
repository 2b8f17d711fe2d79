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
	fitRows    = 48       // rows worked on together: few enough for the cache, enough for products
	fitGrams   = 16 << 20 // bytes of their frames' products at most; then rows are fewer
	fitBeyond  = 0.05     // gain aimed at beyond 1, times what is missing of the weights' own gain
	fitSample  = 48       // rows of a tensor that its stretch is found on
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
//     nearest shrinks a change that is small against the step. Then single codes are
//     moved by a level where that helps;
//  3. the float16 numbers of the frame are refitted once more.
//
// The stretch is one number for the tensor, the one for which the gain in H,
// <R, D> / <D, D>, is 1 on a sample of its rows, and a little more the less of D is in
// the weights themselves: that part is missing on inputs that the moments hardly
// show. Rows do not depend on each other.
//
// Only the codes' part is stretched. Aiming at a stretched D from the start has a
// smaller error at the same gain, but has it by too much of D where inputs are large
// and too little elsewhere: what is missing adds up from layer to layer, and noise
// does not.
type fitter struct {
	t      *target
	g      *quant.Grid
	coding quant.Coding
	in     *inputs
	n      int
	subs   int // sub-blocks of a row
	blocks int
	batch  int // rows worked on together
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
	f.batch = max(8, min(fitRows, fitGrams/(8*f.vars*f.vars)))
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
		for i := 0; i*f.n < len(delta); i += f.batch {
			to := min(i+f.batch, len(delta)/f.n)
			if err := w.begin(raw[i*rowBytes:to*rowBytes], delta[i*f.n:to*f.n]); err != nil {
				return fmt.Errorf("rows from %d: %w", row, err)
			}
			w.merge(f.stretch)
			copy(dst[i*rowBytes:], w.raw)
			w.pushLeft()
			for r := range w.rows {
				rd, dd := w.gain(r)
				t.onInputs(row+int64(i+r), rd, dd, w.loss(r))
			}
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

// findStretch finds the stretch on rows spread over the tensor.
func (f *fitter) findStretch() error {
	var works []*fitWork
	rows := int(f.t.rows)
	take := min(rows, fitSample)
	rowBytes := f.blocks * f.g.Bytes
	for first := 0; first < take; first += f.batch {
		n := min(f.batch, take-first)
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
		works = append(works, w)
	}
	gain := func(stretch float32) float64 {
		var rd, dd, plain, all float64
		for _, w := range works {
			w.merge(stretch)
			for r := range w.rows {
				a, b := w.gain(r)
				rd, dd = rd+a, dd+b
			}
			for i, d := range w.delta.Data {
				plain += float64(float64(d-w.left.Data[i]) * float64(d))
				all += float64(float64(d) * float64(d))
			}
		}
		if dd == 0 || all == 0 {
			return 1
		}
		return rd/dd - float64(fitBeyond*(1-plain/all))
	}
	f.stretch = solveStretch(gain)
	return nil
}

// solveStretch finds the stretch between 1 and maxStretch at which gain is 1, by false
// position with halving; gain rises with the stretch, but for small jumps.
func solveStretch(gain func(float32) float64) float32 {
	const near = 0.002
	lo, below := float32(1), gain(1)-1
	if below > -near {
		return lo
	}
	// A first guess that is usually too far.
	hi := min(float32(1-2*below), maxStretch)
	above := gain(hi) - 1
	for above < -near && hi < maxStretch {
		lo, below = hi, above
		hi = min(2*hi, maxStretch)
		above = gain(hi) - 1
	}
	if above <= near {
		return hi
	}
	for range 6 {
		mid := lo + float32((hi-lo)*float32(below/(below-above)))
		g := gain(mid) - 1
		switch {
		case math.Abs(g) <= near:
			return mid
		case g < 0:
			lo, below = mid, g
			above /= 2
		default:
			hi, above = mid, g
			below /= 2
		}
	}
	return (lo + hi) / 2
}

// fitWork is the work on some rows.
type fitWork struct {
	f            *fitter
	rows         int
	start        []byte // the rows to begin with
	renewed      bool   // they are not all the base's
	raw          []byte // as merged so far
	base         []float32
	delta        kernel.Mat
	left         kernel.Mat // what is wanted and not there yet
	push         kernel.Mat // left·H
	pushed       bool       // push is that of left as it is
	toward       kernel.Mat // delta·H
	change       kernel.Mat
	codes        []uint8
	step, min    []float32
	least, most  []float32 // of the sums in each sub-block
	frame        *quant.Frame
	gram         []float64 // of each row: vars x vars, the lower part
	lat          lattice
	block, moved kernel.Mat
}

func (f *fitter) newWork() *fitWork {
	w := &fitWork{f: f, base: make([]float32, f.batch*f.n),
		delta: kernel.NewMat(f.batch, f.n), left: kernel.NewMat(f.batch, f.n), push: kernel.NewMat(f.batch, f.n),
		toward: kernel.NewMat(f.batch, f.n), change: kernel.NewMat(f.batch, f.n), moved: kernel.NewMat(f.batch, f.n),
		codes: make([]uint8, f.batch*f.n), step: make([]float32, f.batch*f.subs), min: make([]float32, f.batch*f.subs),
		least: make([]float32, f.batch*f.subs), most: make([]float32, f.batch*f.subs),
		gram: make([]float64, f.batch*f.vars*f.vars), block: kernel.NewMat(f.batch, f.g.Sub)}
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
	w.start = append(w.start[:0], w.raw...)
	return nil
}

// renew quantizes the sum anew in blocks whose levels do not reach it.
func (w *fitWork) renew() error {
	g := w.f.g
	w.renewed = false
	var sum []float32
	per := g.Block / g.Sub
	for b := range w.rows * w.f.blocks {
		inside := true
		for s := b * per; s < (b+1)*per; s++ {
			inside = inside && w.reached(s, 0.5)
		}
		if inside {
			continue
		}
		w.renewed = true
		sum = append(sum[:0], w.base[b*g.Block:(b+1)*g.Block]...)
		kernel.Add(sum, w.delta.Data[b*g.Block:(b+1)*g.Block])
		if err := w.f.t.codec.Encode(w.raw[b*g.Bytes:(b+1)*g.Bytes], sum, g.Block, nil); err != nil {
			return err
		}
	}
	return nil
}

// merge makes the rows anew from the start.
func (w *fitWork) merge(stretch float32) {
	f := w.f
	copy(w.raw, w.start)
	f.g.UnpackFrame(w.frame, w.raw)
	f.g.Unpack(w.codes, w.step, w.min, w.raw)
	w.update()
	if !w.renewed { // what is left is all that is wanted
		copy(w.push.Data, w.toward.Data)
		w.pushed = true
	}
	w.makeGram()
	if f.coding.Integer() {
		w.refit(w.factors)
		w.refit(w.integers)
	} else {
		w.refit(w.halves)
	}
	w.round(stretch)
	w.makeGram()
	if f.coding.Integer() {
		w.refit(w.factors)
	} else {
		w.refit(w.halves)
	}
}

// round moves codes towards what is left, stretched.
func (w *fitWork) round(stretch float32) {
	f := w.f
	kernel.Scale(w.left.Data, stretch, w.left.Data)
	roundCompensated(f.in, f.g, w.codes, w.step, w.left, w.change)
	kernel.Sub(w.left.Data, w.left.Data, w.change.Data)
	w.pushed = false
	w.pushLeft()
	polish(f.in, f.g, w.codes, w.step, w.left, w.push)
	f.g.Pack(w.raw, w.codes)
	w.update()
}

// update computes what is left from the bytes as they are now.
func (w *fitWork) update() {
	w.f.t.codec.Decode(w.left.Data, w.raw)
	w.pushed = false
	for i, now := range w.left.Data {
		w.left.Data[i] = w.delta.Data[i] - (now - w.base[i])
	}
}

// pushLeft computes left·H.
func (w *fitWork) pushLeft() {
	if !w.pushed {
		kernel.GemmNN(nil, w.push, w.left, w.f.in.h, false)
	}
	w.pushed = true
}

// gain returns <R, D> and <D, D> in H, of one row. The damping is taken out of H again.
func (w *fitWork) gain(r int) (rd, dd float64) {
	left, toward := w.left.Row(r), w.toward.Row(r)
	for i, d := range w.delta.Row(r) {
		t := float64(toward[i]) - float64(w.f.in.damping*float64(d))
		rd += float64(float64(d-left[i]) * t)
		dd += float64(float64(d) * t)
	}
	return rd, dd
}

// loss returns <D-R, D-R> in H, of one row whose push is up to date.
func (w *fitWork) loss(r int) (ee float64) {
	push := w.push.Row(r)
	for i, e := range w.left.Row(r) {
		ee += float64(float64(e) * (float64(push[i]) - float64(w.f.in.damping*float64(e))))
	}
	return ee
}
