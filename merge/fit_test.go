package merge

import (
	"bytes"
	"context"
	"math"
	"sync"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	_ "github.com/graft-lora/graft/quant"
)

// normal are numbers of a normal distribution (sums of twelve uniform ones).
func normal(name string, n int, scale float64) []float32 {
	s := rng.New(11, name)
	x := make([]float32, n)
	for i := range x {
		sum := -6.0
		for j := range 12 {
			sum += s.Float64(uint64(12*i + j))
		}
		x[i] = float32(scale * sum)
	}
	return x
}

// correlatedMoments are the second moments of inputs as models have them: a few
// directions carry most of them.
var correlatedMoments = sync.OnceValue(func() kernel.Mat {
	const samples, directions, n = 2000, 12, fitTestCols
	x := kernel.NewMat(samples, n)
	copy(x.Data, normal("noise", samples*n, 0.5))
	mix := kernel.Mat{Data: normal("directions", directions*n, 1), Rows: directions, Cols: n, Stride: n}
	weights := kernel.Mat{Data: normal("weights", samples*directions, 1), Rows: samples, Cols: directions, Stride: directions}
	kernel.GemmNN(nil, x, weights, mix, true)
	h := kernel.NewMat(n, n)
	kernel.GemmTN(nil, h, x, x, false)
	kernel.Scale(h.Data, 1.0/samples, h.Data)
	return h
})

// oneMoment gives every tensor the same moments.
type oneMoment struct{ kernel.Mat }

func (m oneMoment) Moments(context.Context, string) (kernel.Mat, error) { return m.Mat, nil }

// stored are rows of a type in memory.
type stored struct {
	typ   format.Type
	codec format.Codec
	cols  int64
	bytes []byte
}

func (s *stored) rowBytes() int64          { n, _ := s.typ.RowBytes(s.cols); return n }
func (s *stored) Dims() (rows, cols int64) { return int64(len(s.bytes)) / s.rowBytes(), s.cols }
func (s *stored) RawType() format.Type     { return s.typ }
func (s *stored) ReadRaw(dst []byte, row int64) error {
	copy(dst, s.bytes[row*s.rowBytes():])
	return nil
}
func (s *stored) ReadRows(dst []float32, row int64) error {
	n := int64(len(dst)) / s.cols
	s.codec.Decode(dst, s.bytes[row*s.rowBytes():(row+n)*s.rowBytes()])
	return nil
}

const fitTestRows, fitTestCols = 40, 512

// fitCase is a small matrix of a type, a rank 4 change of it and moments.
func fitCase(t *testing.T, typ format.Type, part float64) (*target, []float32, kernel.Mat) {
	t.Helper()
	codec, err := format.EncoderOf(typ)
	if err != nil {
		t.Fatal(err)
	}
	w := normal("base", fitTestRows*fitTestCols, 0.02)
	s := &stored{typ: typ, codec: codec, cols: fitTestCols}
	s.bytes = make([]byte, s.rowBytes()*fitTestRows)
	if err := codec.Encode(s.bytes, w, fitTestCols, nil); err != nil {
		t.Fatal(err)
	}
	h := correlatedMoments()
	a := kernel.Mat{Data: normal("a", 4*fitTestCols, 1), Rows: 4, Cols: fitTestCols, Stride: fitTestCols}
	b := kernel.Mat{Data: normal("b", 4*fitTestRows, 1), Rows: fitTestRows, Cols: 4, Stride: 4}
	// A is what training makes of it: a mixture of inputs.
	ah := kernel.NewMat(4, fitTestCols)
	kernel.GemmNN(nil, ah, a, h, false)
	d, err := NewDelta(fitTestRows, fitTestCols, []Term{{A: ah, B: b, Scale: 1}})
	if err != nil {
		t.Fatal(err)
	}
	delta := make([]float32, len(w))
	d.Change(delta, w, 0)
	scale := part * 0.02 / math.Sqrt(kernel.SumSquares64(delta)/float64(len(delta)))
	d.Terms[0].Scale = float32(scale)
	base := make([]float32, len(w))
	codec.Decode(base, s.bytes)
	d.Change(delta, base, 0)
	tg := &target{name: "t", typ: typ, rows: fitTestRows, cols: fitTestCols, codec: codec, raw: s, delta: d}
	tg.onInputs = func(int64, float64, float64, float64) {}
	ready := &readyInputs{from: oneMoment{h}}
	tg.inputs = func(ctx context.Context) (*inputs, error) { return ready.of(ctx, "t") }
	return tg, delta, h
}

// inMoments is <x, y> in h, of rows.
func inMoments(h kernel.Mat, x, y []float32) float64 {
	n := h.Cols
	xh := kernel.NewMat(len(x)/n, n)
	kernel.GemmNN(nil, xh, kernel.Mat{Data: x, Rows: len(x) / n, Cols: n, Stride: n}, h, false)
	var sum float64
	for i, v := range y {
		sum += float64(v) * float64(xh.Data[i])
	}
	return sum
}

// TestFitKeepsOutputs merges changes from a hundredth of a step to several steps and
// compares outputs on inputs with those wanted. The measured relative errors are in
// the table; keep's are 2.6 to 11 times as large.
func TestFitKeepsOutputs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ    format.Type
		errors [3]float64 // at changes of 0.3 %, 3 % and 30 % of the weights
	}{
		{format.Q4_0, [3]float64{0.3240, 0.0606, 0.0103}},
		{format.Q4_1, [3]float64{0.2892, 0.0556, 0.0079}},
		{format.Q5_0, [3]float64{0.2069, 0.0325, 0.0050}},
		{format.Q5_1, [3]float64{0.1661, 0.0287, 0.0035}},
		{format.Q8_0, [3]float64{0.0370, 0.0044, 0.0006}},
		{format.Q2_K, [3]float64{0.8657, 0.1451, 0.0311}},
		{format.Q3_K, [3]float64{0.4774, 0.1068, 0.0141}},
		{format.Q4_K, [3]float64{0.3432, 0.0624, 0.0067}},
		{format.Q5_K, [3]float64{0.2293, 0.0314, 0.0033}},
		{format.Q6_K, [3]float64{0.1226, 0.0159, 0.0016}},
		{format.IQ4_NL, [3]float64{0.3264, 0.0580, 0.0092}},
		{format.IQ4_XS, [3]float64{0.3694, 0.0639, 0.0070}},
	} {
		for i, part := range []float64{0.003, 0.03, 0.3} {
			gain, fit := fitOnce(t, openFit, c.typ, part)
			_, keep := fitOnce(t, openKeep, c.typ, part)
			t.Logf("%v, change %g: gain %.4f, error %.4f, keep %.4f", c.typ, part, gain, fit, keep)
			if fit > 1.05*c.errors[i]+1e-4 || fit > keep/2 || math.Abs(gain-1) > 0.015 {
				t.Errorf("%v, change %g: gain %.4f, error %.4f (keep %.4f)", c.typ, part, gain, fit, keep)
			}
		}
	}
}

// fitOnce merges by a method and returns the gain and the relative error of outputs.
func fitOnce(t *testing.T, open func(*target) (encoder, error), typ format.Type, part float64) (gain, relativeError float64) {
	t.Helper()
	tg, delta, h := fitCase(t, typ, part)
	enc, err := open(tg)
	if err != nil {
		t.Fatal(err)
	}
	if tg.prepare != nil {
		if err := tg.prepare(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	raw := tg.raw.(*stored).bytes
	dst := make([]byte, len(raw))
	if err := enc(dst, raw, delta, 0); err != nil {
		t.Fatal(err)
	}
	base, now := make([]float32, len(delta)), make([]float32, len(delta))
	tg.codec.Decode(base, raw)
	tg.codec.Decode(now, dst)
	e := make([]float32, len(delta))
	for i := range now {
		now[i] -= base[i]
		e[i] = now[i] - delta[i]
	}
	dd := inMoments(h, delta, delta)
	return inMoments(h, now, delta) / dd, math.Sqrt(inMoments(h, e, e) / dd)
}

// TestFitBytes merges a tensor as a plan does, with one thread and many, in large
// blocks and small ones: the same bytes. Without moments they are those of keep.
func TestFitBytes(t *testing.T) {
	t.Parallel()
	for _, typ := range []format.Type{format.Q4_0, format.Q5_1, format.Q4_K, format.Q6_K} {
		tg, _, h := fitCase(t, typ, 0.01)
		v := &format.View{Name: "blk.0.attn_q.weight", Type: typ, Shape: []int64{fitTestRows, fitTestCols}, Rows: tg.raw.(*stored)}
		base := arch.NewModel("base", &gguf.Meta{}, []*format.View{v})
		ds := Deltas{v.Name: tg.delta}
		merge := func(opt Options, run format.RunOptions) ([]byte, *Report) {
			plan, report, err := NewPlan(base, ds, opt)
			if err != nil {
				t.Fatal(err)
			}
			var out bytesSink
			if err := format.Run(context.Background(), plan, &out, run); err != nil {
				t.Fatal(err)
			}
			report.Finish()
			return out.Bytes(), report
		}
		with := Options{Method: "fit", Moments: oneMoment{h}}
		want, report := merge(with, format.RunOptions{Threads: 1})
		for _, run := range []format.RunOptions{{Threads: 4, Memory: 100000}, {Threads: 3, Memory: 1}} {
			if got, _ := merge(with, run); !bytes.Equal(got, want) {
				t.Errorf("%v: %+v gives other bytes", typ, run)
			}
		}
		if g := report.Total.GainOnInputs; math.Abs(g-1) > 0.01 {
			t.Errorf("%v: the report's gain on inputs is %g", typ, g)
		}
		without, _ := merge(Options{Method: "fit"}, format.RunOptions{})
		keep, _ := merge(Options{Method: "keep"}, format.RunOptions{})
		if !bytes.Equal(without, keep) {
			t.Errorf("%v: without moments the bytes are not those of keep", typ)
		}
	}
}

type bytesSink struct{ bytes.Buffer }

func (*bytesSink) Begin(int) error { return nil }

// TestLattice solves small problems whose answers are known, and compares compensated
// rounding with rounding to nearest: over the trials it costs 0.67 of it.
func TestLattice(t *testing.T) {
	t.Parallel()
	const p = 5
	x := normal("lattice", 40*p*p, 1)
	var compensated, plain float64
	for trial := range 20 {
		a := x[trial*p*p:]
		g, b := make([]float64, p*p), make([]float64, p)
		for i := range p {
			for j := range p {
				for k := range p {
					g[i*p+j] += float64(a[i*p+k]) * float64(a[j*p+k])
				}
			}
			g[i*p+i] += 0.5
		}
		want := x[(20+trial)*p*p:][:p]
		for i := range p {
			for j := range p {
				b[i] += g[i*p+j] * float64(want[j])
			}
		}
		cost := func(v [p]float64) (sum float64) {
			for i := range p {
				for j := range p {
					sum += (v[i] - float64(want[i])) * g[i*p+j] * (v[j] - float64(want[j]))
				}
			}
			return sum
		}
		var l lattice
		l.resize(p)
		copy(l.g, g)
		copy(l.b, b)
		l.solve()
		for i := range p {
			if math.Abs(l.y[i]-float64(want[i])) > 1e-9 {
				t.Fatalf("y[%d] = %g, want %g", i, l.y[i], want[i])
			}
		}
		var got, nearest [p]float64
		better := l.round(func(v int, y float64) float64 { got[v] = math.Round(y); return got[v] })
		for i := range p {
			nearest[i] = math.Round(float64(want[i]))
		}
		if better != (cost(got) < cost([p]float64{})) {
			t.Errorf("trial %d: better is %v, the costs are %g and %g", trial, better, cost(got), cost([p]float64{}))
		}
		compensated, plain = compensated+cost(got), plain+cost(nearest)
	}
	t.Logf("%g of rounding to nearest", compensated/plain)
	if compensated > 0.8*plain {
		t.Errorf("compensated rounding costs %g, rounding to nearest %g", compensated, plain)
	}
}

// TestFactorise multiplies the factors again: the largest error is 1.3e-7 of the largest
// element. What is not positive definite is refused.
func TestFactorise(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 5, 64, 65, 300} {
		h := correlatedMoments().Sub(0, n, 0, n)
		in, err := newInputs(h)
		if err != nil {
			t.Fatal(err)
		}
		// D_j = h_jj - sum over k<j of D_k L_jk².
		d := make([]float64, n)
		var worst, largest float64
		for i := range n {
			for j := range i + 1 {
				var sum float64
				for k := range j {
					lik, ljk := float64(in.unit.Row(i)[k]), float64(in.unit.Row(j)[k])
					sum += d[k] * lik * ljk
				}
				want := float64(in.h.Row(i)[j])
				if i == j {
					d[i] = want - sum
					continue
				}
				largest = math.Max(largest, math.Abs(want))
				worst = math.Max(worst, math.Abs(sum+d[j]*float64(in.unit.Row(i)[j])-want))
			}
		}
		if worst > 1e-6*largest {
			t.Errorf("%d inputs: the factors' product is off by %g", n, worst)
		}
	}
	// Rounding has left an eigenvalue of -0.03: ten times the damping holds it up.
	in, err := newInputs(kernel.Mat{Data: []float32{1, 1.03, 1.03, 1}, Rows: 2, Cols: 2, Stride: 2})
	if err != nil || in.damping != 10*damping {
		t.Errorf("almost singular moments: damping %v, %v", in, err)
	}
	for name, h := range map[string][]float32{"indefinite": {1, 2, 2, 1}, "nothing": {0, 0, 0, 0}, "NaN": {float32(math.NaN()), 0, 0, 1}} {
		if _, err := newInputs(kernel.Mat{Data: h, Rows: 2, Cols: 2, Stride: 2}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
