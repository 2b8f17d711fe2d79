package data

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// tokenizerOf reads the tokenizer of a GGUF file.
func tokenizerOf(t testing.TB, path string) *tokenizer.Tokenizer {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	spec, err := tokenizer.SpecFromGGUF(f.Meta)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func readShared(t *testing.T, v any, elem ...string) {
	t.Helper()
	b, err := os.ReadFile(testutil.Shared(t, elem...))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// TestRecordedMasks compares tokens and masks of templates with {% generation %}
// with those of transformers.
func TestRecordedMasks(t *testing.T) {
	t.Parallel()
	var conversations []struct {
		Name     string
		Messages json.RawMessage
		Tools    json.RawMessage
	}
	readShared(t, &conversations, "oracle", "templates", "conversations.json")
	var templates map[string]struct {
		Template string
		BOS      string `json:"bos_token"`
		EOS      string `json:"eos_token"`
		Cases    []struct {
			Conversation string
			Output       string
			IDs          []int32 `json:"input_ids"`
			Masks        []int   `json:"assistant_masks"`
		}
	}
	readShared(t, &templates, "oracle", "templates", "generation-masks.json")
	tok := tokenizerOf(t, testutil.Shared(t, "oracle", "tokenizers", "smollm2-vocab.gguf"))
	compared, others := 0, 0
	for name, tm := range templates {
		tmpl, err := NewTemplate(tm.Template, tok)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		tmpl.special = [][2]string{{"bos_token", tm.BOS}, {"eos_token", tm.EOS}}
		e := &Encoder{Tokenizer: tok, Template: tmpl, Context: 4096}
		for _, c := range tm.Cases {
			for _, conv := range conversations {
				if conv.Name != c.Conversation {
					continue
				}
				r := Record{Path: name, Line: 1}
				if r.Messages, err = messages("messages", conv.Messages); err != nil {
					t.Fatal(err)
				}
				if conv.Tools != nil {
					if r.Tools, err = decode(conv.Tools); err != nil {
						t.Fatal(err)
					}
				}
				s, err := e.Sample(r)
				if err != nil {
					t.Errorf("%s, %s: %v", name, conv.Name, err)
					continue
				}
				want := make([]bool, len(c.Masks))
				for i, m := range c.Masks {
					want[i] = m == 1 && i > 0
				}
				if !slices.Equal(s.IDs, c.IDs) {
					// transformers works out other rules for white space before digits from
					// this vocabulary than it was made with (see the README there).
					others++
					if got, want := trainedText(tok, s), trainedText(tok, Sample{IDs: c.IDs, Train: want}); got != want {
						t.Errorf("%s, %s: trained is %q, recorded %q", name, conv.Name, got, want)
					}
				} else if !slices.Equal(s.Train, want) {
					t.Errorf("%s, %s: %v\n%v, recorded\n%v\n%v", name, conv.Name, s.IDs, s.Train, c.IDs, c.Masks)
				}
				compared++
			}
		}
	}
	if compared < 90 || others > 8 {
		t.Errorf("%d cases were compared, %d with other tokens", compared, others)
	}
}

// TestRealTemplates trains on what real templates write: in each, the answers and, as
// far as sprig's vocabulary has it as a token or the template makes the turn's end
// plain, what ends a turn, and nothing of the questions.
func TestRealTemplates(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	rec := Record{Path: "a", Line: 1, Messages: []Message{NewMessage("user", "First question"), NewMessage("assistant", "First answer"),
		NewMessage("user", "Second question"), NewMessage("assistant", "<think>\nhm\n</think>\n\nSecond answer")}}
	for file, want := range map[string]string{
		"Qwen-Qwen2.5-7B-Instruct.jinja":                 "First answer<|im_end|>|<think>\nhm\n</think>\n\nSecond answer<|im_end|>",
		"Qwen-Qwen3-0.6B.jinja":                          "First answer<|im_end|>|<think>\nhm\n</think>\n\nSecond answer<|im_end|>",
		"google-gemma-2-2b-it.jinja":                     "First answer<end_of_turn>\n|<think>\nhm\n</think>\n\nSecond answer<end_of_turn>\n",
		"meta-llama-Llama-3.1-8B-Instruct.jinja":         "First answer<|eot_id|>|<think>\nhm\n</think>\n\nSecond answer<|eot_id|>",
		"microsoft-Phi-3.5-mini-instruct.jinja":          "First answer|<think>\nhm\n</think>\n\nSecond answer<|end|>\n<|im_end|>",
		"mistralai-Mistral-Nemo-Instruct-2407.jinja":     "First answer<|im_end|>|<think>\nhm\n</think>\n\nSecond answer<|im_end|>",
		"HuggingFaceTB-SmolLM3-3B.jinja":                 "First answer<|im_end|>|<think>\nhm\n</think>\n\nSecond answer<|im_end|>",
		"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja": "First answer|\n\nSecond answer",
		"ibm-granite-granite-4.0.jinja":                  "First answer<|end_of_text|>\n|<think>\nhm\n</think>\n\nSecond answer<|end_of_text|>\n",
	} {
		b, err := os.ReadFile(testutil.Shared(t, "chat-templates", file))
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := NewTemplate(string(b), tok)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		s, err := (&Encoder{Tokenizer: tok, Template: tmpl, Context: 4096}).Sample(rec)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if got := trainedText(tok, s); got != want {
			t.Errorf("%s: trained is %q, want %q", file, got, want)
		}
	}
}
