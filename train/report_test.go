package train

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/model"
)

// TestGrowth compares the norms with those of the products.
func TestGrowth(t *testing.T) {
	t.Parallel()
	a, b := kernel.NewMat(3, 7), kernel.NewMat(5, 3)
	for i := range a.Data {
		a.Data[i] = float32(i%5) - 1.5
	}
	for i := range b.Data {
		b.Data[i] = float32(i%4) - 0.5
	}
	sum := 0.0
	for i := range 5 {
		for j := range 7 {
			x := 0.0
			for k := range 3 {
				x += float64(b.Row(i)[k]) * float64(a.Row(k)[j])
			}
			sum += x * x
		}
	}
	l := &lora{names: []string{"m"}, adapter: model.NewAdapter()}
	l.adapter.Pairs["m"] = &model.Pair{A: a, B: b, Scale: -2}
	if got, want := l.growth()["m"], 2*math.Sqrt(sum); math.Abs(got-want) > 1e-12*want {
		t.Errorf("%v, want %v", got, want)
	}
	// What it began with is taken off.
	l.adapter.Fixed = map[string]*model.Pair{"m": {A: a, B: b, Scale: 0.5}}
	if got, want := l.growth()["m"], 1.5*math.Sqrt(sum); math.Abs(got-want) > 1e-12*want {
		t.Errorf("with a beginning: %v, want %v", got, want)
	}
}

// TestAnswersChangeNothing asks a model under training questions: the adapter is, byte for
// byte, that of a run without them, also when it is interrupted, and log and report have
// what was answered.
func TestAnswersChangeNothing(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Samples.Chat = ""
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	plain := outcomeOf(t, c.Output)

	c.SamplePrompts, c.SampleTokens = []string{"What is 1 and 2?", "<b>Who</b> are you?"}, 5
	c.Report = filepath.Join(t.TempDir(), "seen.html")
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	asked := outcomeOf(t, c.Output)
	if n := strings.Count(asked.log, `"samples":[{"prompt":"What is 1 and 2?","text":"`); n != 5 {
		t.Errorf("the log has %d answers", n)
	}
	page, err := os.ReadFile(c.Report)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"What is 1 and 2?", "&lt;b&gt;Who&lt;/b&gt;", "attn_q", "How the adapter grew", "gradient norm", "14 of 14", "sample_prompts"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if _, err := os.Stat(filepath.Join(c.Output, ReportFile)); err == nil {
		t.Error("there is another report in the folder")
	}

	c.Output = filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asking := 0
	if _, err := Run(ctx, c, Fresh, func(p Progress) {
		if p.Phase == "answering" && p.Done == 1 {
			if asking++; asking == 3 {
				cancel()
			}
		}
	}); err == nil {
		t.Fatal("it was not interrupted")
	}
	mustRun(t, c, Resume)
	outcomeOf(t, c.Output).mustBe(t, asked, "interrupted while it answers")
	asked.log = plain.log
	asked.mustBe(t, plain, "with questions")
}

// TestAnswersOnly asks without anything held out.
func TestAnswersOnly(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.SamplePrompts, c.SampleTokens, c.HeldOutPart, c.Patience, c.KeepBest, c.Steps = []string{"What"}, 3, 0, 0, false, 5
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	log := outcomeOf(t, c.Output).log
	if !strings.HasPrefix(log, `{"step":0,"samples":[{"prompt":"What","text":"`) || strings.Count(log, "samples") != 3 {
		t.Error(log)
	}
	lines, err := ReadLog(filepath.Join(c.Output, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	for _, l := range lines {
		if l.isStep() {
			steps++
		}
	}
	if steps != 5 {
		t.Errorf("%d steps", steps)
	}
	if _, err := os.Stat(filepath.Join(c.Output, ReportFile)); err != nil {
		t.Error(err)
	}
}
