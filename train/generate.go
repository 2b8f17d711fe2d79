package train

import (
	"context"
	"time"

	"github.com/graft-lora/graft/internal/tokenizer"
	"github.com/graft-lora/graft/train/model"
)

// GenerateOptions says how text is made.
type GenerateOptions struct {
	Sampling
	Max     int  // tokens at most; 0: until the model ends it, or the session is full
	Special bool // special tokens are written by their names, else left out
}

// Generated is what came of a generation.
type Generated struct {
	IDs     []int32       // without the token that ended it
	Text    string        // all of it
	Stopped bool          // the model ended it, not the limit
	Prompt  time.Duration // reading the prompt
	Making  time.Duration // the tokens after it
}

// Generate reads a prompt into s, which may have read something before, and continues
// it. emit, if not nil, gets the text as it is made, in whole characters; an error of
// it ends the generation. The session has then read all tokens but the last.
//
// For a conversation, get the prompt from [data.Encoder.Prompt]; to see a base and
// its adapter side by side, use two sessions one after the other.
func Generate(ctx context.Context, s *model.Session, t *tokenizer.Tokenizer, prompt []int32, o GenerateOptions, emit func(text string) error) (g Generated, err error) {
	if err := o.Check(); err != nil {
		return g, err
	}
	begun := time.Now()
	logits, err := s.Append(prompt)
	if err != nil {
		return g, err
	}
	g.Prompt = time.Since(begun)
	begun = time.Now()
	defer func() { g.Making = time.Since(begun) }()
	decoder := t.NewDecoder(tokenizer.DecodeOptions{SkipSpecial: !o.Special})
	write := func(text string) error {
		g.Text += text
		if text == "" || emit == nil {
			return nil
		}
		return emit(text)
	}
	history := append([]int32(nil), prompt...)
	for o.Max == 0 || len(g.IDs) < o.Max {
		if err := ctx.Err(); err != nil {
			return g, err
		}
		id := o.pick(logits, history, len(g.IDs))
		if t.IsEOG(id) {
			g.Stopped = true
			break
		}
		g.IDs, history = append(g.IDs, id), append(history, id)
		if err := write(decoder.Add(id)); err != nil {
			return g, err
		}
		if s.Room() == 0 || o.Max > 0 && len(g.IDs) == o.Max {
			break
		}
		if logits, err = s.Append(history[len(history)-1:]); err != nil {
			return g, err
		}
	}
	return g, write(decoder.Flush())
}
