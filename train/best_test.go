package train

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// TestStopped learns much too fast, so that the held-out loss gets worse: the run ends
// early and leaves the adapter of its best evaluation, also when it is interrupted
// after that and resumed.
func TestStopped(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Output = filepath.Join(t.TempDir(), "run")
	c.Adapter.Dropout, c.NEFTune, c.Warmup = 0, 0, 0
	c.LR, c.EvalEvery, c.Patience, c.Steps, c.KeepCheckpoints, c.SaveEvery = 0.08, 1, 3, 40, 3, 1
	res := mustRun(t, c, Fresh)
	if res.Steps == 40 || res.Steps != res.BestStep+3 || res.EvalBest.Loss >= res.EvalLast.Loss {
		t.Fatalf("%d steps, the best was %d: %+v, %+v", res.Steps, res.BestStep, res.EvalBest, res.EvalLast)
	}
	if list, err := checkpoints(c.Output); err != nil || len(list) != 3 {
		t.Errorf("checkpoints %v, %v", list, err)
	}
	base := openSprig(t, "sprig-q4_k_m.gguf", model.Options{Threads: 1})
	a, err := base.LoadAdapter(c.Output)
	if err != nil {
		t.Fatal(err)
	}
	set, err := base.Encoder(c.Context, c.Samples).Read(c.Data, c.Fields)
	if err != nil {
		t.Fatal(err)
	}
	_, held := data.Split(set.Samples, c.HeldOutPart, c.Seed)
	e, err := Evaluate(background, base.Model, held, 100, nil, model.Scaled{Adapter: a, Weight: 1})
	if err != nil {
		t.Fatal(err)
	}
	if e != *res.EvalBest {
		t.Errorf("the adapter has %+v, the best evaluation was %+v", e, res.EvalBest)
	}

	want := outcomeOf(t, c.Output)
	mustRun(t, c, Resume) // nothing is left to do
	outcomeOf(t, c.Output).mustBe(t, want, "done already")
	c.Output = filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithCancel(background)
	if _, err := Run(ctx, c, Fresh, func(p Progress) {
		if p.Phase == "training" && p.Done == res.BestStep+2 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	mustRun(t, c, Resume)
	outcomeOf(t, c.Output).mustBe(t, want, "interrupted")

	if err := os.Remove(bestPath(c.Output)); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(background, c, Resume, nil); err == nil {
		t.Error("a best adapter that is missing is not missed")
	}
}
