package train

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// openSprig opens one of our own small models.
func openSprig(t *testing.T, name string, opt model.Options) *Base {
	t.Helper()
	b, err := OpenBase(testutil.Shared(t, "models", "sprig", name), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// TestRecordedPerplexity compares with llama-perplexity on the same text, windows of
// 256: F16 agrees in all digits that were recorded, Q4_K_M, where llama.cpp also
// rounds what is multiplied with the weights, within 0.2 %.
func TestRecordedPerplexity(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(testutil.Shared(t, "models", "sprig", "quantize.json"))
	if err != nil {
		t.Fatal(err)
	}
	var recorded map[string]struct{ Perplexity [2]float64 }
	if err := json.Unmarshal(b, &recorded); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file, ftype string
		tolerance   float64
	}{{"sprig-f16.gguf", "F16", 1e-4}, {"sprig-q4_k_m.gguf", "Q4_K_M", 2e-3}} {
		base := openSprig(t, c.file, model.Options{})
		samples, err := base.EvalData(testutil.Shared(t, "models", "sprig", "stories.txt"), 256, data.Options{}, data.Fields{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Evaluate(context.Background(), base.Model, samples, 512, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := recorded[c.ftype].Perplexity
		t.Logf("%s: %.4f ± %.5f, recorded %v", c.ftype, got.Perplexity, got.PerplexityError(), want)
		if math.Abs(got.Perplexity/want[0]-1) > c.tolerance || math.Abs(got.PerplexityError()/want[1]-1) > 10*c.tolerance {
			t.Errorf("%s: perplexity %.4f ± %.5f, recorded %v", c.ftype, got.Perplexity, got.PerplexityError(), want)
		}
	}
}

// TestCompare compares a model with itself, and with its quantized form against sums
// made here from the whole logits.
func TestCompare(t *testing.T) {
	t.Parallel()
	full, small := openSprig(t, "sprig-f16.gguf", model.Options{}), openSprig(t, "sprig-q4_k_m.gguf", model.Options{})
	samples, err := full.EvalData(testutil.Shared(t, "models", "sprig", "stories.txt"), 64, data.Options{}, data.Fields{})
	if err != nil {
		t.Fatal(err)
	}
	samples = samples[:5]
	ctx := context.Background()
	same, err := Compare(ctx, Side{Model: full.Model}, Side{Model: full.Model}, samples, 128, nil)
	if err != nil {
		t.Fatal(err)
	}
	if same.KL != 0 || same.SameTop != 1 || same.Tokens != 5*31 {
		t.Errorf("a model against itself: %+v", same)
	}
	got, err := Compare(ctx, Side{Model: full.Model}, Side{Model: small.Model}, samples, 128, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Compare(ctx, Side{Model: full.Model}, Side{Model: small.Model}, samples, 1, nil)
	if err != nil || other != got {
		t.Errorf("in other pieces: %+v, %v, want %+v", other, err, got)
	}
	loss, err := Evaluate(ctx, small.Model, samples, 128, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The model's own loss is float32 arithmetic.
	if math.Abs(loss.Loss-got.Other) > 1e-6 {
		t.Errorf("loss %v here, %v by Evaluate", got.Other, loss.Loss)
	}
	if got.KL < 1e-5 || got.KL > 0.1 || got.SameTop < 0.9 || got.SameTop == 1 && got.KLMax == 0 {
		t.Errorf("quantized: %+v", got)
	}
	t.Logf("Q4_K_M against F16: %+v", got)

	// Several models against one, whether the reference's logits are kept or made again: the
	// losses are those of Evaluate, bit for bit.
	first, err := Evaluate(ctx, full.Model, samples, 128, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []int64{0, 1 << 30} {
		c, err := NewComparison(Side{Model: full.Model}, samples, 128, room)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r, d, err := c.With(ctx, Side{Model: small.Model}, nil)
			if err != nil || d != got || r != loss {
				t.Errorf("room %d: %+v, %+v, %v, want %+v, %+v", room, r, d, err, loss, got)
			}
			if r, err = c.Reference(ctx, nil); err != nil || r != first {
				t.Errorf("room %d: the reference has %+v, %v, want %+v", room, r, err, first)
			}
		}
		name := c.spill.Name()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s was left", name)
		}
	}
}

// TestCompareRow checks the divergence of two distributions done by hand.
func TestCompareRow(t *testing.T) {
	t.Parallel()
	log := func(ps ...float64) (l []float32) {
		for _, p := range ps {
			l = append(l, float32(math.Log(p))+3)
		}
		return l
	}
	s := compareRow(log(0.5, 0.25, 0.25), log(0.25, 0.5, 0.25), 1)
	want := 0.25 * math.Ln2
	if math.Abs(s.kl-want) > 1e-6 || s.same || math.Abs(s.lossP-2*math.Ln2) > 1e-6 || math.Abs(s.lossQ-math.Ln2) > 1e-6 {
		t.Errorf("%+v, want a divergence of %v", s, want)
	}
}
