package data

import (
	"fmt"
	"strings"

	"github.com/graft-lora/graft/internal/tokenizer"
)

// Prompt renders a conversation up to where the assistant is to answer, and
// tokenizes it.
func (e *Encoder) Prompt(messages []Message, tools any) (text string, ids []int32, err error) {
	if e.Template == nil {
		return "", nil, fmt.Errorf("conversations need a chat template, and the model has none")
	}
	text, _, err = e.Template.Render(values(messages), tools, true)
	if err != nil {
		return "", nil, err
	}
	return text, e.tokens(text, true, nil).IDs, nil
}

func values(ms []Message) []any {
	v := make([]any, len(ms))
	for i, m := range ms {
		v[i] = m.Value
	}
	return v
}

// chat is the sample of a conversation.
func (e *Encoder) chat(ms []Message, tools any) (Sample, error) {
	text, marked, err := e.Template.Render(values(ms), tools, false)
	if err != nil {
		return Sample{}, err
	}
	if e.Train == "all" {
		s := e.tokens(text, true, nil)
		s.trainAll()
		return s, nil
	}
	var turns []int // of the assistant
	for i, m := range ms {
		if m.Role == "assistant" {
			turns = append(turns, i)
		}
	}
	chosen := func(turn int) bool {
		return ms[turn].Train && (e.Train != "last" || turn == turns[len(turns)-1])
	}
	if marked != nil {
		// The template's word is taken as it stands: what it leaves unmarked is not trained.
		spans := marked
		if len(marked) == len(turns) {
			spans = spans[:0:0]
			for i, turn := range turns {
				if chosen(turn) {
					spans = append(spans, marked[i])
				}
			}
		} else {
			for _, turn := range turns {
				if !chosen(turn) {
					return Sample{}, fmt.Errorf("the template marks %d spans for %d answers, so a single one cannot be left out", len(marked), len(turns))
				}
			}
		}
		return e.tokens(text, true, spans), nil
	}
	var spans []answer
	for _, turn := range turns {
		a, err := e.locate(text, ms, tools, turn)
		if err != nil {
			return Sample{}, fmt.Errorf("answer of message %d cannot be located in what the template renders: %w", turn+1, err)
		}
		if n := len(spans); n > 0 && a.from < spans[n-1].to {
			return Sample{}, fmt.Errorf("answer of message %d overlaps the one before it in what the template renders", turn+1)
		}
		a.train = chosen(turn)
		spans = append(spans, a)
	}
	return e.answers(text, spans), nil
}

// answer is the range of a rendered conversation that one answer takes.
type answer struct {
	from, to int
	closed   bool // it reaches over the token that ends the turn; else it ends before it
	train    bool
}

// locate finds an answer in text, which is the whole conversation rendered.
func (e *Encoder) locate(text string, ms []Message, tools any, turn int) (answer, error) {
	a, err := e.byPrefix(text, ms, tools, turn)
	if err == nil {
		return a, nil
	}
	a, cerr := e.byContent(text, ms, tools, turn)
	if cerr != nil {
		return answer{}, fmt.Errorf("%w; %w", err, cerr)
	}
	return a, nil
}

// byPrefix takes as answer what the template writes between its generation prompt
// and the end of the turn, if the conversation up to there is rendered the same
// when it goes on.
func (e *Encoder) byPrefix(text string, ms []Message, tools any, turn int) (answer, error) {
	before, _, err := e.Template.Render(values(ms[:turn]), tools, true)
	if err != nil {
		return answer{}, fmt.Errorf("rendering what comes before it: %w", err)
	}
	upto := text
	if turn+1 < len(ms) {
		if upto, _, err = e.Template.Render(values(ms[:turn+1]), tools, false); err != nil {
			return answer{}, fmt.Errorf("rendering the conversation up to it: %w", err)
		}
	}
	if !strings.HasPrefix(text, upto) || !strings.HasPrefix(upto, before) {
		return answer{}, fmt.Errorf("the conversation up to it is rendered otherwise when more follows")
	}
	return answer{from: len(before), to: len(upto), closed: true}, nil
}

// stand is put in the place of an answer's content to see where it goes: a character
// of the private use area.
const stand = "\ue0d0"

// byContent takes as answer what stands where another content would, if nothing
// else of the conversation changes with it. Templates that drop the reasoning of
// earlier answers need it.
func (e *Encoder) byContent(text string, ms []Message, tools any, turn int) (answer, error) {
	if strings.Contains(text, stand) {
		return answer{}, fmt.Errorf("the text holds the character U+E0D0")
	}
	v := values(ms)
	if _, ok := get(v[turn], "content").(string); !ok {
		return answer{}, fmt.Errorf("its content is not a string")
	}
	v[turn] = with(v[turn], "content", stand)
	other, _, err := e.Template.Render(v, tools, false)
	if err != nil {
		return answer{}, err
	}
	before, after, ok := strings.Cut(other, stand)
	if !ok || strings.Contains(after, stand) {
		return answer{}, fmt.Errorf("its content is not rendered once")
	}
	if len(before)+len(after) > len(text) || !strings.HasPrefix(text, before) || !strings.HasSuffix(text, after) {
		return answer{}, fmt.Errorf("the text round it depends on its content")
	}
	return answer{from: len(before), to: len(text) - len(after)}, nil
}

// answers tokenizes a conversation and trains its answers, up to and with the token
// that ends each.
func (e *Encoder) answers(text string, answers []answer) Sample {
	ids, spans := e.Tokenizer.EncodeWithOffsets(text, tokenizer.EncodeOptions{ParseSpecial: true})
	var trained [][2]int
	for _, a := range answers {
		if a.train {
			trained = append(trained, [2]int{a.from, e.endOfTurn(text, ids, spans, a)})
		}
	}
	return e.masked(ids, spans, trained)
}

// endOfTurn is where the token that ends the turn of an answer ends: the first one of
// those that end a generation and have nothing but white space and their like between
// them and the end of a closed answer, or the end of an open one and them. Without
// one it is the end of the answer.
func (e *Encoder) endOfTurn(text string, ids []int32, spans []tokenizer.Span, a answer) int {
	blank := func(t int) bool { return strings.TrimSpace(text[spans[t].Start:spans[t].End]) == "" }
	end := a.to
	if a.closed {
		for t := len(ids) - 1; t >= 0 && spans[t].Start >= a.from; t-- {
			switch {
			case spans[t].End > a.to:
			case e.Tokenizer.IsEOG(ids[t]):
				end = spans[t].End
			case !blank(t):
				return end
			}
		}
		return end
	}
	for t := range ids {
		switch {
		case spans[t].Start < a.to:
		case e.Tokenizer.IsEOG(ids[t]):
			return spans[t].End
		case !blank(t):
			return end
		}
	}
	return end
}
