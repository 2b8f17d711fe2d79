package merge

import (
	"fmt"
	"math"
	"sync"
)

// rowFitter is what the fitters of all types share: rows of one tensor are worked on some
// together, by works that are used again, towards a stretched change.
type rowFitter struct {
	t         *target
	in        *inputs // nil until something is known of them
	n, blocks int
	rowBytes  int
	batch     int // rows worked on together
	stretch   float32
	works     *sync.Pool
	// work makes a work, of one of another tensor's (or nil) where that fits.
	work func(rowsFit) rowsFit
}

// rowsFit is the work on some rows.
type rowsFit interface {
	// begin takes rows of the base and the change wanted of them; with again, merge may be
	// called more than once.
	begin(raw []byte, delta []float32, again bool) error
	// merge makes the rows anew from what begin was given.
	merge(stretch float32)
	result() []byte
	// gains tells <R, D>, <D, D> and <D-R, D-R> in H of every row and, if merge may be called again,
	// returns the first two as they are without H, of all.
	gains(told func(r int, rd, dd, ee float64)) (rd, dd float64)
}

func (f *rowFitter) open(t *target, block, bytes int, work func(rowsFit) rowsFit) {
	f.t, f.n, f.blocks = t, t.cols, t.cols/block
	f.rowBytes = f.blocks * bytes
	f.batch = max(fitLanes, min(fitRows, fitBytes/(36*f.n)/fitLanes*fitLanes))
	t.together = int64(f.batch)
	f.work, f.works = work, t.works
	if f.works == nil {
		f.works = new(sync.Pool)
	}
}

// know takes what is known of the inputs.
func (f *rowFitter) know(in *inputs) error {
	if in.n != f.n {
		return fmt.Errorf("moments of %d inputs for a matrix of %d", in.n, f.n)
	}
	f.in = in
	return nil
}

// close gives back what the inputs hold.
func (f *rowFitter) close() { f.in = nil }

// begin begins with rows; done with the work gives it back.
func (f *rowFitter) begin(raw []byte, delta []float32, again bool) (w rowsFit, err error) {
	old, _ := f.works.Get().(rowsFit)
	w = f.work(old)
	if err := w.begin(raw, delta, again); err != nil {
		return nil, err
	}
	return w, nil
}

func (f *rowFitter) done(w rowsFit) { f.works.Put(w) }

// encode is the [encoder] of the rows, once the stretch is known. It is safe for concurrent use.
func (f *rowFitter) encode(dst, raw []byte, delta []float32, row int64) error {
	for i := 0; i*f.n < len(delta); i += f.batch {
		to := min(i+f.batch, len(delta)/f.n)
		w, err := f.begin(raw[i*f.rowBytes:to*f.rowBytes], delta[i*f.n:to*f.n], false)
		if err != nil {
			return fmt.Errorf("rows from %d: %w", row, err)
		}
		w.merge(f.stretch)
		copy(dst[i*f.rowBytes:], w.result())
		w.gains(func(at int, rd, dd, ee float64) { f.t.onInputs(row+int64(i+at), rd, dd, ee) })
		f.done(w)
	}
	return nil
}

// sample reads rows spread over the tensor, and the change of them.
func (t *target) sample(most, rowBytes int) (raw []byte, delta []float32, err error) {
	rows := int(t.rows)
	n := min(rows, fitSample, most)
	raw, delta = make([]byte, n*rowBytes), make([]float32, n*t.cols)
	base := make([]float32, t.cols)
	for i := range n {
		row := int64(i * rows / n)
		one := raw[i*rowBytes : (i+1)*rowBytes]
		if err := t.raw.ReadRaw(one, row); err != nil {
			return nil, nil, err
		}
		t.codec.Decode(base, one)
		t.delta.Change(delta[i*t.cols:(i+1)*t.cols], base, row)
	}
	return raw, delta, nil
}

// findStretch finds the stretch with which a sample of the rows reaches the gain aimed at.
func (f *rowFitter) findStretch() error {
	raw, delta, err := f.t.sample(f.batch, f.rowBytes)
	if err != nil {
		return err
	}
	w, err := f.begin(raw, delta, true)
	if err != nil {
		return err
	}
	defer f.done(w)
	s := solveStretch(*f.t.guess, func(stretch float32) float64 {
		w.merge(stretch)
		var rd, dd float64
		plain, all := w.gains(func(_ int, a, b, _ float64) { rd, dd = rd+a, dd+b })
		if !(dd > 0) || all == 0 {
			return 1
		}
		return rd/dd - float64(fitBeyond*(1-plain/all))
	})
	if math.IsNaN(float64(s)) {
		s = 1
	}
	*f.t.guess, f.stretch = s, s
	return nil
}

// solveStretch finds the stretch between 1 and maxStretch at which gain is 1, from a guess; gain
// rises with the stretch, at most about as fast as its logarithm, but for small jumps.
func solveStretch(guess float32, gain func(float32) float64) float32 {
	const near, tries = 0.0035, 10
	x := min(max(guess, 1), maxStretch)
	best, least := x, math.Inf(1)
	var lo, hi float32 // gain is below 1 and above
	var below, above float64
	step := float32(0) // the part that x was changed by
	for range tries {
		g := gain(x) - 1
		if !(math.Abs(g) > near) || g < 0 && x == maxStretch || g > 0 && x == 1 {
			return x
		}
		if math.Abs(g) < least {
			best, least = x, math.Abs(g)
		}
		last := below
		if g < 0 {
			lo, below = x, g
		} else {
			last = above
			hi, above = x, g
		}
		if lo != 0 && hi != 0 { // between the two, and not at the end of it
			part := min(max(below/(below-above), 0.1), 0.9)
			x = lo + float32((hi-lo)*float32(part))
			continue
		}
		to := float32(1.2 * math.Abs(g))
		if step != 0 { // as the last step went, and a little more
			to = float32(1.2*math.Abs(g/(g-last))) * step
		}
		step = min(max(to, 1.5*step), 1)
		if g < 0 {
			x = min(x*(1+step), maxStretch)
		} else {
			x = max(x/(1+step), 1)
		}
	}
	return best
}
