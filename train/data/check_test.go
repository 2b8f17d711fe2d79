package data

import (
	"fmt"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/tokenizer"
)

// TestCheck refuses data from which a model does not learn to stop, and data that is
// nearly all prompt, with the lines; and lets them through where that is meant.
func TestCheck(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	// A template whose turns end in text, no token.
	open := templateFunc(func(ms []any, _ any, generate bool) (string, [][2]int, error) {
		s, _, err := chatML(ms, nil, generate)
		return strings.ReplaceAll(s, "<|im_end|>", "."), nil, err
	})
	ask := `{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Zorp"}]}` + "\n"
	long := func(n int) string {
		return fmt.Sprintf(`{"prompt": %q, "completion": "a"}`+"\n", strings.Repeat("word of the prompt ", n))
	}
	for name, c := range map[string]struct {
		template Template
		stops    func(int32) bool
		text     string
		options  Options
		want     string // in the error; empty: none
	}{
		"fine":                {templateFunc(chatML), nil, ask + ask, Options{}, ""},
		"no end":              {open, nil, ask + ask, Options{}, "in 2 of 2 records the answer ends without a token at which the model's generation stops (lines 1, 2)"},
		"no end, allowed":     {open, nil, ask, Options{Endless: "allow"}, ""},
		"other end":           {templateFunc(chatML), func(id int32) bool { return id == tok.EOS()+1 }, ask, Options{}, "it stops at"},
		"cut off has none":    {templateFunc(chatML), nil, ask + `{"prompt": "Who?", "completion": "` + strings.Repeat("a word of it ", 300) + `"}`, Options{}, ""},
		"no end for rejected": {templateFunc(chatML), nil, `{"prompt": "Who?", "completion": "b", "label": true}`, Options{}, ""},
		"masked":              {templateFunc(chatML), nil, ask + long(50) + long(60) + long(55), Options{}, "tokens are trained"},
		"masked, allowed":     {templateFunc(chatML), nil, ask + long(50) + long(60) + long(55), Options{Masked: "allow"}, ""},
	} {
		enc := &Encoder{Tokenizer: tok, Template: c.template, Context: 1000, Options: c.options, Stops: c.stops}
		path := write(t, "x.jsonl", c.text)
		set, err := enc.Read(path, Fields{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err = enc.Check(set, path)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path)) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
		if name == "masked" && !strings.Contains(err.Error(), "fewest in lines 3, 4, 2, 1;") {
			t.Error(err)
		}
	}
	enc := &Encoder{Tokenizer: tok, Template: templateFunc(chatML), Context: 100, Options: Options{Masked: "allowed"}}
	if _, err := enc.Read(write(t, "x.jsonl", ask), Fields{}); err == nil || !strings.Contains(err.Error(), "it can be error, allow") {
		t.Error(err)
	}
}

// TestShapes are the ways in which records say the same.
func TestShapes(t *testing.T) {
	t.Parallel()
	enc := &Encoder{Tokenizer: sprig(t), Template: templateFunc(chatML), Context: 200}
	for _, text := range []string{
		`{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Zorp"}, {"role": "user", "content": "And?"}, {"role": "assistant", "content": "no", "weight": 0}]}`,
		`{"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Zorp"}, {"from": "human", "value": "And?"}, {"from": "gpt", "value": "no", "weight": 0}]}`,
		`{"system": "Be brief.", "conversations": [{"from": "user", "value": "Who?"}, {"from": "model", "value": "Zorp"}, {"from": "human", "value": "And?"}, {"from": "gpt", "value": "no", "train": false}]}`,
		`{"conversations": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Zorp"}, {"role": "user", "content": "And?"}, {"role": "assistant", "content": "no", "train": false}]}`,
	} {
		set, err := enc.Read(write(t, "x.jsonl", text), Fields{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := trainedText(enc.Tokenizer, set.Samples[0]); got != "Zorp<|im_end|>" {
			t.Errorf("%s: trained is %q", text, got)
		}
		if first, err := enc.Read(write(t, "y.jsonl", `{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Zorp"}, {"role": "user", "content": "And?"}, {"role": "assistant", "content": "no", "weight": 0}]}`), Fields{}); err != nil || Digest(first.Samples) != Digest(set.Samples) {
			t.Errorf("%s: other tokens, %v", text, err)
		}
	}
	alpaca := `{"system": "Be brief.", "instruction": "Add.", "input": "1 and 2", "output": "3"}`
	same := `{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Add.\n\n1 and 2"}, {"role": "assistant", "content": "3"}]}`
	a, err := enc.Read(write(t, "x.jsonl", alpaca), Fields{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := enc.Read(write(t, "x.jsonl", same), Fields{})
	if err != nil || Digest(a.Samples) != Digest(b.Samples) {
		t.Error("Alpaca with a system prompt has other tokens", err)
	}
	for text, want := range map[string]string{
		`{"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "no", "weight": 0.5}]}`: "turn 2: weight 0.5 is neither 0 nor 1",
		`{"conversations": [{"from": "narrator", "value": "Who?"}]}`:                                             `turn 1 is from "narrator"`,
	} {
		if _, err := enc.Read(write(t, "x.jsonl", text), Fields{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestTools gives the template the tools of a record, which may be the text of a list.
func TestTools(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	tmpl, err := NewTemplate("{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"+
		"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", tok)
	if err != nil {
		t.Fatal(err)
	}
	enc := &Encoder{Tokenizer: tok, Context: 200, Template: tmpl}
	for tools, want := range map[string]string{
		`[{"name": "w"}]`:       `[{"name": "w"}]<|im_start|>user`,
		`"[{\"name\": \"w\"}]"`: `[{"name": "w"}]<|im_start|>user`,
		`""`:                    "<|im_start|>user",
		`null`:                  "<|im_start|>user",
	} {
		set, err := enc.Read(write(t, "x.jsonl", `{"tools": `+tools+`, "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Zorp"}]}`), Fields{})
		if err != nil {
			t.Fatal(err)
		}
		if got := tok.Decode(set.Samples[0].IDs, tokenizer.DecodeOptions{}); !strings.HasPrefix(got, want) {
			t.Errorf("tools %s came as %q", tools, got)
		}
	}
}

// TestMessagesByName reads conversations under other names, those of ShareGPT too.
func TestMessagesByName(t *testing.T) {
	t.Parallel()
	e := &Encoder{Tokenizer: sprig(t), Template: templateFunc(chatML), Context: 100}
	for line, want := range map[string]string{
		`{"turns":[{"from":"human","value":"Hi"},{"from":"gpt","value":"One."}]}`:                          "One.<|im_end|>",
		`{"turns":[{"role":"user","content":"Hi"},{"role":"assistant","content":"One."}]}`:                 "One.<|im_end|>",
		`{"system":"Be","turns":[{"from":"human","value":"Hi"},{"from":"gpt","value":"One.","weight":1}]}`: "One.<|im_end|>",
	} {
		set, err := e.Read(write(t, "a.jsonl", line), Fields{Messages: "turns"})
		if err != nil {
			t.Fatal(err)
		}
		if got := trainedText(e.Tokenizer, set.Samples[0]); got != want {
			t.Errorf("%s: trained is %q, want %q", line, got, want)
		}
	}
	if _, err := e.Read(write(t, "a.jsonl", `{"turns":[{"from":"cat","value":"Hi"}]}`), Fields{Messages: "turns"}); err == nil || !strings.Contains(err.Error(), "a.jsonl:1: field turns: turn 1 is from \"cat\"") {
		t.Error(err)
	}
}
