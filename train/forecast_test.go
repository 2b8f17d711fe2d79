package train

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/train/model"
)

// TestForecast runs a process of its own, whose memory is nothing but the run's, and
// compares what it took with what was forecast. On real models the forecast is within
// 5 % (docs/memory.md); here the program weighs more than the model, and tests more
// than programs, so that only large errors are seen.
func TestForecast(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, -1} {
		c := smallRun(t)
		c.Context, c.Samples.Pack, c.KeepLayers, c.Samples.Train = 512, true, keep, "all"
		c.Batch, c.Accumulate, c.Steps = 2, 1, 1
		c.Output = filepath.Join(t.TempDir(), "run")
		if _, err := begin(&c, Fresh, nil); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childRun+"="+c.Output)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(filepath.Join(c.Output, RecordFile))
		if err != nil {
			t.Fatal(err)
		}
		var rec Record
		if err := json.Unmarshal(b, &rec); err != nil {
			t.Fatal(err)
		}
		got, want := float64(rec.Result.PeakRSS), float64(rec.Result.Expected.Memory)
		if got == 0 {
			t.Skip("this system does not say what is resident")
		}
		t.Logf("%d layers kept: %.1f MB, %.1f expected", keep, got/1e6, want/1e6)
		if got < 0.7*want || got > 1.4*want {
			t.Errorf("%d layers kept: the peak was %.1f MB, %.1f MB were expected", keep, got/1e6, want/1e6)
		}
		if rec.Result.Expected.Seconds <= 0 || rec.Result.Expected.Seconds > 60 {
			t.Errorf("%.1f s were expected", rec.Result.Expected.Seconds)
		}
	}
}

// fittedRunner is a run as it stands before its first step.
func fittedRunner(t *testing.T, c Config) *runner {
	t.Helper()
	c.Output = t.TempDir()
	r, err := open(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.base.Close() })
	if err := r.ready(background); err != nil {
		t.Fatal(err)
	}
	if err := r.fit(); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestAhead looks at the passes of a run before it makes them: they are those that it makes.
func TestAhead(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.KeepBest, c.Patience = false, 0
	r := fittedRunner(t, c)
	tokens, trained, sequences := 0, 0, 0
	if times := r.ahead.training(c.limit(), func(samples []int, l load) {
		tokens, trained, sequences = tokens+l.tokens, trained+l.trained, sequences+len(samples)
		if len(samples) > 1 && l.tokens > c.limit() || len(l.lens) != len(samples) {
			t.Errorf("a pass of %d tokens in %v", l.tokens, l.lens)
		}
	}); times != 1 {
		t.Errorf("%v times", times)
	}
	r.state.EvalDue = true
	evaluations := r.evaluations()
	c.Output = filepath.Join(t.TempDir(), "run")
	res := mustRun(t, c, Fresh)
	if int64(tokens) != res.Tokens || int64(trained) != res.Trained || sequences != res.Sequences {
		t.Errorf("%d tokens, %d trained, %d sequences were ahead; the run had %+v", tokens, trained, sequences, res)
	}
	lines, err := ReadLog(filepath.Join(c.Output, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.Eval != nil {
			evaluations--
		}
	}
	if evaluations != 0 {
		t.Errorf("%d evaluations too many were ahead", evaluations)
	}
}

// TestFit gives a run less and less memory: fewer layers keep their activations, passes
// get smaller, in the end the base is streamed; and what is chosen fits. A step's
// masters are the same bytes in every way.
func TestFit(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Context, c.Batch, c.Accumulate = 64, 8, 1
	r := fittedRunner(t, c)
	held := allocated()
	whole := r.fitted.shape
	one := r.ahead.shape(1)
	if one.Tokens >= whole.Tokens/4 {
		t.Fatalf("passes of %d tokens, one sequence has %d", whole.Tokens, one.Tokens)
	}
	opt := c.modelOptions()
	all, streamed := opt, opt
	all.KeepLayers, streamed.Stream = -1, true
	var before fitted
	for _, l := range []struct {
		what   string
		memory int64
		want   func(f fitted) bool
	}{
		{"all that it can use", r.forecast(whole, all, held), func(f fitted) bool { return f.opt.KeepLayers == 4 && f.limit == c.limit() }},
		{"what it needs at least for whole passes", r.forecast(whole, opt, held), func(f fitted) bool { return f.opt.KeepLayers < 4 || f.limit < c.limit() }},
		{"what it needs for one sequence", r.forecast(one, opt, held), func(f fitted) bool { return f.limit < c.limit()/4 && !f.opt.Stream }},
		{"what it needs without the base", r.forecast(one, streamed, held), func(f fitted) bool { return f.opt.Stream }},
	} {
		r.cfg.Memory, r.cfg.tokensAtOnce = margined(l.memory), 0
		f, err := r.choose(held)
		if err != nil {
			t.Fatalf("%s: %v", l.what, err)
		}
		if !l.want(f) || f.memory > r.cfg.Memory || before.memory > 0 && f.memory > before.memory {
			t.Errorf("given %s: %+v", l.what, f)
		}
		if !strings.Contains(f.text, "of 4 layers keep their activations") {
			t.Errorf("given %s it says %q", l.what, f.text)
		}
		before = f
	}
	r.cfg.Memory = r.forecast(one, streamed, held) / 2
	if _, err := r.choose(held); err == nil {
		t.Error("half of what it needs is enough")
	}
}

// TestAnyMemory makes the same run in ways that memory limits choose: dropout and
// noise, too, fall where they fall.
func TestAnyMemory(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Steps, c.Batch, c.Accumulate = 2, 6, 1
	make := func(limit int, opt func(*model.Options)) outcome {
		c := c
		c.Output = filepath.Join(t.TempDir(), "run")
		c.tokensAtOnce = limit
		o := c.modelOptions()
		opt(&o)
		c.KeepLayers, c.HeadMemory = o.KeepLayers, o.HeadMemory
		mustRun(t, c, Fresh)
		return outcomeOf(t, c.Output)
	}
	want := make(0, func(*model.Options) {})
	make(1, func(*model.Options) {}).mustBe(t, want, "one sequence at once")
	make(100, func(o *model.Options) { o.KeepLayers = 2 }).mustBe(t, want, "100 tokens at once, two layers kept")
	make(150, func(o *model.Options) { o.HeadMemory = 1 }).mustBe(t, want, "150 tokens at once, a small head")
}
