package data

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Fields names the fields of a record where they are not the usual ones. Empty means
// the usual one, which is the YAML name.
type Fields struct {
	Messages   string `json:"messages,omitempty" yaml:"messages,omitempty"`
	Prompt     string `json:"prompt,omitempty" yaml:"prompt,omitempty"`
	Completion string `json:"completion,omitempty" yaml:"completion,omitempty"`
	Text       string `json:"text,omitempty" yaml:"text,omitempty"`
	Chosen     string `json:"chosen,omitempty" yaml:"chosen,omitempty"`
	Rejected   string `json:"rejected,omitempty" yaml:"rejected,omitempty"`
	Label      string `json:"label,omitempty" yaml:"label,omitempty"`
}

// Over is f where it names something, else other.
func (f Fields) Over(other Fields) Fields {
	for _, x := range []struct{ mine, others *string }{
		{&f.Messages, &other.Messages}, {&f.Prompt, &other.Prompt}, {&f.Completion, &other.Completion}, {&f.Text, &other.Text},
		{&f.Chosen, &other.Chosen}, {&f.Rejected, &other.Rejected}, {&f.Label, &other.Label},
	} {
		*x.mine = or(*x.mine, *x.others)
	}
	return f
}

// Record is one record before it is tokenized. Exactly one of Messages, Pair and
// Text is given.
type Record struct {
	Path     string
	Line     int
	Messages []Message
	Tools    any        // what the template gets as tools; nil if the record has none
	Pair     *[2]string // prompt and completion
	Text     *string
}

// Message is one turn of a conversation.
type Message struct {
	Role  string
	Train bool // for an assistant's: whether it is trained, unless the record says otherwise
	Value any  // all its fields, as the template gets them
}

// at names the record in errors.
func (r Record) at() string { return fmt.Sprintf("%s:%d", r.Path, r.Line) }

// shape is one way in which a record can hold its sample. A record is of the first
// shape whose fields it has all.
type shape struct {
	name string
	need func(Fields) []string
	read func(rec *Record, f Fields, fields map[string]json.RawMessage) error
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

var shapes = []shape{
	{"messages", func(f Fields) []string { return []string{or(f.Messages, "messages")} }, readMessages},
	{"prompt and completion", func(f Fields) []string {
		return []string{or(f.Prompt, "prompt"), or(f.Completion, "completion")}
	}, readPair},
	{"conversations (ShareGPT)", func(Fields) []string { return []string{"conversations"} }, readConversations},
	{"instruction and output (Alpaca)", func(Fields) []string { return []string{"instruction", "output"} }, readAlpaca},
	{"text", func(f Fields) []string { return []string{or(f.Text, "text")} }, readTextField},
}

// Records iterates over the records of a JSONL or JSON file. It stops after an error,
// which names the line.
func Records(path string, f Fields) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for r, err := range records(path) {
			rec := Record{Path: path, Line: r.line}
			if err == nil {
				err = rec.fill(f, r.fields)
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

func (r *Record) fill(f Fields, fields map[string]json.RawMessage) error {
	for _, s := range shapes {
		if !slices.ContainsFunc(s.need(f), func(n string) bool { return len(fields[n]) == 0 }) {
			if err := s.read(r, f, fields); err != nil {
				return fmt.Errorf("%s: %w", r.at(), err)
			}
			return nil
		}
	}
	have := strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
	var want []string
	for _, s := range shapes {
		want = append(want, strings.Join(s.need(f), " and "))
	}
	return fmt.Errorf("%s: the record has the fields %s, and needs one of: %s (say which field is what, as with --prompt-field and --completion-field)",
		r.at(), have, strings.Join(want, "; "))
}

func readTextField(r *Record, f Fields, fields map[string]json.RawMessage) error {
	name := or(f.Text, "text")
	text, err := str(name, fields[name])
	r.Text = &text
	return err
}

// readPair reads prompt and completion, which are two strings or, as some data sets
// have it, lists of messages; where one of them is a list, a string is a message of the
// user or of the assistant.
func readPair(r *Record, f Fields, fields map[string]json.RawMessage) error {
	names := [2]string{or(f.Prompt, "prompt"), or(f.Completion, "completion")}
	if fields[names[0]][0] == '[' || fields[names[1]][0] == '[' {
		for i, n := range names {
			ms, err := sideOf(n, []string{"user", "assistant"}[i], fields[n])
			if err != nil {
				return err
			}
			for _, m := range ms {
				m.Train = m.Train && i == 1
				r.Messages = append(r.Messages, m)
			}
		}
		return r.readTools(fields)
	}
	var pair [2]string
	for i, n := range names {
		var err error
		if pair[i], err = str(n, fields[n]); err != nil {
			return err
		}
	}
	r.Pair = &pair
	return nil
}

// sideOf are the messages of a list, or the one of role that a string is.
func sideOf(name, role string, b json.RawMessage) ([]Message, error) {
	if b[0] == '[' {
		return messages(name, b)
	}
	text, err := str(name, b)
	return []Message{NewMessage(role, text)}, err
}

// shareGPTRoles are the names of speakers in ShareGPT's records.
var shareGPTRoles = map[string]string{
	"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
	"bing": "assistant", "bard": "assistant", "model": "assistant", "tool": "tool", "observation": "tool", "function_response": "tool",
}

// speaks says whether a list of turns says who speaks as ShareGPT's do.
func speaks(b json.RawMessage) bool {
	var turns []struct{ From, Role string }
	return json.Unmarshal(b, &turns) == nil && len(turns) > 0 && turns[0].From != "" && turns[0].Role == ""
}

// readConversations reads what stands under "conversations": mostly ShareGPT's turns,
// and messages in some data sets.
func readConversations(r *Record, _ Fields, fields map[string]json.RawMessage) error {
	return readMessages(r, Fields{Messages: "conversations"}, fields)
}

// readShareGPT reads turns of {"from": …, "value": …} in the field name, and what the
// record may have in "system" before them.
func (r *Record) readShareGPT(name string, fields map[string]json.RawMessage) error {
	var turns []struct {
		From   string
		Value  *string
		Train  *bool
		Weight *float64
	}
	if err := json.Unmarshal(fields[name], &turns); err != nil {
		return fmt.Errorf("field %s: %w", name, err)
	}
	for i, t := range turns {
		role, ok := shareGPTRoles[t.From]
		if !ok || t.Value == nil {
			return fmt.Errorf("field %s: turn %d is from %q: it needs a value, and one of %s", name, i+1, t.From,
				strings.Join(slices.Sorted(maps.Keys(shareGPTRoles)), ", "))
		}
		m := NewMessage(role, *t.Value)
		if err := m.flags(t.Train, t.Weight); err != nil {
			return fmt.Errorf("field %s: turn %d: %w", name, i+1, err)
		}
		r.Messages = append(r.Messages, m)
	}
	if b := fields["system"]; len(b) > 0 && string(b) != "null" && r.Messages[0].Role != "system" {
		system, err := str("system", b)
		if err != nil {
			return err
		}
		if system != "" {
			r.Messages = slices.Insert(r.Messages, 0, NewMessage("system", system))
		}
	}
	return r.readTools(fields)
}

// readAlpaca reads an instruction, what it is about (which may be missing or empty),
// and the answer. The two former are the prompt, with an empty line between them. What
// "system" says, if it is there, goes before as a message of its own.
func readAlpaca(r *Record, _ Fields, fields map[string]json.RawMessage) error {
	var parts [4]string
	for i, n := range []string{"instruction", "input", "output", "system"} {
		b, ok := fields[n]
		if !ok || string(b) == "null" {
			continue
		}
		var err error
		if parts[i], err = str(n, b); err != nil {
			return err
		}
	}
	if parts[1] != "" {
		parts[0] += "\n\n" + parts[1]
	}
	if parts[3] != "" {
		r.Messages = []Message{NewMessage("system", parts[3]), NewMessage("user", parts[0]), NewMessage("assistant", parts[2])}
		return nil
	}
	r.Pair = &[2]string{parts[0], parts[2]}
	return nil
}

func readMessages(r *Record, f Fields, fields map[string]json.RawMessage) (err error) {
	name := or(f.Messages, "messages")
	if speaks(fields[name]) {
		return r.readShareGPT(name, fields)
	}
	if r.Messages, err = messages(name, fields[name]); err != nil {
		return err
	}
	return r.readTools(fields)
}

// readTools reads the tools of a record: a list, or the text of one in JSON, which is
// how tables hold them.
func (r *Record) readTools(fields map[string]json.RawMessage) (err error) {
	if t, ok := fields["tools"]; ok {
		var text string
		if len(t) > 0 && t[0] == '"' && json.Unmarshal(t, &text) == nil {
			if text == "" {
				return nil
			}
			t = json.RawMessage(text)
		}
		if r.Tools, err = decode(t); err != nil {
			return fmt.Errorf("field tools: %w", err)
		}
	}
	return nil
}

func str(name string, b json.RawMessage) (s string, err error) {
	if b[0] != '"' {
		return "", fmt.Errorf("field %s is not a string", name)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return "", fmt.Errorf("field %s: %w", name, err)
	}
	return s, nil
}

// flags takes a message out of the loss if its own "train" or "weight" says so.
func (m *Message) flags(train *bool, weight *float64) error {
	if weight != nil && *weight != 0 && *weight != 1 {
		return fmt.Errorf("weight %v is neither 0 nor 1", *weight)
	}
	m.Train = m.Train && (train == nil || *train) && (weight == nil || *weight == 1)
	return nil
}

// messages reads a conversation. A message's own "train" (true or false), or
// "weight" (0 or 1), says whether an assistant's turn is trained; the template does
// not see them.
func messages(name string, b json.RawMessage) ([]Message, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("field %s: %w", name, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("field %s is an empty conversation", name)
	}
	out := make([]Message, len(list))
	for i, b := range list {
		where := fmt.Sprintf("field %s: message %d", name, i+1)
		var flags struct {
			Role   *string  `json:"role"`
			Train  *bool    `json:"train"`
			Weight *float64 `json:"weight"`
		}
		if err := json.Unmarshal(b, &flags); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		if flags.Role == nil {
			return nil, fmt.Errorf("%s has no role", where)
		}
		m := Message{Role: *flags.Role, Train: *flags.Role == "assistant"}
		if err := m.flags(flags.Train, flags.Weight); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		v, err := decode(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		m.Value = without(v, "train", "weight")
		out[i] = m
	}
	return out, nil
}
