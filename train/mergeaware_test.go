package train

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/train/model"
)

// TestMergeAware trains as if merged: the same bytes with other threads, with
// activations kept, with a base that is read again for every pass, and through interruptions;
// and the adapter read from its file, as if merged, has the loss of the last evaluation.
func TestMergeAware(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Adapter.MergeAware, c.Adapter.Dropout, c.LR = true, 0, 5e-3
	c.Patience, c.KeepBest = 0, false
	c.Output = filepath.Join(t.TempDir(), "run")
	r := mustRun(t, c, Fresh)
	want := outcomeOf(t, c.Output)
	if r.EvalLast.Loss == r.EvalFirst.Loss {
		t.Fatal("training moved no code")
	}
	for name, change := range map[string]func(*Config){
		"two threads":      func(c *Config) { c.Threads = 2 },
		"activations kept": func(c *Config) { c.KeepLayers = -1 },
		"memory given":     func(c *Config) { c.Memory = 1e9 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := c
			change(&c)
			c.Output = filepath.Join(t.TempDir(), "run")
			mustRun(t, c, Fresh)
			outcomeOf(t, c.Output).mustBe(t, want, name)
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		c := c
		c.Output = filepath.Join(t.TempDir(), "run")
		mode := Fresh
		for at := range 40 {
			ctx, cancel := context.WithCancel(context.Background())
			told := 0
			_, err := Run(ctx, c, mode, func(Progress) {
				if told++; told == 4+at%5 {
					cancel()
				}
			})
			cancel()
			mode = Resume
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		outcomeOf(t, c.Output).mustBe(t, want, "interrupted")
	})
	for _, file := range []string{"", GGUFFile} {
		base, err := OpenBase(c.Base, model.Options{Context: c.Context})
		if err != nil {
			t.Fatal(err)
		}
		defer base.Close()
		ad, err := base.LoadAdapter(filepath.Join(c.Output, file))
		if err != nil {
			t.Fatal(err)
		}
		if ad.TrainedFor == nil || ad.TrainedFor.Seed != c.Seed || ad.Merge != nil {
			t.Fatalf("the adapter says that it was trained for %v", ad.TrainedFor)
		}
		ad.Merge = ad.TrainedFor
		held, err := open(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer held.base.Close()
		if c.EvalLimit > 0 && len(held.held) > c.EvalLimit {
			held.held = held.held[:c.EvalLimit]
		}
		got, err := Evaluate(context.Background(), base.Model, held.held, 1000, nil, model.Scaled{Adapter: ad, Weight: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got.Loss != r.EvalLast.Loss {
			t.Errorf("%q: the loss is %v, in training it was %v", file, got.Loss, r.EvalLast.Loss)
		}
	}
}

// TestMergeAwareTiers runs some steps in the tiers of the kernels that are fast; the
// other is tested with train/model.
func TestMergeAwareTiers(t *testing.T) {
	c := smallRun(t)
	c.Adapter.MergeAware, c.Adapter.Dropout, c.LR, c.Steps = true, 0, 5e-3, 2
	c.Patience, c.KeepBest = 0, false
	var want outcome
	for _, tier := range cpu.Tiers() {
		if tier == cpu.Generic {
			continue
		}
		restore := cpu.Force(tier)
		c.Output = filepath.Join(t.TempDir(), "run")
		mustRun(t, c, Fresh)
		restore()
		if got := outcomeOf(t, c.Output); want.log == "" {
			want = got
		} else {
			got.mustBe(t, want, tier.String())
		}
	}
}

// TestMergeAwareRefuses asks for what cannot be, and leaves out what need not be.
func TestMergeAwareRefuses(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Adapter.MergeAware = true
	c.Patience, c.KeepBest = 0, false
	c.Adapter.Dropout, c.Output = 0.1, t.TempDir()
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "dropout") {
		t.Errorf("dropout: %v", err)
	}
	c.Adapter.Dropout = 0
	base, err := OpenBase(c.Base, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	names := append(base.Model.Matrices(), "blk.0.attn_norm.weight") // the last is no matrix: it cannot be merged into
	kept, left, err := mergeTargets(base.Model, names, &AdapterConfig{Targets: []string{"all-linear"}})
	if err != nil || len(kept) != len(names)-1 || len(left) != 1 {
		t.Errorf("%d kept, %v left out, %v", len(kept), left, err)
	}
	if _, _, err := mergeTargets(base.Model, names, &AdapterConfig{Targets: []string{"all-linear", "attn_norm"}}); err == nil {
		t.Error("a target that cannot be merged into was left out")
	}
	if _, _, err := mergeTargets(base.Model, names[len(names)-1:], &AdapterConfig{Targets: []string{"all-linear"}}); err == nil {
		t.Error("nothing is left, and no error")
	}
}

// TestMergeScale wants scales that come back from a GGUF file's alpha.
func TestMergeScale(t *testing.T) {
	t.Parallel()
	for rank := 1; rank < 200; rank++ {
		for _, alpha := range []float64{1, 5, 16, 33.3} {
			for _, s := range []float32{float32(alpha / float64(rank)), float32(alpha / math.Sqrt(float64(rank)))} {
				got := mergeScale(s, rank)
				file := float32(float64(got) * float64(rank)) // as it is written
				if back := float32(float64(file) / float64(rank)); back != got || math.Abs(float64(got/s)-1) > 1e-6 {
					t.Fatalf("rank %d, scale %v: %v, from a file %v", rank, s, got, back)
				}
			}
		}
	}
}
