package data

import (
	"strings"
	"testing"
)

// TestPreferences reads the same pair in every shape: the answers alone are trained.
func TestPreferences(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	const user, good, bad = `{"role":"user","content":"hi"}`, `{"role":"assistant","content":"yes"}`, `{"role":"assistant","content":"no"}`
	for _, c := range []struct {
		name, record string
		chat         string
		chosen       string
		rejected     string
	}{
		{"strings", `{"prompt":"hi","chosen":" yes","rejected":" no"}`, "never", " yes<|im_end|>", " no<|im_end|>"},
		{"strings rendered", `{"prompt":"hi","chosen":"yes","rejected":"no"}`, "", "yes<|im_end|>", "no<|im_end|>"},
		{"whole texts", `{"chosen":"hi there yes","rejected":"hi there no"}`, "never", " yes<|im_end|>", " no<|im_end|>"},
		{"messages", `{"prompt":[` + user + `],"chosen":[` + good + `],"rejected":[` + bad + `]}`, "", "yes<|im_end|>", "no<|im_end|>"},
		{"single messages", `{"messages":[` + user + `],"chosen":` + good + `,"rejected":` + bad + `}`, "", "yes<|im_end|>", "no<|im_end|>"},
		{"ShareGPT", `{"conversations":[{"from":"human","value":"hi"}],"chosen":{"from":"gpt","value":"yes"},"rejected":{"from":"gpt","value":"no"}}`, "", "yes<|im_end|>", "no<|im_end|>"},
		{"whole conversations", `{"chosen":[` + user + `,` + bad + `,` + user + `,` + good + `],"rejected":[` + user + `,` + bad + `,` + user + `,` + bad + `]}`, "", "yes<|im_end|>", "no<|im_end|>"},
		{"messages and strings", `{"prompt":[` + user + `],"chosen":"yes","rejected":"no"}`, "", "yes<|im_end|>", "no<|im_end|>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &Encoder{Tokenizer: tok, Template: templateFunc(chatML), Context: 64, Options: Options{Chat: c.chat}}
			set, err := e.ReadPreferences(write(t, "a.jsonl", c.record), Fields{})
			if err != nil {
				t.Fatal(err)
			}
			s := set.Samples[0]
			if got := trainedText(tok, s); got != c.chosen {
				t.Errorf("chosen %q, want %q", got, c.chosen)
			}
			if got := trainedText(tok, *s.Rejected); got != c.rejected {
				t.Errorf("rejected %q, want %q", got, c.rejected)
			}
			if set.Stats.Tokens != s.Size() || s.Size() != len(s.IDs)+len(s.Rejected.IDs) {
				t.Errorf("%d tokens counted", set.Stats.Tokens)
			}
		})
	}
}

func TestLabelled(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	e := &Encoder{Tokenizer: tok, Template: templateFunc(chatML), Context: 64}
	text := `{"prompt":"one","completion":"yes","label":true}
{"messages":[{"role":"user","content":"two"},{"role":"assistant","content":"no"}],"label":0}`
	if _, err := e.ReadLabelled(write(t, "a.jsonl", text), Fields{}); err == nil || !strings.Contains(err.Error(), "cannot be mixed") {
		t.Errorf("error %v", err)
	}
	text = `{"prompt":"one","completion":"yes","label":true}
{"prompt":"two","completion":"no","label":false}
{"prompt":"three","completion":"why","label":1}`
	set, err := e.ReadLabelled(write(t, "a.jsonl", text), Fields{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		answer, mismatched string
		bad                bool
	}{{"yes", "why", false}, {"no", "yes", true}, {"why", "no", false}} {
		s := set.Samples[i]
		if s.Bad != want.bad || trainedText(tok, s) != want.answer+"<|im_end|>" || trainedText(tok, *s.Mismatched) != want.mismatched+"<|im_end|>" {
			t.Errorf("sample %d: %v, %q, %q", i, s.Bad, trainedText(tok, s), trainedText(tok, *s.Mismatched))
		}
	}
	digest := Digest(set.Samples)
	set.Samples[0].Bad = true
	if Digest(set.Samples) == digest {
		t.Error("the digest does not see labels")
	}
}

func TestPreferenceRefusals(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	for _, c := range []struct {
		name, text string
		opt        Options
		labelled   bool
		want       string
	}{
		{"no pair", `{"prompt":"a","completion":"b"}`, Options{}, false, "a.jsonl:1: the record has the fields completion, prompt, and a pair needs chosen and rejected"},
		{"same", `{"prompt":"a","chosen":"b","rejected":"b"}`, Options{}, false, "a.jsonl:1: the chosen and the rejected answer are the same"},
		{"kinds", `{"prompt":"a","chosen":"b","rejected":[{"role":"assistant","content":"b"}]}`, Options{}, false, "not of the same kind"},
		{"no answer", `{"chosen":[{"role":"user","content":"b"}],"rejected":[{"role":"assistant","content":"b"}]}`, Options{}, false, "chosen has no answer"},
		{"packed", `{"prompt":"a","chosen":"b","rejected":"c"}`, Options{Pack: true}, false, "cannot be packed"},
		{"text", "once upon a time", Options{}, false, "plain text"},
		{"no label", `{"prompt":"a","completion":"b"}`, Options{}, true, "a.jsonl:1: the record has no field label"},
		{"label", `{"prompt":"a","completion":"b","label":"good"}`, Options{}, true, "neither true nor false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &Encoder{Tokenizer: tok, Template: templateFunc(chatML), Context: 64, Options: c.opt}
			read := e.ReadPreferences
			if c.labelled {
				read = e.ReadLabelled
			}
			name := "a.jsonl"
			if c.name == "text" {
				name = "a.txt"
			}
			if _, err := read(write(t, name, c.text), Fields{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
