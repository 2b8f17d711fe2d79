package merge

import (
	"context"
	"math"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

func init() {
	register(&Method{Name: "fit", open: openFit, Data: true,
		Help: "scales and minimums refitted and codes moved by compensated rounding, so that outputs on real inputs are the adapter's; needs --data"})
}

const (
	fitRows    = 64       // rows worked on together, enough for products
	fitBytes   = 16 << 20 // of their numbers, at most, but for 8 rows
	fitBeyond  = 0.03     // gain aimed at beyond 1, times what is missing of the weights' own gain
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
	rowFitter
	g      *quant.Grid
	coding quant.Coding
	subs   int     // sub-blocks of a row
	half   float32 // of the shortest distance of levels
	// What one more of each sub-block's minimum adds in h: of its columns the sums of rest, and of z.
	minRest []float32
	minZ    kernel.Mat
}

func openFit(t *target) (encoder, error) {
	if g, ok := quant.GroupsOf(t.typ); ok {
		return openGroupFit(t, g)
	}
	g, ok := quant.GridOf(t.typ)
	if !ok {
		return openKeep(t)
	}
	f := &fitter{g: g, coding: g.Coding(), subs: t.cols / g.Sub}
	f.open(t, g.Block, g.Bytes, func() rowsFit { return f.work() })
	f.half = float32(math.Inf(1))
	for i, l := range g.Levels[1:] {
		f.half = min(f.half, (l-g.Levels[i])/2)
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
	t.finish = func() {
		f.close()
		f.minRest, f.minZ = nil, kernel.Mat{}
	}
	return func(dst, raw []byte, delta []float32, row int64) error {
		if f.in == nil {
			return keep(dst, raw, delta, row)
		}
		return f.encode(dst, raw, delta, row)
	}, nil
}

func (f *fitter) prepare(in *inputs) error {
	if err := f.know(in); err != nil {
		return err
	}
	if f.g.HasMin {
		f.minRest, f.minZ = make([]float32, f.subs), kernel.NewMat(f.subs, in.few.Cols)
		for i, v := range in.fewRest {
			f.minRest[i/f.g.Sub] += v
			kernel.Add(f.minZ.Row(i/f.g.Sub), in.few.Row(i))
		}
	}
	return f.findStretch()
}

// fitWork is the work on some rows.
type fitWork struct {
	fitted
	f       *fitter
	rows    int
	started bool   // with the frames of the rows it has
	settled []byte // the rows with new frames and the codes they had
	codes   []uint8
	frame   *quant.Frame
	base    []float32

	wanted, missing kernel.Mat // rows x few: delta·few, left·few
	settledLeft     []float32
	values, scratch kernel.Mat // rows x n: of codes; anything
	scaleZ          kernel.Mat // rows x subs·few: few summed over sub-blocks, times the values of codes

	step, min   []float32 // of each sub-block
	least, most []float32 // of the sums in each sub-block
	could       []bool    // of one row, be reached with the frame as it was
	sys         system

	// By columns: n, k or ldlqBlock x rows.
	errs, state, carry kernel.Mat
	limits             []float32
}

func (f *fitter) work() *fitWork {
	n, k, few, rows := f.n, f.in.k, f.in.few.Cols, f.batch
	return &fitWork{f: f, fitted: newFitted(rows, n), base: make([]float32, rows*n), codes: make([]uint8, rows*n), settledLeft: make([]float32, rows*n),
		values: kernel.NewMat(rows, n), scratch: kernel.NewMat(rows, n),
		wanted: kernel.NewMat(rows, few), missing: kernel.NewMat(rows, few), scaleZ: kernel.NewMat(rows, f.subs*few),
		step: make([]float32, rows*f.subs), min: make([]float32, rows*f.subs),
		least: make([]float32, rows*f.subs), most: make([]float32, rows*f.subs),
		errs: kernel.NewMat(n, rows), state: kernel.NewMat(k, rows), carry: kernel.NewMat(ldlqBlock, rows), limits: make([]float32, rows)}
}

// begin takes rows of the base and the change wanted of them.
func (w *fitWork) begin(raw []byte, delta []float32) error {
	f := w.f
	w.rows, w.started = len(delta)/f.n, false
	w.raw = append(w.raw[:0], raw...)
	w.base = w.base[:len(delta)]
	f.t.codec.Decode(w.base, raw)
	for _, m := range []*kernel.Mat{&w.delta, &w.left, &w.values, &w.scratch, &w.wanted, &w.missing, &w.scaleZ} {
		m.Rows, m.Data = w.rows, m.Data[:w.rows*m.Cols]
	}
	for _, m := range []*kernel.Mat{&w.errs, &w.state, &w.carry} {
		m.Cols, m.Stride, m.Data = w.rows, w.rows, m.Data[:m.Rows*w.rows]
	}
	copy(w.delta.Data, delta)
	w.codes, w.step, w.min, w.limits = w.codes[:len(delta)], w.step[:w.rows*f.subs], w.min[:w.rows*f.subs], w.limits[:w.rows]
	w.frame = f.g.NewFrame(w.rows * f.blocks)
	f.g.UnpackFrame(w.frame, w.raw)
	f.g.Unpack(w.codes, w.step, w.min, w.raw)
	w.least, w.most = w.least[:len(w.step)], w.most[:len(w.step)]
	for s := range w.step {
		least, most := float32(math.Inf(1)), float32(math.Inf(-1))
		d := delta[s*f.g.Sub : (s+1)*f.g.Sub]
		for i, v := range w.base[s*f.g.Sub : (s+1)*f.g.Sub] {
			sum := v + d[i]
			least, most = min(least, sum), max(most, sum)
		}
		w.least[s], w.most[s] = least, most
	}
	kernel.GemmNN(nil, w.wanted, w.delta, f.in.few, false)
	renewed, err := w.renew()
	if err != nil {
		return err
	}
	if renewed {
		f.g.UnpackFrame(w.frame, w.raw)
		w.update()
	} else {
		copy(w.left.Data, w.delta.Data)
		copy(w.missing.Data, w.wanted.Data)
	}
	return nil
}

// renew quantizes the sum anew in blocks whose levels do not reach it.
func (w *fitWork) renew() (any bool, err error) {
	g := w.f.g
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
		any = true
		sum = append(sum[:0], w.base[b*g.Block:(b+1)*g.Block]...)
		kernel.Add(sum, w.delta.Data[b*g.Block:(b+1)*g.Block])
		if err := w.f.t.codec.Encode(w.raw[b*g.Bytes:(b+1)*g.Bytes], sum, g.Block, nil); err != nil {
			return any, err
		}
	}
	return any, nil
}

// merge makes the rows anew from what begin was given.
func (w *fitWork) merge(stretch float32) {
	f := w.f
	if !w.started { // what does not depend on the stretch
		w.started = true
		f.g.Unpack(w.codes, w.step, w.min, w.raw)
		switch {
		case f.g.Fixed:
		case f.coding.Integer():
			w.sums()
			w.refit(w.factors)
			w.refit(w.integers)
		default:
			w.sums()
			w.refit(w.halves)
		}
		w.settled = append(w.settled[:0], w.raw...)
		copy(w.settledLeft, w.left.Data)
	} else {
		copy(w.raw, w.settled)
		copy(w.left.Data, w.settledLeft)
		f.g.UnpackFrame(w.frame, w.raw)
		f.g.Unpack(w.codes, w.step, w.min, w.raw)
	}
	w.round(stretch)
	w.polish()
	f.g.Pack(w.raw, w.codes)
	w.update()
	switch {
	case f.g.Fixed:
	case f.coding.Integer():
		w.sums()
		w.refit(w.factors)
	default:
		w.sums()
		w.refit(w.halves)
	}
}

// update computes what is left from the bytes as they are now.
func (w *fitWork) update() {
	w.f.t.codec.Decode(w.left.Data, w.raw)
	kernel.Sub(w.left.Data, w.left.Data, w.base)
	kernel.Sub(w.left.Data, w.delta.Data, w.left.Data)
	kernel.GemmNN(nil, w.missing, w.left, w.f.in.few, false)
}
