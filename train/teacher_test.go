package train

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
)

// taughtRun learns from the model in full what it has lost by quantization.
func taughtRun(t *testing.T) Config {
	c := smallRun(t)
	c.Steps = 9
	c.Distill = DistillConfig{Teacher: testutil.Shared(t, "models", "sprig", "sprig-f16.gguf"), TopK: 20, Weight: 0.7, Temperature: 1.5}
	return c
}

// TestTaught unlearns from the base, as a teacher, what an adapter had learned; what a run
// leaves is the same when it is interrupted, and when the teacher's file is damaged or gone.
func TestTaught(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.NEFTune, c.Adapter.Dropout, c.Patience, c.KeepBest = 0, 0, 0, false
	c.Steps, c.LR, c.Output = 8, 1e-2, filepath.Join(t.TempDir(), "wrong")
	mustRun(t, c, Fresh)
	c.Adapter.From, c.Output = c.Output, filepath.Join(t.TempDir(), "run")
	c.Distill = DistillConfig{Teacher: c.Base, TopK: 20, Weight: 1, Temperature: 1.5}
	c.Steps, c.LR = 16, 3e-3
	res := mustRun(t, c, Fresh)
	first, last := res.EvalFirst.Distill, res.EvalLast.Distill
	if first == nil || last == nil || !(last.KL < first.KL/2) || math.Abs(res.EvalFirst.Loss-2.25*first.KL) > 1e-5 ||
		math.Abs(math.Log(res.EvalFirst.Perplexity)-first.CrossEntropy) > 1e-9 {
		t.Errorf("before %+v, after %+v; %+v", first, last, res.EvalFirst)
	}
	t.Logf("the divergence falls from %.5f to %.5f", first.KL, last.KL)

	c = taughtRun(t)
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	want := outcomeOf(t, c.Output)
	for how, spoil := range map[string]func(path string) error{
		"left alone":    func(string) error { return nil },
		"gone":          os.Remove,
		"cut off":       func(path string) error { return os.Truncate(path, 1000) },
		"cut off later": func(path string) error { return os.Truncate(path, 5000) },
		"changed": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte{1, 2, 3}, 600)
			return err
		},
	} {
		c.Output = filepath.Join(t.TempDir(), "run")
		ctx, cancel := context.WithCancel(context.Background())
		_, err := Run(ctx, c, Fresh, func(p Progress) {
			if p.Phase == "training" && p.Done == 5 {
				cancel()
			}
		})
		if err == nil {
			t.Fatal("it was not interrupted")
		}
		cancel()
		if err := spoil(filepath.Join(c.Output, TeacherFile)); err != nil {
			t.Fatal(err)
		}
		mustRun(t, c, Resume)
		outcomeOf(t, c.Output).mustBe(t, want, how)
	}
	other := c
	other.Distill.Teacher = c.Base
	if _, err := Run(context.Background(), other, Resume, nil); err == nil || !strings.Contains(err.Error(), "the teacher is not the one") {
		t.Error(err)
	}
}

// TestTeacherResumed interrupts the teacher itself: what it had finished is not asked again,
// whether the rest is then asked in other passes or with memory given, and the run is the same.
func TestTeacherResumed(t *testing.T) {
	t.Parallel()
	c := taughtRun(t)
	c.Steps, c.Batch = 2, 1
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	want := outcomeOf(t, c.Output)
	file, err := os.ReadFile(filepath.Join(c.Output, TeacherFile))
	if err != nil {
		t.Fatal(err)
	}
	for how, change := range map[string]func(c *Config){
		"as it was":    func(*Config) {},
		"memory given": func(c *Config) { c.Memory = 1e9 },
	} {
		c := c
		c.Output = filepath.Join(t.TempDir(), "run")
		change(&c)
		told, done, runs := 0, 0, 0
		for ; ; runs++ {
			ctx, cancel := context.WithCancel(context.Background())
			mode := Resume
			if runs == 0 {
				mode = Fresh
			}
			_, err := Run(ctx, c, mode, func(p Progress) {
				if p.Phase != "teacher" || p.Total == 0 {
					return
				}
				if p.Done <= done {
					t.Errorf("%s: %d of %d are asked again", how, p.Done, p.Total)
				}
				done = p.Done
				if told++; told%4 == 0 {
					cancel()
				}
			})
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("%s: %v", how, err)
			}
		}
		if runs < 3 || done == 0 {
			t.Errorf("%s: interrupted %d times, %d done", how, runs, done)
		}
		outcomeOf(t, c.Output).mustBe(t, want, how)
		if again, err := os.ReadFile(filepath.Join(c.Output, TeacherFile)); err != nil || len(again) != len(file) {
			t.Errorf("%s: the file differs, %v", how, err)
		}
	}
	c.Memory = 1 << 20
	c.Output = filepath.Join(t.TempDir(), "run")
	if _, err := Run(context.Background(), c, Fresh, nil); err == nil || !strings.Contains(err.Error(), "MB and is given 1") {
		t.Error(err)
	}
}

// TestTaughtByItself has nothing to learn: neither the loss nor the gradient is more than
// rounding.
func TestTaughtByItself(t *testing.T) {
	t.Parallel()
	c := taughtRun(t)
	c.Distill.Teacher, c.Distill.Weight = c.Base, 1
	c.NEFTune, c.Adapter.Dropout, c.ClipNorm, c.Warmup, c.Patience = 0, 0, 0, 0, 0
	c.Schedule.Name, c.Optimizer.Name, c.Optimizer.WeightDecay, c.LR = "constant", "sgd", 0, 1e-9
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	lines, err := ReadLog(filepath.Join(c.Output, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		switch {
		case l.Eval != nil:
			if !(math.Abs(l.Eval.Loss) < 1e-6) {
				t.Errorf("held out: the loss is %v", l.Eval.Loss)
			}
		case !(math.Abs(l.Loss) < 1e-6) || !(l.GradNorm < 1e-5):
			t.Errorf("step %d: the loss is %v, the gradient %v", l.Step, l.Loss, l.GradNorm)
		}
	}
}

func TestTeacherRefused(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(c *Config){
		"distillation needs two models with the same tokenizer": func(c *Config) {
			c.Distill.Teacher = testutil.Shared(t, "models", "stories260K", "stories260K-f32-v3.gguf")
		},
		"distillation needs a teacher":          func(c *Config) { c.Distill.Teacher = "" },
		"distillation goes with sft":            func(c *Config) { c.Objective.Name = "dpo" },
		"weight is 2":                           func(c *Config) { c.Distill.Weight = 2 },
		"the temperature of distillation is -1": func(c *Config) { c.Distill.Temperature = -1 },
		"top_k of the teacher is -3":            func(c *Config) { c.Distill.TopK = -3 },
	} {
		c := taughtRun(t)
		change(&c)
		c.Output = filepath.Join(t.TempDir(), "run")
		if _, err := Run(context.Background(), c, Fresh, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
