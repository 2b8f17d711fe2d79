package data

import (
	"fmt"
	"time"

	"github.com/graft-lora/graft/internal/jinja"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// Date is the day that templates are told it is. It is fixed, since some write it
// into the prompt, and the same data must make the same tokens on every day; it is the
// one that Llama 3's template falls back to.
var Date = time.Date(2024, 7, 26, 12, 0, 0, 0, time.UTC)

// ChatTemplate is a [Template] in Jinja, rendered as transformers does it.
type ChatTemplate struct {
	t       *jinja.Template
	special [][2]string // name of the variable, text of the token
}

// NewTemplate parses a chat template; special tokens are those of t.
func NewTemplate(source string, t *tokenizer.Tokenizer) (*ChatTemplate, error) {
	parsed, err := jinja.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("the chat template: %w", err)
	}
	c := &ChatTemplate{t: parsed}
	for _, s := range []struct {
		name string
		id   int32
	}{{"bos_token", t.BOS()}, {"eos_token", t.EOS()}, {"unk_token", t.UNK()}, {"pad_token", t.PAD()}} {
		if s.id >= 0 {
			c.special = append(c.special, [2]string{s.name, t.Token(s.id)})
		}
	}
	return c, nil
}

// Render implements [Template].
func (c *ChatTemplate) Render(messages []any, tools any, generate bool) (text string, spans [][2]int, err error) {
	vars := &jinja.Dict{}
	for _, s := range c.special {
		vars.Set(s[0], s[1])
	}
	list := jinja.NewList()
	for _, m := range messages {
		list.Items = append(list.Items, reasoning(m))
	}
	vars.Set("messages", list)
	vars.Set("tools", tools)
	vars.Set("documents", nil)
	vars.Set("add_generation_prompt", generate)
	out, err := c.t.Render(vars, jinja.Options{Now: func() time.Time { return Date }})
	if err != nil {
		return "", nil, fmt.Errorf("the chat template: %w", err)
	}
	if c.t.HasGeneration() {
		spans = append([][2]int{}, out.Generation...)
	}
	return out.Text, spans, nil
}

// reasoning gives a message all the names under which templates look for what the
// model thought, as transformers does, if it has one of them.
func reasoning(m any) any {
	for _, k := range []string{"reasoning_content", "thinking", "reasoning"} {
		if v := get(m, k); v != nil {
			for _, other := range []string{"reasoning_content", "thinking"} {
				if get(m, other) == nil {
					m = with(m, other, v)
				}
			}
			break
		}
	}
	return m
}
