package model

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
)

func tokenizerOf(t testing.TB, path string) *tokenizer.Tokenizer {
	t.Helper()
	spec, err := tokenizer.SpecFromGGUF(openModel(t, path).Meta)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestPerplexity compares with what llama-perplexity recorded for sprig: the loss
// of the second half of every 256 tokens. It multiplies by activations rounded
// to float16 or 8 bits; the numbers differ by less than 1e-4 for f16 and 2e-4 for
// q4_k_m.
func TestPerplexity(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(testutil.Shared(t, "models", "sprig", "stories.txt"))
	if err != nil {
		t.Fatal(err)
	}
	record, err := os.ReadFile(testutil.Shared(t, "models", "sprig", "quantize.json"))
	if err != nil {
		t.Fatal(err)
	}
	var recorded map[string]struct{ Perplexity [2]float64 }
	if err := json.Unmarshal(record, &recorded); err != nil {
		t.Fatal(err)
	}
	for ftype, file := range map[string]string{"F16": "sprig-f16.gguf", "Q4_K_M": "sprig-q4_k_m.gguf"} {
		path := testutil.Shared(t, "models", "sprig", file)
		m, tok := newModel(t, openModel(t, path), Options{Threads: 1}), tokenizerOf(t, path)
		ids := tok.Encode(string(text), tokenizer.EncodeOptions{AddSpecial: true})
		var sum float64
		var n int
		const context = 256
		for len(ids) >= context {
			b := &Batch{IDs: ids[:context], Targets: ShiftLabels(ids[:context], nil)}
			for i := range context / 2 {
				b.Targets[i] = Untrained
			}
			l, err := m.Loss(b)
			if err != nil {
				t.Fatal(err)
			}
			sum += l.Sum
			n += l.Tokens
			ids = ids[context:]
		}
		got, want := math.Exp(sum/float64(n)), recorded[ftype].Perplexity[0]
		t.Logf("%s: perplexity %.4f, recorded %.4f", ftype, got, want)
		if math.Abs(got-want) > 1e-3 {
			t.Errorf("%s: perplexity %.4f, recorded %.4f", ftype, got, want)
		}
	}
}

// TestRealModels wants of the two models that people try graft with a loss on plain
// English that only a model that is run rightly has, and the obvious next words.
func TestRealModels(t *testing.T) {
	if testing.Short() {
		t.Skip("reads models of 100 and 250 MB")
	}
	for _, c := range []struct {
		file, prompt, answer string
		most                 float64 // loss on the text; 3.4774 and 3.4508 seen
	}{
		{"SmolLM2-135M-Instruct.Q4_1.gguf", "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n", "The capital of France is Paris.", 3.5},
		{"gemma-3-270m-q4_k_m.gguf", "Paris is the capital of France. Rome is the capital of", " Italy.", 3.5},
	} {
		m := realModel(t, c.file, Options{})
		tok := tokenizerOf(t, modelPath(t, c.file))
		ids := tok.Encode("The river rose in the night, and by morning the lower fields were under water. Nobody in the village had seen "+
			"a flood like it, not even the oldest of them, who remembered the winter when the bridge was carried away.", tokenizer.EncodeOptions{AddSpecial: true})
		l, err := m.Loss(&Batch{IDs: ids, Targets: ShiftLabels(ids, nil)})
		if err != nil {
			t.Fatal(err)
		}
		if l.Mean() > c.most {
			t.Errorf("%s: loss %.4f", c.file, l.Mean())
		}
		t.Logf("%s: loss %.4f", c.file, l.Mean())
		s, err := m.NewSession(256)
		if err != nil {
			t.Fatal(err)
		}
		next := tok.Encode(c.prompt, tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true})
		want := tok.Encode(c.answer, tokenizer.EncodeOptions{})
		var got []int32
		for range want {
			logits, err := s.Append(next)
			if err != nil {
				t.Fatal(err)
			}
			next = []int32{int32(kernel.ArgMax(logits))}
			got = append(got, next...)
		}
		if text := tok.Decode(got, tokenizer.DecodeOptions{}); text != c.answer {
			t.Errorf("%s goes on with %q", c.file, text)
		}
	}
}
