package train

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/train/optim"
)

// TestEveryOptimizerResumed interrupts a short run with each optimizer and each schedule
// twice: what it leaves is what the run that was left alone does.
func TestEveryOptimizerResumed(t *testing.T) {
	t.Parallel()
	names := optim.Names()
	for i, s := range []optim.ScheduleSettings{
		{Name: "constant"}, {Name: "constant_with_warmup"}, {Name: "linear"}, {Name: "cosine", Cycles: 1}, {Name: "cosine_with_restarts", Cycles: 2},
		{Name: "cosine_with_min_lr", MinRatio: 0.1}, {Name: "cosine_warmup_with_min_lr", MinRatio: 0.1, WarmupFrom: 0.2}, {Name: "inverse_sqrt"},
		{Name: "polynomial", Power: 2, End: 1e-5}, {Name: "wsd", Decay: 2},
	} {
		name := names[i%len(names)]
		t.Run(name+" "+s.Name, func(t *testing.T) {
			t.Parallel()
			c := smallRun(t)
			c.Adapter.Targets, c.Adapter.Rank = []string{"blk.1.attn_*"}, 2
			c.Optimizer, c.Schedule = optim.DefaultSettings(name), s
			c.Optimizer.WeightDecay = 0.01
			if name == "sgd" {
				c.Optimizer.Momentum = 0.9
			}
			c.Batch, c.Accumulate, c.Steps, c.Warmup, c.SaveEvery = 1, 2, 5, 1, 1
			c.EvalEvery, c.EvalLimit, c.KeepBest, c.Patience = 0, 1, false, 0
			c.Output = filepath.Join(t.TempDir(), "run")
			mustRun(t, c, Fresh)
			want := outcomeOf(t, c.Output)
			if len(want.adapter) == 0 {
				t.Fatal("no adapter")
			}
			c.Output = filepath.Join(t.TempDir(), "run")
			mode := Fresh
			for _, at := range []int{1, 3} {
				ctx, cancel := context.WithCancel(context.Background())
				_, err := Run(ctx, c, mode, func(p Progress) {
					if p.Phase == "training" && p.Done == at {
						cancel()
					}
				})
				cancel()
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				mode = Resume
			}
			mustRun(t, c, Resume)
			outcomeOf(t, c.Output).mustBe(t, want, "interrupted")
		})
	}
	if want := len(optim.ScheduleNames()); want != 10 {
		t.Errorf("there are %d schedules, 10 were tried", want)
	}
}
