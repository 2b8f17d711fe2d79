package data

import (
	"fmt"
	"strings"

	"github.com/graft-lora/graft/internal/tokenizer"
)

// Template renders conversations. Spans are the byte ranges of text inside
// {% generation %} blocks, nil if the template has none.
type Template interface {
	Render(messages []any, tools any, generate bool) (text string, spans [][2]int, err error)
}

// Encoder makes samples of records. It is safe for concurrent use if its tokenizer
// and template are.
type Encoder struct {
	Tokenizer *tokenizer.Tokenizer
	Template  Template // nil if the model has none
	Context   int      // longest sample in tokens, at least 2
	// Stops says whether a generation of the deployed model ends at a token; nil asks
	// the tokenizer.
	Stops func(id int32) bool
	Options
}

// Options are choices of how records become samples. The zero value is the default.
type Options struct {
	// Chat says whether a prompt with its completion is rendered as a conversation of
	// one question and one answer: "" or "auto" if the model has a chat template,
	// "always", or "never" (the two strings follow one another as they are).
	Chat string `json:"chat,omitempty" yaml:"chat,omitempty"`
	// Between is put between a prompt and its completion where they are not rendered
	// as a conversation. It counts as prompt.
	Between string `json:"between,omitempty" yaml:"between,omitempty"`
	// Train says what is trained: "" or "answers", all turns of the assistant;
	// "last", the last of them; "all", every token.
	Train string `json:"train,omitempty" yaml:"train,omitempty"`
	// Long says what happens to a record that is longer than the context: "" or
	// "truncate", its end is cut off; "drop"; "error". Plain text and {"text"} are
	// cut into pieces instead.
	Long string `json:"long,omitempty" yaml:"long,omitempty"`
	// Untrained says what happens to a record without a trained token: "" or
	// "error"; "drop".
	Untrained string `json:"untrained,omitempty" yaml:"untrained,omitempty"`
	// Masked says what [Encoder.Check] does with a set of which less than 2 % of the
	// tokens are trained: "" or "error"; "allow".
	Masked string `json:"masked,omitempty" yaml:"masked,omitempty"`
	// Endless says what it does with answers after which the model would not stop: ""
	// or "error"; "allow".
	Endless string `json:"endless,omitempty" yaml:"endless,omitempty"`
	// Pack puts several samples into a sequence, without attention between them.
	Pack bool `json:"pack,omitempty" yaml:"pack,omitempty"`
}

func (o Options) check() error {
	for _, c := range []struct {
		name, value string
		allowed     string
	}{
		{"chat", o.Chat, "auto always never"}, {"train", o.Train, "answers last all"},
		{"long", o.Long, "truncate drop error"}, {"untrained", o.Untrained, "error drop"},
		{"masked", o.Masked, "error allow"}, {"endless", o.Endless, "error allow"},
	} {
		if c.value != "" && !strings.Contains(" "+c.allowed+" ", " "+c.value+" ") {
			return fmt.Errorf("data: %s is %q: it can be %s", c.name, c.value, strings.ReplaceAll(c.allowed, " ", ", "))
		}
	}
	return nil
}

// Sample makes the sample of a record with a conversation or a pair, of any length.
//
// Trained are the bytes of the answers: what the template marks with
// {% generation %}, else what it adds from its generation prompt to the end of the
// turn, found by rendering the conversation up to each answer without and with it.
// Each of these must begin the next; where a template renders an earlier turn
// otherwise when the conversation goes on, the answer is what stands where another
// content would stand; what cannot be located so is refused. The token that ends the turn
// is trained, and what the template writes after it is not. A token is trained if
// it holds any byte of an answer.
func (e *Encoder) Sample(r Record) (Sample, error) {
	s, err := e.sample(r)
	if err != nil {
		return Sample{}, fmt.Errorf("%s: %w", r.at(), err)
	}
	s.Path, s.Lines = r.Path, []int{r.Line}
	return s, nil
}

func (e *Encoder) sample(r Record) (Sample, error) {
	ms := r.Messages
	if r.Pair != nil {
		if e.Chat == "never" || e.Template == nil && e.Chat != "always" {
			return e.plainPair(r.Pair[0]+e.Between, r.Pair[1]), nil
		}
		ms = []Message{NewMessage("user", r.Pair[0]), NewMessage("assistant", r.Pair[1])}
	}
	if e.Template == nil {
		return Sample{}, fmt.Errorf("conversations need a chat template, and the model has none")
	}
	return e.chat(ms, r.Tools)
}

// plainPair is a prompt, its completion, and the end of the document.
func (e *Encoder) plainPair(prompt, completion string) Sample {
	s := e.tokens(prompt+completion, false, [][2]int{{len(prompt), len(prompt) + len(completion)}})
	if eos := e.Tokenizer.EOS(); eos >= 0 {
		s.IDs, s.Train = append(s.IDs, eos), append(s.Train, true)
	}
	if e.Train == "all" {
		s.trainAll()
	}
	return s
}

func (s *Sample) trainAll() {
	for i := range s.Train {
		s.Train[i] = i > 0
	}
}

// tokens tokenizes text, with the first token that the model wants, and trains what
// touches the ranges of bytes given, which are ascending.
func (e *Encoder) tokens(text string, special bool, trained [][2]int) Sample {
	ids, spans := e.Tokenizer.EncodeWithOffsets(text, tokenizer.EncodeOptions{ParseSpecial: special})
	return e.masked(ids, spans, trained)
}

// masked is tokens for text that is tokenized already.
func (e *Encoder) masked(ids []int32, spans []tokenizer.Span, trained [][2]int) Sample {
	s := Sample{IDs: make([]int32, 0, len(ids)+2), Train: make([]bool, 0, len(ids)+2)}
	if bos := e.bos(); bos >= 0 && (len(ids) == 0 || ids[0] != bos) {
		s.IDs, s.Train = append(s.IDs, bos), append(s.Train, false)
	}
	next := 0
	for i, id := range ids {
		for next < len(trained) && trained[next][1] <= spans[i].Start {
			next++
		}
		on := next < len(trained) && spans[i].End > trained[next][0] && spans[i].Start < trained[next][1]
		s.IDs, s.Train = append(s.IDs, id), append(s.Train, on && len(s.IDs) > 0)
	}
	return s
}

// bos is the token that the model wants in front of every text, or -1.
func (e *Encoder) bos() int32 {
	if !e.Tokenizer.AddsBOS() {
		return -1
	}
	return e.Tokenizer.BOS()
}

// Text cuts a text into samples of up to Context tokens that are all trained. Each
// begins with the token that the model wants at the beginning, if it wants one; end
// adds the end of the document.
func (e *Encoder) Text(text string, end bool) []Sample {
	ids := e.Tokenizer.Encode(text, tokenizer.EncodeOptions{})
	if eos := e.Tokenizer.EOS(); end && eos >= 0 {
		ids = append(ids, eos)
	}
	bos := e.bos()
	var out []Sample
	for len(ids) > 0 {
		s := Sample{}
		if bos >= 0 {
			s.IDs = append(s.IDs, bos)
		}
		n := min(len(ids), e.Context-len(s.IDs))
		s.IDs = append(s.IDs, ids[:n]...)
		ids = ids[n:]
		if len(s.IDs) < 2 {
			break // a lone token predicts nothing
		}
		s.Train = make([]bool, len(s.IDs))
		s.trainAll()
		out = append(out, s)
	}
	return out
}
