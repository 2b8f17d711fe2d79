package train

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// TestInputMoments compares the moments of every matrix of sprig, an adapter active,
// with sums in float64 of what the model's hook shows: the diagonal is theirs, and of what is
// beside it four fifths are there. Any memory, any division into passes and any number of threads
// gives the same bytes.
func TestInputMoments(t *testing.T) {
	t.Parallel()
	b := openSprig(t, "sprig-q4_k_m.gguf", model.Options{})
	ad, err := b.LoadAdapter(testutil.Shared(t, "oracle", "train", "sprig-q4km", "final"))
	if err != nil {
		t.Fatal(err)
	}
	active := model.Scaled{Adapter: ad, Weight: 1}
	samples, err := b.EvalData(testutil.Shared(t, "models", "sprig", "identity-eval.jsonl"), 256, data.Options{}, data.Fields{})
	if err != nil {
		t.Fatal(err)
	}
	samples = samples[:4]
	want := map[string][]float64{}
	tokens := map[string]int{}
	b.Model.OnInput = func(name string, x kernel.Mat) {
		h := want[name]
		if h == nil {
			h = make([]float64, x.Cols*x.Cols)
			want[name] = h
		}
		for r := range x.Rows {
			row := x.Row(r)
			for i, v := range row {
				for j, w := range row[:i+1] {
					h[i*x.Cols+j] += float64(v) * float64(w)
				}
			}
		}
		tokens[name] += x.Rows
	}
	for _, s := range samples {
		if _, err := b.Model.Loss(batchOf([]data.Sample{s}), active); err != nil {
			t.Fatal(err)
		}
	}
	b.Model.OnInput = nil
	names := b.Model.Matrices()
	all := NewInputMoments(b.Model, samples, 2048, 1<<30, names, active)
	few := NewInputMoments(b.Model, samples, 64, 1, names[1:], active)
	few.Threads = 1
	passes := 0
	few.Progress = func(first, last string) { passes++ }
	ctx := context.Background()
	for _, name := range names {
		rest, z, err := all.Moments(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		off, diag := beside(rest, z, func(i, j int) float64 {
			return want[name][max(i, j)*z.Rows+min(i, j)] / float64(tokens[name])
		})
		t.Logf("%s: off by %.3f beside the diagonal, on it by %.1e", name, off, diag)
		if off > 0.24 || diag > 0.0011 {
			t.Errorf("%s: off by %.3f beside the diagonal, on it by %g", name, off, diag)
		}
	}
	for _, name := range names[1:6] {
		wantRest, want, _ := all.Moments(ctx, name)
		rest, z, err := few.Moments(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(z.Data, want.Data) || !slices.Equal(rest, wantRest) {
			t.Errorf("%s: with little memory the moments are others", name)
		}
	}
	// q, k and v share their input, o has its own, and so has the feed-forward network.
	if passes != 3 {
		t.Errorf("%d passes for five matrices", passes)
	}
	if _, z, err := all.Moments(ctx, "blk.0.attn_norm.weight"); err != nil || z.Rows != 0 {
		t.Errorf("moments of a norm: %d inputs, %v", z.Rows, err)
	}
}

// beside compares moments with what they should be: the error of what is beside the diagonal,
// relative to all of that, and the largest on it, relative to each.
func beside(rest []float32, z kernel.Mat, want func(i, j int) float64) (off, diag float64) {
	got := kernel.NewMat(z.Rows, z.Rows)
	kernel.GemmNT(nil, got, z, z, false)
	var all float64
	for i := range got.Rows {
		for j, x := range got.Row(i) {
			w, x := want(i, j), float64(x)
			if i == j {
				diag = math.Max(diag, math.Abs(x+float64(rest[i])-w)/w)
				continue
			}
			off += (x - w) * (x - w)
			all += w * w
		}
	}
	return math.Sqrt(off / all), diag
}
