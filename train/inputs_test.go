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
// with sums in float64 of what the model's hook shows: the largest difference is 5e-7 of
// the largest moment. Any memory, any division into passes and any number of threads
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
		m, err := all.Moments(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		h, n := want[name], m.Rows
		if len(h) != n*n {
			t.Fatalf("%s: moments of %d inputs", name, n)
		}
		var largest, worst float64
		for i := range n {
			for j := range i + 1 {
				v := h[i*n+j] / float64(tokens[name])
				largest = math.Max(largest, math.Abs(v))
				worst = math.Max(worst, math.Abs(v-float64(m.Row(i)[j])))
				worst = math.Max(worst, math.Abs(v-float64(m.Row(j)[i])))
			}
		}
		t.Logf("%s: differs by %.1e of the largest", name, worst/largest)
		if worst > 1e-6*largest {
			t.Errorf("%s: moments differ by %g, the largest is %g", name, worst, largest)
		}
	}
	for _, name := range names[1:6] {
		want, _ := all.Moments(ctx, name)
		m, err := few.Moments(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(m.Data, want.Data) {
			t.Errorf("%s: with little memory the moments are others", name)
		}
	}
	// q, k and v share their input, o has its own, and so has the feed-forward network.
	if passes != 3 {
		t.Errorf("%d passes for five matrices", passes)
	}
	if m, err := all.Moments(ctx, "blk.0.attn_norm.weight"); err != nil || m.Rows != 0 {
		t.Errorf("moments of a norm: %d inputs, %v", m.Rows, err)
	}
}
