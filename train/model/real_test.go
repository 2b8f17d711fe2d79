package model

import (
	"testing"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/tokenizer"
)

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
		src := openModel(t, modelPath(t, c.file))
		spec, err := tokenizer.SpecFromGGUF(src.Meta)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := tokenizer.New(spec)
		if err != nil {
			t.Fatal(err)
		}
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
