package train

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/tokenizer"
	"github.com/graft-lora/graft/train/model"
)

// TestGenerate asks sprig who it is; it was trained to say so.
func TestGenerate(t *testing.T) {
	t.Parallel()
	b := openSprig(t, "sprig-q4_k_m.gguf", model.Options{})
	prompt := b.Tokenizer.Encode("<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n", tokenizer.EncodeOptions{ParseSpecial: true})
	ctx := context.Background()
	make := func(o GenerateOptions, limit int) (Generated, string) {
		t.Helper()
		s, err := b.Model.NewSession(limit)
		if err != nil {
			t.Fatal(err)
		}
		var streamed strings.Builder
		g, err := Generate(ctx, s, b.Tokenizer, prompt, o, func(text string) error { streamed.WriteString(text); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return g, streamed.String()
	}
	g, streamed := make(GenerateOptions{}, 200)
	if g.Text != "I am Sprig, a small model." || streamed != g.Text || !g.Stopped {
		t.Errorf("%q (streamed %q), stopped %v", g.Text, streamed, g.Stopped)
	}
	if g, _ := make(GenerateOptions{Max: 3}, 200); len(g.IDs) != 3 || g.Stopped {
		t.Errorf("at most three tokens: %+v", g)
	}
	if g, _ := make(GenerateOptions{}, len(prompt)+2); len(g.IDs) != 3 || g.Stopped {
		t.Errorf("room for two tokens after the prompt: %+v", g)
	}
	hot := GenerateOptions{Max: 20, Sampling: Sampling{Temperature: 3, Seed: 1}}
	a, _ := make(hot, 200)
	again, _ := make(hot, 200)
	hot.Seed = 2
	c, _ := make(hot, 200)
	if !slices.Equal(a.IDs, again.IDs) || slices.Equal(a.IDs, c.IDs) {
		t.Errorf("seed 1: %v and %v, seed 2: %v", a.IDs, again.IDs, c.IDs)
	}
	s, _ := b.Model.NewSession(200)
	full := errors.New("full")
	if _, err := Generate(ctx, s, b.Tokenizer, prompt, GenerateOptions{}, func(string) error { return full }); !errors.Is(err, full) {
		t.Errorf("an error of emit: %v", err)
	}
}

func TestSampling(t *testing.T) {
	t.Parallel()
	logits := func() []float32 { // probabilities 0.1, 0.4, 0.2, 0.25, 0.05
		return []float32{-2.302585, -0.916291, -1.609438, -1.386294, -2.995732}
	}
	counts := func(s Sampling, history ...int32) []int {
		c := make([]int, 5)
		for n := range 4000 {
			c[s.pick(logits(), history, n)]++
		}
		return c
	}
	near := func(name string, got []int, want ...float64) {
		t.Helper()
		for i, w := range want {
			// Five standard deviations of a count of 4000 draws.
			if math.Abs(float64(got[i])-4000*w) > 5*math.Sqrt(4000*w*(1-w)) {
				t.Errorf("%s: token %d was drawn %d times, want about %.0f", name, i, got[i], 4000*w)
			}
		}
	}
	near("greedy", counts(Sampling{}), 0, 1, 0, 0, 0)
	near("temperature 1", counts(Sampling{Temperature: 1}), 0.1, 0.4, 0.2, 0.25, 0.05)
	near("top-k", counts(Sampling{Temperature: 1, TopK: 2}), 0, 0.4/0.65, 0, 0.25/0.65, 0)
	near("top-p", counts(Sampling{Temperature: 1, TopP: 0.7}), 0, 0.4/0.85, 0.2/0.85, 0.25/0.85, 0)
	near("min-p", counts(Sampling{Temperature: 1, MinP: 0.45}), 0, 0.4/0.85, 0.2/0.85, 0.25/0.85, 0)
	sum := 0.1*0.1 + 0.4*0.4 + 0.2*0.2 + 0.25*0.25 + 0.05*0.05
	near("temperature 1/2", counts(Sampling{Temperature: 0.5}), 0.01/sum, 0.16/sum, 0.04/sum, 0.0625/sum, 0.0025/sum)
	near("penalty", counts(Sampling{RepeatPenalty: 2}, 1), 0, 0, 0, 1, 0)
	near("penalty forgets", counts(Sampling{RepeatPenalty: 2, RepeatLast: 1}, 1, 4), 0, 1, 0, 0, 0)
	if (&Sampling{TopP: 2}).Check() == nil || (&Sampling{Temperature: -1}).Check() == nil {
		t.Error("settings out of range are taken")
	}
}
