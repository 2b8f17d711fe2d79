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
	fitRows    = 64       // rows worked on together
	fitLanes   = 16       // whose columns are filled up to a multiple of
	fitBytes   = 16 << 20 // of their numbers, at most, but for 16 rows
	fitBeyond  = 0.03     // gain aimed at beyond 1, times what is missing of the weights' own gain
	fitSample  = 48       // rows of a tensor that its stretch is found on
	maxStretch = 64
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
	levels [256]float32
	// The levels with half and once the last distance beyond: what a step is to reach.
	reach [2][2]float32
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
	f.open(t, g.Block, g.Bytes, func(old rowsFit) rowsFit {
		w, ok := old.(*fitWork)
		if !ok || w.f.g != g || w.f.n != f.n || w.f.batch != f.batch || w.state.Rows != f.in.k || w.missing.Rows != f.in.few.Cols {
			return f.newWork()
		}
		w.f = f
		return w
	})
	copy(f.levels[:], g.Levels)
	f.half = float32(math.Inf(1))
	for i, l := range g.Levels[1:] {
		f.half = min(f.half, (l-g.Levels[i])/2)
	}
	top := len(g.Levels) - 1
	for i, slack := range []float32{0.5, 1} {
		f.reach[i] = [2]float32{g.Levels[0] - float32(slack*(g.Levels[1]-g.Levels[0])), g.Levels[top] + float32(slack*(g.Levels[top]-g.Levels[top-1]))}
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

// fitWork is the work on some rows. They lie side by side: the matrices have a column for each,
// and as many more, of zeros, as fill the vectors.
type fitWork struct {
	f     *fitter
	rows  int
	raw   []byte
	codes []uint8   // rows x n, one row after the other
	base  []float32 // the same
	frame *quant.Frame

	delta, left     kernel.Mat // n x lanes: what is wanted, and of that what is not there yet
	values          kernel.Mat // n x lanes: the levels of codes
	errs            kernel.Mat // n x lanes: left, stretched
	step, min       kernel.Mat // subs x lanes, as the frame is
	was, wasMin     kernel.Mat // the same before a refit
	factor          kernel.Mat // blocks x lanes, of the frame: what the steps are multiples of, or they themselves
	factorMin       kernel.Mat // the same of minimums
	scale, minimum  kernel.Mat // subs x lanes: the integers that the factors are multiplied with
	limits          kernel.Mat // subs x lanes: how far a value may be from its code's for that to stay
	least, most     kernel.Mat // subs x lanes: of the sums
	missing         kernel.Mat // few x lanes: fewᵀ·left
	wanted, state   kernel.Mat // k x lanes: zᵀ·delta; zᵀ·errs
	carry, products kernel.Mat // ldlqBlock and 5 x lanes
	all             []*kernel.Mat

	fine, coarse columnSystem // of sub-blocks and of blocks

	// What does not depend on the stretch, kept if merge is called again.
	again, started bool
	settled        struct {
		codes []uint8
		mats  [8][]float32
	}
	bytes             []byte
	rowSteps, rowMins []float32 // subs of each row, one row after the other
	present           uint64    // a bit for each row
}

func (f *fitter) newWork() *fitWork {
	w := &fitWork{f: f, codes: make([]uint8, f.batch*f.n), base: make([]float32, f.batch*f.n),
		rowSteps: make([]float32, f.batch*f.subs), rowMins: make([]float32, f.batch*f.subs)}
	n, s, few, k := f.n, f.subs, f.in.few.Cols, f.in.k
	add := func(rows int, ms ...*kernel.Mat) {
		for _, m := range ms {
			*m = kernel.NewMat(rows, f.batch)
			w.all = append(w.all, m)
		}
	}
	add(n, &w.delta, &w.left, &w.values, &w.errs)
	add(s, &w.step, &w.min, &w.was, &w.wasMin, &w.limits, &w.least, &w.most)
	add(few, &w.missing)
	add(k, &w.wanted, &w.state)
	add(ldlqBlock, &w.carry)
	add(5, &w.products)
	if f.g.Fixed {
		return w
	}
	w.bytes = make([]byte, 2*f.batch)
	add(f.blocks, &w.factor)
	if f.g.HasMin {
		add(f.blocks, &w.factorMin)
	}
	if f.coding.Integer() {
		add(s, &w.scale)
		if f.g.HasMin {
			add(s, &w.minimum)
		}
	}
	w.fine.open(s, few, f.batch, f.g.HasMin)
	if f.coding.Integer() {
		w.coarse.open(f.blocks, few, f.batch, f.g.HasMin)
	}
	return w
}

// begin takes rows of the base and the change wanted of them; with again, merge may be
// called more than once.
func (w *fitWork) begin(raw []byte, delta []float32, again bool) error {
	f := w.f
	w.rows, w.again, w.started = len(delta)/f.n, again, false
	w.present = 1<<w.rows - 1
	lanes := (w.rows + fitLanes - 1) / fitLanes * fitLanes
	for _, m := range w.all {
		m.Cols, m.Stride, m.Data = lanes, lanes, m.Data[:m.Rows*lanes]
	}
	w.fine.narrow(lanes)
	w.coarse.narrow(lanes)
	w.raw = append(w.raw[:0], raw...)
	w.base, w.codes = w.base[:len(delta)], w.codes[:len(delta)]
	if s := kernel.Sum(delta); s-s != 0 {
		return fmt.Errorf("the change is not a number")
	}
	turn(w.delta, delta)
	kernel.GemmTN(nil, w.wanted, f.in.z, w.delta, false)
	if w.frame == nil || len(w.frame.D) != w.rows*f.blocks {
		w.frame = f.g.NewFrame(w.rows * f.blocks)
	}
	w.unpack()
	w.extremes()
	renewed, err := w.renew(raw, delta)
	if err != nil {
		return err
	}
	copy(w.left.Data, w.delta.Data)
	if renewed {
		w.unpack()
		now := make([]float32, len(delta))
		f.t.codec.Decode(now, w.raw)
		f.t.codec.Decode(w.base, raw)
		kernel.Sub(now, now, w.base)
		kernel.Sub(now, delta, now)
		turn(w.left, now)
	}
	return nil
}

// turn lays rows that follow each other side by side.
func turn(dst kernel.Mat, src []float32) {
	n, lanes := dst.Rows, dst.Stride
	rows := len(src) / n
	const tile = 16
	for lo := 0; lo < n; lo += tile {
		for r := range rows {
			to := dst.Data[lo*lanes+r:]
			for i, v := range src[r*n+lo : r*n+min(lo+tile, n)] {
				to[i*lanes] = v
			}
		}
		for i := lo; rows < lanes && i < min(lo+tile, n); i++ {
			clear(dst.Row(i)[rows:])
		}
	}
}

// unpack takes codes, steps, minimums and the frame from the bytes as they are.
func (w *fitWork) unpack() {
	f, subs := w.f, w.f.subs
	step, min := w.rowSteps[:w.rows*subs], w.rowMins[:w.rows*subs]
	f.g.Unpack(w.codes, step, min, w.raw)
	f.g.UnpackFrame(w.frame, w.raw)
	w.takeFrame()
	turn(w.step, step)
	if f.g.HasMin {
		turn(w.min, min)
	}
	n, lanes, levels := f.n, w.values.Stride, &f.levels
	for lo := 0; lo < n; lo += 16 {
		for r := range w.rows {
			to := w.values.Data[lo*lanes+r:]
			codes := (*[16]uint8)(w.codes[r*n+lo:])
			for i, c := range codes {
				to[i*lanes] = levels[c]
			}
		}
		for i := lo; w.rows < lanes && i < lo+16; i++ {
			clear(w.values.Row(i)[w.rows:])
		}
	}
}

// renew quantizes the sum anew in blocks whose levels do not reach it.
func (w *fitWork) renew(raw []byte, delta []float32) (any bool, err error) {
	f, g := w.f, w.f.g
	per := g.Block / g.Sub
	for s := range f.subs {
		step, min := w.step.Row(s), w.min.Row(s)
		for r := range w.rows {
			if w.reached(s, r, step[r], min[r], 0) {
				continue
			}
			at := r*f.blocks + s/per
			block := w.raw[at*g.Bytes : (at+1)*g.Bytes]
			sum, d := w.base[:g.Block], delta[at*g.Block:(at+1)*g.Block]
			f.t.codec.Decode(sum, raw[at*g.Bytes:(at+1)*g.Bytes])
			kernel.Add(sum, d)
			if err := f.t.codec.Encode(block, sum, g.Block, nil); err != nil {
				return any, err
			}
			any = true
		}
	}
	return any, nil
}

// merge makes the rows anew from what begin was given.
func (w *fitWork) merge(stretch float32) {
	f, k := w.f, &w.settled
	mats := [8]*kernel.Mat{&w.left, &w.values, &w.step, &w.min, &w.factor, &w.factorMin, &w.scale, &w.minimum}
	switch {
	case !w.started: // what does not depend on the stretch
		w.started = true
		w.refit(true)
		if w.again {
			k.codes = append(k.codes[:0], w.codes...)
			for i, m := range mats {
				k.mats[i] = append(k.mats[i][:0], m.Data...)
			}
		}
	default:
		copy(w.codes, k.codes)
		for i, m := range mats {
			copy(m.Data, k.mats[i])
		}
	}
	w.round(stretch)
	w.polish()
	w.refit(false)
	w.packFrame()
	f.g.Pack(w.raw, w.codes)
}

func (w *fitWork) result() []byte { return w.raw }

// gains is that of [rowsFit].
func (w *fitWork) gains(told func(r int, rd, dd, ee float64)) (rd, dd float64) {
	in := w.f.in
	lanes := w.products.Cols
	sums := make([]float64, 3*lanes)
	add := func(m kernel.Mat) {
		for q := range 3 {
			for r, v := range m.Row(q) {
				sums[q*lanes+r] += float64(v)
			}
		}
	}
	p := w.products
	for lo := 0; lo < in.n; lo += ldlqBlock {
		p.Zero()
		kernel.ProductColumns(p, in.plain[lo:lo+ldlqBlock], w.delta.Sub(lo, lo+ldlqBlock, 0, lanes), w.left.Sub(lo, lo+ldlqBlock, 0, lanes))
		add(p)
	}
	kernel.GemmTN(nil, w.state, in.z, w.left, false)
	p.Zero()
	kernel.DotColumns(p.Row(0), w.wanted, w.wanted)
	kernel.DotColumns(p.Row(1), w.wanted, w.state)
	kernel.DotColumns(p.Row(2), w.state, w.state)
	add(p)
	for r := range w.rows {
		told(r, sums[r]-sums[lanes+r], sums[r], sums[2*lanes+r])
	}
	if w.again {
		dd = kernel.SumSquares64(w.delta.Data)
		rd = dd - kernel.Dot64(w.delta.Data, w.left.Data)
	}
	return rd, dd
}
