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
	"github.com/graft-lora/graft/quant"
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

// correlated are second moments of inputs as models have them: a few directions carry most of
// them. As a whole, they are h.
var correlated = sync.OnceValue(func() (m fixedMoments) {
	const directions, n = 12, fitTestCols
	m.z = kernel.NewMat(n, directions)
	copy(m.z.Data, normal("directions", n*directions, 1))
	m.rest = make([]float32, n)
	for i, v := range normal("rest", n, 0.1) {
		m.rest[i] = 0.25 + float32(v*v)
	}
	m.h = kernel.NewMat(n, n)
	kernel.GemmNT(nil, m.h, m.z, m.z, false)
	for i, v := range m.rest {
		m.h.Row(i)[i] += v
	}
	return m
})

// fixedMoments gives every tensor the same moments.
type fixedMoments struct {
	rest []float32
	z, h kernel.Mat
}

func (m fixedMoments) Moments(context.Context, string) ([]float32, kernel.Mat, error) {
	return m.rest, m.z, nil
}

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
	ones := make([]float32, fitTestCols) // which some types insist on
	for i := range ones {
		ones[i] = 1
	}
	if err := codec.Encode(s.bytes, w, fitTestCols, ones); err != nil {
		t.Fatal(err)
	}
	h := correlated().h
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
	tg := &target{guess: new(float32), name: "t", typ: typ, rows: fitTestRows, cols: fitTestCols, codec: codec, raw: s, delta: d}
	tg.onInputs = func(int64, float64, float64, float64) {}
	ready := &readyInputs{from: correlated()}
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
// the table; keep's are 1.8 to 11 times as large.
func TestFitKeepsOutputs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ    format.Type
		errors [3]float64 // at changes of 0.3 %, 3 % and 30 % of the weights
	}{
		{format.Q4_0, [3]float64{0.3081, 0.0627, 0.0100}},
		{format.Q4_1, [3]float64{0.2319, 0.0585, 0.0080}},
		{format.Q5_0, [3]float64{0.2107, 0.0342, 0.0050}},
		{format.Q5_1, [3]float64{0.1596, 0.0305, 0.0037}},
		{format.Q8_0, [3]float64{0.0388, 0.0045, 0.0006}},
		{format.Q2_K, [3]float64{0.8097, 0.1510, 0.0303}},
		{format.Q3_K, [3]float64{0.3625, 0.1073, 0.0142}},
		{format.Q4_K, [3]float64{0.3022, 0.0685, 0.0067}},
		{format.Q5_K, [3]float64{0.2244, 0.0338, 0.0034}},
		{format.Q6_K, [3]float64{0.1209, 0.0163, 0.0017}},
		{format.Q2_0, [3]float64{1.0901, 0.3078, 0.1105}},
		{format.TQ2_0, [3]float64{1.5788, 0.3873, 0.0786}},
		{format.Q1_0, [3]float64{1.1036, 0.2450, 0.1309}},
		{format.MXFP4, [3]float64{0.3068, 0.0522, 0.0091}},
		{format.NVFP4, [3]float64{0.2635, 0.0481, 0.0084}},
		{format.IQ4_NL, [3]float64{0.2877, 0.0619, 0.0087}},
		{format.IQ4_XS, [3]float64{0.3232, 0.0680, 0.0074}},
	} {
		for i, part := range []float64{0.003, 0.03, 0.3} {
			gain, fit := fitOnce(t, openFit, c.typ, part)
			_, keep := fitOnce(t, openKeep, c.typ, part)
			t.Logf("%v, change %g: gain %.4f, error %.4f, keep %.4f", c.typ, part, gain, fit, keep)
			if fit > 1.05*c.errors[i]+1e-4 || fit > 0.6*keep || math.Abs(gain-1) > 0.015 && len(mustGrid(c.typ).Levels) > 4 || math.Abs(gain-1) > 0.15 {
				t.Errorf("%v, change %g: gain %.4f, error %.4f (keep %.4f)", c.typ, part, gain, fit, keep)
			}
		}
	}
}

func mustGrid(t format.Type) *quant.Grid { g, _ := quant.GridOf(t); return g }

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
		tg, _, _ := fitCase(t, typ, 0.01)
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
		with := Options{Method: "fit", Moments: correlated()}
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

// TestInputs multiplies the factors of h again: L_ij is z_i·w_j. The largest error is 2e-7 of
// the largest element. Fewer directions leave the diagonal as it is; what is no such moments is
// refused.
func TestInputs(t *testing.T) {
	t.Parallel()
	m := correlated()
	wide := kernel.NewMat(fitTestCols, fitRank+8)
	copy(wide.Data, normal("wide", len(wide.Data), 0.2))
	for _, z := range []kernel.Mat{m.z, wide} {
		in, err := newInputs(m.rest[:96], z.Sub(0, 96, 0, z.Cols))
		if err != nil {
			t.Fatal(err)
		}
		n := in.n
		// D_j = h_jj - sum over k<j of D_k L_jk².
		d := make([]float64, n)
		var worst, largest, mean float64
		for i := range n {
			few := float64(in.fewRest[i]) + float64(kernel.Dot(in.few.Row(i), in.few.Row(i)))
			worst = math.Max(worst, math.Abs(few-float64(in.diag[i])))
			mean += float64(in.diag[i]) / float64(n)
			for j := range i + 1 {
				var sum float64
				for k := range j {
					sum += d[k] * float64(kernel.Dot(in.z.Row(i), in.w.Row(k))) * float64(kernel.Dot(in.z.Row(j), in.w.Row(k)))
				}
				want := float64(kernel.Dot(in.z.Row(i), in.z.Row(j)))
				if i == j {
					want += float64(in.rest[i])
					d[i] = want - sum
					continue
				}
				l := float64(kernel.Dot(in.z.Row(i), in.w.Row(j)))
				if i/ldlqBlock == j/ldlqBlock && math.Abs(l-float64(in.unit.Row(j)[i%ldlqBlock])) > 1e-6 {
					t.Errorf("L of %d and %d is %g and %g", i, j, l, in.unit.Row(j)[i%ldlqBlock])
				}
				largest = math.Max(largest, math.Abs(want))
				worst = math.Max(worst, math.Abs(sum+d[j]*l-want))
			}
		}
		if worst > 2e-6*largest || math.Abs(mean-1-damping) > 1e-5 {
			t.Errorf("rank %d: the factors' product is off by %g of %g, the mean diagonal is %g", z.Cols, worst, largest, mean)
		}
	}
	z := kernel.NewMat(32, 1)
	for name, rest := range map[string]float32{"nothing": 0, "NaN": float32(math.NaN()), "negative": -1} {
		r := make([]float32, 32)
		r[3], r[4] = rest, 2*max(rest, -rest)
		if _, err := newInputs(r, z); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestSystem solves small problems whose answers are known, and rounds them: over the trials
// that costs 0.6 of rounding every number to the nearest.
func TestSystem(t *testing.T) {
	t.Parallel()
	const places, k = 5, 3
	x := normal("system", 40*2*places*(k+3), 1)
	var together, plain float64
	for trial := range 40 {
		y := &system{}
		n := places
		if trial%2 == 1 {
			n = 2 * places
		}
		y.resize(n, k)
		at := x[trial*2*places*(k+3):]
		copy(y.z, at[:n*k])
		g := make([]float64, n*n)
		for v := range n {
			y.scale2[v] = math.Abs(float64(at[n*k+v])) + 0.2
			g[v*n+v] = y.scale2[v]
		}
		want := make([]float64, n)
		for i := range n {
			want[i] = 3 * float64(at[n*k+2*places+i])
			y.fixed[i] = trial%4 > 1 && i == 2
			if y.fixed[i] {
				want[i] = 0
			}
			for j := range n {
				g[i*n+j] += float64(kernel.Dot(y.row(i), y.row(j)))
			}
		}
		for i := range n {
			y.b[i] = 0
			for j := range n {
				y.b[i] += g[i*n+j] * want[j]
			}
		}
		y.solve()
		for i := range want {
			if math.Abs(y.x[i]-want[i]) > 1e-3 {
				t.Fatalf("trial %d: x[%d] = %g, want %g", trial, i, y.x[i], want[i])
			}
		}
		cost := func(v []float64) (sum float64) {
			for i := range n {
				for j := range n {
					sum += (v[i] - want[i]) * g[i*n+j] * (v[j] - want[j])
				}
			}
			return sum
		}
		nearest := make([]float64, n)
		for i := range nearest {
			nearest[i] = math.Round(want[i])
		}
		better := y.round(func(_ int, v float64) float64 { return math.Round(v) })
		if zero := cost(make([]float64, n)); better != (cost(y.x) < zero) {
			t.Errorf("trial %d: better is %v, the costs are %g and %g", trial, better, cost(y.x), zero)
		}
		together, plain = together+cost(y.x), plain+cost(nearest)
	}
	t.Logf("%g of rounding to nearest", together/plain)
	if together > 0.65*plain {
		t.Errorf("rounding together costs %g, to nearest %g", together, plain)
	}
}

// TestFitGroups merges changes into the types that code weights in groups. The relative errors of
// outputs are in the table.
func TestFitGroups(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ    format.Type
		errors [2]float64 // at changes of 0.3 % and 30 % of the weights
	}{
		{format.IQ1_S, [2]float64{1.1988, 0.0916}},
		{format.IQ1_M, [2]float64{1.1236, 0.0876}},
		{format.IQ2_XXS, [2]float64{0.9144, 0.0902}},
		{format.IQ2_XS, [2]float64{0.9211, 0.0829}},
		{format.IQ2_S, [2]float64{0.7846, 0.0859}},
		{format.IQ3_XXS, [2]float64{0.5078, 0.0812}},
		{format.IQ3_S, [2]float64{0.4620, 0.0848}},
	} {
		for i, part := range []float64{0.003, 0.3} {
			gain, fit := fitOnce(t, openFit, c.typ, part)
			if fit > 1.05*c.errors[i] || math.Abs(gain-1) > 0.1 {
				t.Errorf("%v, change %g: gain %.4f, error %.4f", c.typ, part, gain, fit)
			}
		}
		tg, _, _ := fitCase(t, c.typ, 0.01)
		tg.inputs = func(context.Context) (*inputs, error) { return nil, nil }
		if _, err := openFit(tg); err != nil {
			t.Fatal(err)
		}
		if err := tg.prepare(context.Background()); err == nil {
			t.Errorf("%v: codes are moved without moments", c.typ)
		}
	}
	// The report counts groups that moved, not values that another factor changes.
	tg, _, _ := fitCase(t, format.IQ3_S, 0.003)
	v := &format.View{Name: "blk.0.attn_q.weight", Type: format.IQ3_S, Shape: []int64{fitTestRows, fitTestCols}, Rows: tg.raw.(*stored)}
	base := arch.NewModel("base", &gguf.Meta{}, []*format.View{v})
	plan, report, err := NewPlan(base, Deltas{v.Name: tg.delta}, Options{Method: "fit", Moments: correlated()})
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Run(context.Background(), plan, nowhere{}, format.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	report.Finish()
	if c := report.Total.Changed; c == 0 || c%8 != 0 || c > fitTestRows*fitTestCols/8 {
		t.Errorf("%d of %d codes have changed", c, report.Total.Elements)
	}
}

// TestFitSmall: a change of a thousandth of a step is there as a whole, in codes that are moved
// for it one in many.
func TestFitSmall(t *testing.T) {
	t.Parallel()
	for _, typ := range []format.Type{format.Q4_0, format.Q4_1, format.Q4_K} {
		if gain, _ := fitOnce(t, openFit, typ, 0.0002); math.Abs(gain-1) > 0.03 {
			t.Errorf("%v: gain %.4f", typ, gain)
		}
	}
}
