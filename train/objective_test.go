package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/objective"
)

// choices writes pairs, or answers with labels.
func choices(t *testing.T, labels bool) string {
	t.Helper()
	var b strings.Builder
	for i := range 12 {
		prompt := fmt.Sprintf("What is %d and %d?", i, i+3)
		good, bad := fmt.Sprintf(" It is %d, I am sure.", 2*i+3), " I will not say"+strings.Repeat(" it", i%4)+"."
		if !labels {
			fmt.Fprintf(&b, "{\"prompt\": %q, \"chosen\": %q, \"rejected\": %q}\n", prompt, good, bad)
			continue
		}
		if i%3 == 0 {
			good = bad
		}
		fmt.Fprintf(&b, "{\"prompt\": %q, \"completion\": %q, \"label\": %v}\n", prompt, good, i%3 != 0)
	}
	path := filepath.Join(t.TempDir(), "choices.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func preferencesOf(t *testing.T, name string) *preferences {
	t.Helper()
	s := objective.Settings{Name: name}
	if name == "dpo" || name == "simpo" {
		s.NLL, s.LabelSmoothing = 0.7, 0.1
	}
	o, err := objective.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return &preferences{Objective: o}
}

// TestObjectiveSlopes moves an adapter along its gradient for every objective: the
// loss, computed from the answers' log-probabilities, changes as the gradient says. The differences
// are central ones of a float32 loss; measured up to 7.4e-4 of the slope.
func TestObjectiveSlopes(t *testing.T) {
	t.Parallel()
	for _, name := range objective.Names()[1:] {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := preferencesOf(t, name)
			base := openSprig(t, "sprig-q4_k_m.gguf", model.Options{Threads: 1})
			enc := base.Encoder(64, data.Options{Chat: "never"})
			set, err := ReadExamples(enc, p.Objective, choices(t, p.Kind() == objective.Labels), data.Fields{})
			if err != nil {
				t.Fatal(err)
			}
			samples := set.Samples[:4]
			reference, err := opinions(background, base.Model, samples, 100, true, nil)
			if err != nil {
				t.Fatal(err)
			}
			if p.NeedsReference() {
				p.reference = map[string]opinion{}
				for i := range samples {
					p.reference[data.Digest(samples[i:i+1])] = reference[i]
				}
			}
			c := DefaultConfig()
			c.Batch, c.Context, c.Adapter.Rank, c.Adapter.Float32, c.Adapter.Dropout = 1, 100, 2, true, 0
			c.Adapter.Targets = []string{"blk.1.*"}
			l, err := newLoRA(background, base.Model, &c.Adapter, 1, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := 1; i < len(l.params); i += 2 {
				for j := range l.params[i].Value {
					l.params[i].Value[j] = 0.02 * float32(math.Sin(float64(3*i+7*j)))
				}
			}
			res, err := l.gradient(background, base.Model, p, samples, &c, 0)
			if err != nil {
				t.Fatal(err)
			}
			on := model.Scaled{Adapter: l.adapter, Weight: 1}
			kl, err := p.kl(background, base.Model, samples, 100, on)
			if err != nil {
				t.Fatal(err)
			}
			value := func() (loss float64) {
				now, err := opinions(background, base.Model, samples, 50, false, nil, on)
				if err != nil {
					t.Fatal(err)
				}
				tokens, nll := 0, 0.0
				for i := range samples {
					e := p.example(&samples[i], now[i])
					loss += p.Example(e, kl).Loss / float64(len(samples))
					nll -= now[i].Chosen
					tokens += e.Chosen.Tokens
				}
				return loss + p.NLL*nll/float64(tokens)
			}
			if v := value(); math.Abs(v-res.loss) > 1e-9 {
				t.Errorf("the step's loss is %v, that of its examples %v", res.loss, v)
			}
			worst := 0.0
			for _, i := range []int{0, 1, 12, 13} {
				g := slices.Clone(l.params[i].Grad)
				want := 0.0
				for _, v := range g {
					want += float64(v) * float64(v)
				}
				if want == 0 {
					t.Errorf("%s: no gradient", l.params[i].Name)
					continue
				}
				norm := 0.0
				for _, v := range l.params[i].Value {
					norm += float64(v) * float64(v)
				}
				h := float32(0.03 * math.Sqrt(norm/want))
				at := func(h float32) float64 {
					old := slices.Clone(l.params[i].Value)
					kernel.Axpy(l.params[i].Value, h, g)
					v := value()
					copy(l.params[i].Value, old)
					return v
				}
				s1 := (at(h) - at(-h)) / float64(2*h)
				s2 := (at(2*h) - at(-2*h)) / float64(4*h)
				got := (4*s1 - s2) / 3
				worst = math.Max(worst, math.Abs(got-want)/want)
				if math.Abs(got-want) > 2e-3*want {
					t.Errorf("%s: the loss changes by %v, the gradient says %v", l.params[i].Name, got, want)
				}
			}
			t.Logf("worst difference %.2g of the slope", worst)
		})
	}
}

// TestPreferencesLearned trains for preferences from files to files: pairs are ranked
// right at the end, and a run that is killed or has other threads leaves the same bytes.
func TestPreferencesLearned(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"dpo", "orpo", "kto"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := smallRun(t)
			c.Objective.Name, c.Data, c.Context = name, choices(t, name == "kto"), 40
			c.Output = filepath.Join(t.TempDir(), "run")
			c.HeldOutPart, c.LR, c.Steps = 0.3, 2e-3, 10
			res := mustRun(t, c, Fresh)
			first, last := res.EvalFirst.Preferences, res.EvalLast.Preferences
			if last.Accuracy != 1 || last.Chosen <= last.Rejected || res.EvalLast.Loss >= res.EvalFirst.Loss || res.EvalLast.Perplexity != 0 {
				t.Errorf("%+v, at the end %+v, %+v", first, last, res.EvalLast)
			}
			if name != "orpo" && (first.Chosen != 0 || first.Rejected != 0) {
				t.Errorf("an adapter that does nothing has rewards: %+v", first)
			}
			want := outcomeOf(t, c.Output)
			for try := range 2 {
				c.Output = filepath.Join(t.TempDir(), "run")
				c.Threads = 2
				ctx, cancel := context.WithCancel(background)
				_, err := Run(ctx, c, Fresh, func(p Progress) {
					if p.Phase == "training" && p.Done == 3+4*try {
						cancel()
					}
				})
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if try == 1 { // a cache that is damaged is made again
					if path := filepath.Join(c.Output, ReferenceFile); name != "orpo" {
						if err := os.WriteFile(path, []byte("{"), 0o666); err != nil {
							t.Fatal(err)
						}
					} else if _, err := os.Stat(path); err == nil {
						t.Error("a reference that is not needed")
					}
				}
				mustRun(t, c, Resume)
				outcomeOf(t, c.Output).mustBe(t, want, "interrupted")
			}
		})
	}
}

// TestReferenceResumed interrupts a run again and again while the reference is asked: it is
// asked about each example once, but for those whose pass was cut off, and the run is the same.
func TestReferenceResumed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"dpo", "kto"} {
		c := smallRun(t)
		c.Objective.Name, c.Data, c.Context = name, choices(t, name == "kto"), 40
		c.Output = filepath.Join(t.TempDir(), "run")
		c.HeldOutPart, c.Batch, c.Steps, c.KeepBest, c.Patience = 0.3, 1, 2, false, 0
		whole := 0
		count := func(p Progress) {
			if p.Phase == "reference" {
				whole++
			}
		}
		if _, err := Run(background, c, Fresh, count); err != nil {
			t.Fatal(err)
		}
		want := outcomeOf(t, c.Output)
		c.Output = filepath.Join(t.TempDir(), "run")
		asked, runs := 0, 0
		for ; ; runs++ {
			mode := Resume
			if runs == 0 {
				mode = Fresh
			}
			ctx, cancel := context.WithCancel(background)
			told := 0
			_, err := Run(ctx, c, mode, func(p Progress) {
				if p.Phase == "reference" {
					asked++
					if told++; told == 4 {
						cancel()
					}
				}
			})
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) || runs > 20 {
				t.Fatal(err)
			}
		}
		if runs < 1 || asked > whole+2*runs {
			t.Errorf("%s: interrupted %d times, %d passes in place of %d", name, runs, asked, whole)
		}
		outcomeOf(t, c.Output).mustBe(t, want, name)
	}
}
