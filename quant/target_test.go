package quant

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/testutil"
)

// matrixView is a view of values in memory.
func matrixView(name string, x []float32, shape ...int64) *format.View {
	return &format.View{Name: name, Type: format.F32, Shape: shape, Rows: &floatRows{x, shape[len(shape)-1]}}
}

func normals(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// TestRelativeErrors compares with the sums over all rows made here, with and without
// importance, and for a stack whose matrices have importances of their own.
func TestRelativeErrors(t *testing.T) {
	t.Parallel()
	const rows, cols = 6, 512
	x := normals(1, rows*cols)
	w := make([]float32, 2*cols)
	for i := range w {
		w[i] = float32(i%7) + 0.5
	}
	types := []format.Type{format.Q4_K, format.Q8_0, format.F16}
	for name, c := range map[string]struct {
		view    *format.View
		weights []float32
	}{
		"plain":    {matrixView("m", x, rows, cols), nil},
		"weighted": {matrixView("m", x, rows, cols), w[:cols]},
		"stack":    {matrixView("m", x, 2, rows/2, cols), w},
	} {
		got, err := relativeErrors(context.Background(), c.view, types, c.weights)
		if err != nil {
			t.Fatal(err)
		}
		for k, typ := range types {
			var noise, signal float64
			back := make([]float32, cols)
			for r := range rows {
				row := x[r*cols : (r+1)*cols]
				var cw []float32
				if c.weights != nil {
					m := r / (rows / (len(c.weights) / cols))
					cw = c.weights[m*cols : (m+1)*cols]
				}
				if err := roundTrip(back, row, typ, cw); err != nil {
					t.Fatal(err)
				}
				for i, v := range row {
					f := 1.0
					if cw != nil {
						f = float64(cw[i])
					}
					noise += f * (float64(v) - float64(back[i])) * (float64(v) - float64(back[i]))
					signal += f * float64(v) * float64(v)
				}
			}
			if want := noise / signal; math.Abs(got[k]-want) > 1e-12*want {
				t.Errorf("%s as %v: %v, want %v", name, typ, got[k], want)
			}
		}
		if !slices.IsSortedFunc(got, func(a, b float64) int { return int(math.Copysign(1, b-a)) }) {
			t.Errorf("%s: larger types lose more: %v", name, got)
		}
	}
}

// TestHull: what stays is convex, falls in cost, and no candidate lies below it.
func TestHull(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var c []Candidate
		for range rapid.IntRange(1, 12).Draw(t, "n") {
			c = append(c, Candidate{Bytes: rapid.Int64Range(1, 40).Draw(t, "bytes"), Cost: rapid.Float64Range(0, 1).Draw(t, "cost")})
		}
		slices.SortStableFunc(c, func(a, b Candidate) int { return int(a.Bytes - b.Bytes) })
		h := hull(c)
		slope := math.Inf(-1)
		for i := 1; i < len(h); i++ {
			s := (h[i].Cost - h[i-1].Cost) / float64(h[i].Bytes-h[i-1].Bytes)
			if h[i].Bytes <= h[i-1].Bytes || s >= 0 || s < slope {
				t.Fatalf("%+v is no hull", h)
			}
			slope = s
		}
		for _, p := range c {
			for i := 1; i < len(h); i++ {
				a, b := h[i-1], h[i]
				if p.Bytes < a.Bytes || p.Bytes > b.Bytes {
					continue
				}
				line := a.Cost + (b.Cost-a.Cost)*float64(p.Bytes-a.Bytes)/float64(b.Bytes-a.Bytes)
				if p.Cost < line-1e-9 {
					t.Fatalf("%+v lies below %+v to %+v", p, a, b)
				}
			}
		}
	})
}

// TestPlanTarget: the file is as large as asked and not more, what was fixed stays
// fixed, and no exchange of one step up for one step down would cost less.
func TestPlanTarget(t *testing.T) {
	t.Parallel()
	src := sprigSource(t, "sprig-f16.gguf")
	m, err := ReadImatrix(testutil.Shared(t, "models", "sprig", "imatrix.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	fixed, err := ParseTensorType("blk\\.2\\.ffn_up=q8_0")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	k := []format.Type{format.Q3_K, format.Q4_K, format.Q5_K, format.Q6_K}
	for _, c := range []struct {
		name   string
		opt    Options
		target Target
	}{
		{"bits", Options{Imatrix: m}, Target{BitsPerWeight: 5, Types: k}},
		{"bytes", Options{}, Target{Bytes: 2_000_000, Types: k}},
		{"fixed", Options{Recipe: Recipe{TensorTypes: []TensorType{fixed}}}, Target{BitsPerWeight: 5.5, Types: k}},
	} {
		opt, choices, err := PlanTarget(ctx, src, c.opt, c.target)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		plan, meta, err := NewPlan(src, opt)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		l, err := gguf.LayoutOf("x.gguf", meta, plan, gguf.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var elements int64
		for _, o := range plan.Outputs {
			n, _ := format.Elements(o.Shape)
			elements += n
		}
		size, budget := l.Size(), c.target.Bytes
		if budget == 0 {
			size, budget = plan.Size(), int64(c.target.BitsPerWeight*float64(elements)/8)
		}
		if size > budget || float64(size) < 0.985*float64(budget) {
			t.Errorf("%s: %d bytes, asked for %d", c.name, size, budget)
		}
		if info, _ := opt.Recipe.FileType.Info(); !slices.Contains(k, info.Default) {
			t.Errorf("%s: the file type is %v", c.name, info.Name)
		}
		want := 29
		if c.name == "fixed" {
			want = 28
			for _, o := range plan.Outputs {
				if o.Name == "blk.2.ffn_up.weight" && o.Type != format.Q8_0 {
					t.Errorf("a fixed tensor is %v", o.Type)
				}
			}
		}
		if len(choices) != want {
			t.Errorf("%s: %d tensors were chosen, want %d", c.name, len(choices), want)
		}
		checkSteps(t, c.name, choices)
	}
}

// checkSteps: the least gain for a byte of a step that was taken is no less than the
// largest of one that was not, but for those too large for what was left.
func checkSteps(t *testing.T, name string, choices []TargetChoice) {
	t.Helper()
	taken := math.Inf(1)
	type step struct {
		gain  float64
		bytes int64
	}
	var refused []step
	for _, c := range choices {
		h := hull(c.Options)
		at := slices.IndexFunc(h, func(x Candidate) bool { return x.Type == c.Chosen.Type })
		if at < 0 {
			t.Fatalf("%s: %s: %v is not on the hull", name, c.Tensor, c.Chosen.Type)
		}
		for i := 1; i < len(h); i++ {
			s := step{(h[i-1].Cost - h[i].Cost) / float64(padded(h[i].Bytes)-padded(h[i-1].Bytes)), padded(h[i].Bytes) - padded(h[i-1].Bytes)}
			if i <= at {
				taken = min(taken, s.gain)
			} else {
				refused = append(refused, s)
				break
			}
		}
	}
	smallest := int64(math.MaxInt64)
	for _, s := range refused {
		smallest = min(smallest, s.bytes)
	}
	for _, s := range refused {
		if s.gain > taken && s.bytes <= smallest {
			t.Errorf("%s: a step that gains %.3g a byte was refused, one that gains %.3g taken", name, s.gain, taken)
		}
	}
}

func TestPlanTargetRefuses(t *testing.T) {
	t.Parallel()
	src := sprigSource(t, "sprig-f16.gguf")
	quantized := sprigSource(t, "sprig-q4_k_m.gguf")
	var usage *format.UsageError
	for name, c := range map[string]struct {
		src    Source
		target Target
		words  string
	}{
		"no target":   {src, Target{}, "one of them"},
		"two targets": {src, Target{Bytes: 1, BitsPerWeight: 4}, "one of them"},
		"too small":   {src, Target{Bytes: 100_000, Types: []format.Type{format.Q4_K}}, "bytes less than"},
		"tiny":        {src, Target{Bytes: 10}, "fewer than"},
		"quantized":   {quantized, Target{BitsPerWeight: 4}, "already"},
		"unfit":       {src, Target{BitsPerWeight: 3, Types: []format.Type{format.IQ2_XS}}, "none of the types"},
	} {
		if _, _, err := PlanTarget(context.Background(), c.src, Options{}, c.target); !errors.As(err, &usage) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := PlanTarget(ctx, src, Options{}, Target{BitsPerWeight: 5}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNoisy: the rows of a noisy tensor are those that encoding gives, read in any
// pieces, and its noise is what they differ by.
func TestNoisy(t *testing.T) {
	t.Parallel()
	for cols, typ := range map[int64]format.Type{256: format.Q3_K, 96: format.Q4_0} {
		const rows = 8
		x := normals(uint64(cols), int(rows*cols))
		w := make([]float32, 2*cols)
		for i := range w {
			w[i] = 1 + float32(i%3)
		}
		m := &Imatrix{Entries: []ImatrixEntry{{Name: "blk.0.ffn_up_exps.weight", Sums: w, Counts: []float32{1, 1}}}}
		v := matrixView("blk.0.ffn_up_exps.weight", x, 2, rows/2, cols)
		noisy, noise, err := Noisy(context.Background(), v, m)
		if err != nil {
			t.Fatal(err)
		}
		got := allRows(t, noisy.Rows)
		var sum, signal float64
		back := make([]float32, cols)
		for r := range int64(rows) {
			row, cw := x[r*cols:(r+1)*cols], w[r/4*cols:(r/4+1)*cols]
			if err := roundTrip(back, row, typ, cw); err != nil {
				t.Fatal(err)
			}
			sameBits(t, "row", got[r*cols:(r+1)*cols], back)
			one := make([]float32, cols)
			if err := noisy.Rows.ReadRows(one, r); err != nil {
				t.Fatal(err)
			}
			sameBits(t, "one row", one, back)
			sum += weightedSquares(row, back, cw)
			signal += weightedSquares(row, nil, cw)
		}
		if want := sum / signal; math.Abs(noise-want) > 1e-12*want {
			t.Errorf("%d columns: noise %v, want %v", cols, noise, want)
		}
	}
	v := matrixView("blk.0.attn_q.weight", normals(3, 40), 2, 20)
	if same, noise, err := Noisy(context.Background(), v, nil); err != nil || noise != 0 || same != v {
		t.Errorf("rows of 20: %v, %v", noise, err)
	}
	for name, want := range map[string]string{"blk.0.attn_q.weight": "attn_q", "token_embd.weight": "token_embd", "blk.0.attn_norm.weight": "", "blk.0.ffn_gate_inp.weight": ""} {
		if got := TargetKind(matrixView(name, nil, 4, 4)); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
}
