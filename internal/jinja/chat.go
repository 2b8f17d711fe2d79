package jinja

import (
	"errors"
	"fmt"
	"strings"
)

// Chat renders conversations with the chat template of a model. It is safe for
// concurrent use.
type Chat struct {
	Template *Template
	// Tokens are the special tokens that the template can name: bos_token,
	// eos_token and so on. A token that the model does not have is left out.
	Tokens map[string]string
	Options
}

// ChatInput is a conversation. Values are not changed.
type ChatInput struct {
	Messages  *List // of dicts
	Tools     Value // nil, or a list of dicts
	Documents Value // nil, or a list of dicts
	Generate  bool  // add_generation_prompt: end where the assistant is to answer
	// Continue ends the output right after the text of the last message, for the
	// model to go on with it.
	Continue bool
	Extra    *Dict // further variables; nil: none
}

// Render renders a conversation.
func (c *Chat) Render(in ChatInput) (Output, error) {
	vars := &Dict{}
	for k, v := range c.Tokens {
		vars.Set(k, v)
	}
	messages := NewList()
	if in.Messages != nil {
		for _, m := range in.Messages.Items {
			messages.Items = append(messages.Items, withReasoning(m))
		}
	}
	vars.Set("messages", messages)
	vars.Set("tools", in.Tools)
	vars.Set("documents", in.Documents)
	vars.Set("add_generation_prompt", in.Generate)
	if in.Extra != nil {
		for i, k := range in.Extra.keys {
			vars.Set(k, in.Extra.values[i])
		}
	}
	out, err := c.Template.Render(vars, c.Options)
	if err != nil || !in.Continue {
		return out, err
	}
	return cutAfterLast(out, messages)
}

// withReasoning gives a message that has its reasoning under one name all the names
// that templates ask for.
func withReasoning(m Value) Value {
	d, ok := m.(*Dict)
	if !ok {
		return m
	}
	for _, name := range []string{"reasoning_content", "thinking", "reasoning"} {
		v, ok := d.Get(name)
		if !ok {
			continue
		}
		d = d.Clone()
		for _, other := range []string{"reasoning_content", "thinking"} {
			if _, ok := d.Get(other); !ok {
				d.Set(other, v)
			}
		}
		return d
	}
	return m
}

// cutAfterLast ends the output after the text of the last message.
func cutAfterLast(out Output, messages *List) (Output, error) {
	if len(messages.Items) == 0 {
		return Output{}, errors.New("jinja: continue_final_message: the conversation is empty")
	}
	last, _ := messages.Items[len(messages.Items)-1].(*Dict)
	var content Value
	if last != nil {
		content, _ = last.Get("content")
	}
	if parts, ok := content.(*List); ok {
		for _, p := range parts.Items {
			if d, ok := p.(*Dict); ok {
				if t, ok := d.Get("text"); ok {
					content = t
				}
			}
		}
	}
	text, ok := content.(string)
	if !ok {
		return Output{}, errors.New("jinja: continue_final_message: the last message has no text")
	}
	bare := strings.TrimFunc(text, pySpace)
	at := strings.LastIndex(out.Text, bare)
	if at < 0 {
		return Output{}, fmt.Errorf("jinja: continue_final_message: the text of the last message does not appear in the rendered conversation")
	}
	end := at + len(bare)
	if left := strings.TrimLeftFunc(text, pySpace); strings.HasPrefix(out.Text[at:], left) {
		end = at + len(left)
	}
	out.Text = out.Text[:end]
	var kept [][2]int
	for _, g := range out.Generation {
		if g[0] < end {
			kept = append(kept, [2]int{g[0], min(g[1], end)})
		}
	}
	out.Generation = kept
	return out, nil
}
