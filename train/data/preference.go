package data

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ReadPreferences makes the samples of a file of pairs: a chosen and a rejected answer
// to the same prompt. Each Sample is the chosen one, its Rejected the other; trained
// are the answers only. A record is one of
//
//	{"prompt": …, "chosen": …, "rejected": …}    strings, or lists of messages
//	{"messages": […], "chosen": …, "rejected": …}  the answers being messages or lists of them
//	{"chosen": …, "rejected": …}                 two conversations, or two texts, with the same beginning
//
// Records that are too long, or leave nothing to train in one of the answers, are
// treated as [Encoder.Read] treats its own.
func (e *Encoder) ReadPreferences(path string, f Fields) (*Set, error) {
	return e.readExamples(path, f, func(r raw) (Sample, error) {
		chosen, rejected, err := readPreference(path, f, r)
		if err != nil {
			return Sample{}, err
		}
		s, err := e.sample(chosen)
		if err != nil {
			return Sample{}, fmt.Errorf("chosen: %w", err)
		}
		other, err := e.sample(rejected)
		if err != nil {
			return Sample{}, fmt.Errorf("rejected: %w", err)
		}
		if slices.Equal(s.IDs, other.IDs) {
			return Sample{}, fmt.Errorf("the chosen and the rejected answer are the same")
		}
		s.Rejected = &other
		return s, nil
	})
}

// ReadLabelled makes the samples of a file of answers called good or bad: records as
// [Encoder.Read] takes them, with {"label": true or false} beside. Each Sample has as
// Mismatched its prompt with the answer of the record before (of the last, for the
// first), which objectives need that ask how far the model has gone.
func (e *Encoder) ReadLabelled(path string, f Fields) (*Set, error) {
	var recs []Record
	set, err := e.readExamples(path, f, func(r raw) (Sample, error) {
		name := or(f.Label, "label")
		var good *bool
		if b, ok := r.fields[name]; ok {
			if json.Unmarshal(b, &good) != nil {
				var n float64
				if err := json.Unmarshal(b, &n); err != nil || n != 0 && n != 1 {
					return Sample{}, fmt.Errorf("field %s is neither true nor false", name)
				}
				on := n == 1
				good = &on
			}
		}
		if good == nil {
			return Sample{}, fmt.Errorf("the record has no field %s, which says whether the answer is good", name)
		}
		rec := Record{Path: path, Line: r.line}
		if err := rec.fill(f, r.fields); err != nil {
			return Sample{}, err
		}
		if rec.Text != nil {
			return Sample{}, fmt.Errorf("plain text has no answer that could be good or bad")
		}
		lastAnswerOnly(rec.Messages)
		s, err := e.sample(rec)
		s.Bad = !*good
		s.at = len(recs)
		recs = append(recs, rec)
		return s, err
	})
	if err != nil {
		return nil, err
	}
	for i := range set.Samples {
		s := &set.Samples[i]
		other := &set.Samples[(i+len(set.Samples)-1)%len(set.Samples)]
		rec, err := swapAnswer(recs[s.at], recs[other.at])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, s.Lines[0], err)
		}
		m, err := e.sample(rec)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: with the answer of line %d: %w", path, s.Lines[0], other.Lines[0], err)
		}
		e.cut(&m)
		if m.Trained() > 0 { // else the prompt fills the context
			s.Mismatched = &m
		}
	}
	return set, nil
}

// readExamples reads a file whose records become one sample each, answer by answer.
func (e *Encoder) readExamples(path string, f Fields, sample func(raw) (Sample, error)) (*Set, error) {
	if err := e.Options.check(); err != nil {
		return nil, err
	}
	switch {
	case e.Context < 2:
		return nil, fmt.Errorf("data: a context of %d tokens", e.Context)
	case e.Pack:
		return nil, fmt.Errorf("data: examples of preferences cannot be packed")
	case e.Train == "all":
		return nil, fmt.Errorf("data: in examples of preferences the answers alone are trained")
	}
	if ok, err := IsRecords(path); err != nil {
		return nil, err
	} else if !ok {
		return nil, fmt.Errorf("%s: it is plain text; preferences are records (JSON or JSONL)", path)
	}
	set := &Set{}
	take := taker{e: e, set: set}
	for r, err := range records(path) {
		if err != nil {
			return nil, err
		}
		set.Stats.Records++
		s, err := sample(r)
		if err != nil {
			if strings.HasPrefix(err.Error(), path) {
				return nil, err
			}
			return nil, fmt.Errorf("%s:%d: %w", path, r.line, err)
		}
		s.Path, s.Lines = path, []int{r.line}
		take.add(s, r.line)
	}
	if err := take.finish(path); err != nil {
		return nil, err
	}
	return set, set.count(path)
}

// readPreference reads the two records of a pair.
func readPreference(path string, f Fields, r raw) (chosen, rejected Record, err error) {
	names := [2]string{or(f.Chosen, "chosen"), or(f.Rejected, "rejected")}
	for _, n := range names {
		if len(r.fields[n]) == 0 {
			return chosen, rejected, fmt.Errorf("the record has the fields %s, and a pair needs %s and %s (and the prompt, unless they begin with it)",
				strings.Join(slices.Sorted(maps.Keys(r.fields)), ", "), names[0], names[1])
		}
	}
	base := Record{Path: path, Line: r.line}
	if err := base.readTools(r.fields); err != nil {
		return chosen, rejected, err
	}
	before, text, given, err := readPrompt(f, r.fields)
	if err != nil {
		return chosen, rejected, err
	}
	both := [2]Record{base, base}
	var texts [2]*string
	for i, n := range names {
		b := r.fields[n]
		if b[0] == '"' {
			s, err := str(n, b)
			if err != nil {
				return chosen, rejected, err
			}
			texts[i] = &s
			continue
		}
		if b[0] == '{' {
			b = slices.Concat([]byte("["), b, []byte("]"))
		}
		if both[i].Messages, err = anyMessages(n, b); err != nil {
			return chosen, rejected, err
		}
	}
	if (texts[0] == nil) != (texts[1] == nil) {
		return chosen, rejected, fmt.Errorf("%s and %s are not of the same kind", names[0], names[1])
	}
	switch {
	case texts[0] != nil && before != nil:
		for i := range both {
			both[i].Messages = append(slices.Clone(before), NewMessage("assistant", *texts[i]))
		}
	case texts[0] != nil:
		if !given {
			text = commonText(*texts[0], *texts[1])
			for i := range texts {
				*texts[i] = (*texts[i])[len(text):]
			}
		}
		for i := range both {
			both[i].Pair = &[2]string{text, *texts[i]}
		}
	default:
		if text != "" {
			before = []Message{NewMessage("user", text)}
		}
		if !given {
			n := commonTurns(both[0].Messages, both[1].Messages)
			before = both[0].Messages[:n:n]
			both[0].Messages, both[1].Messages = both[0].Messages[n:], both[1].Messages[n:]
		}
		before = slices.Clone(before)
		for i := range before {
			before[i].Train = false
		}
		for i := range both {
			if !slices.ContainsFunc(both[i].Messages, func(m Message) bool { return m.Role == "assistant" }) {
				return chosen, rejected, fmt.Errorf("%s has no answer of the assistant that the other does not have", names[i])
			}
			both[i].Messages = append(slices.Clone(before), both[i].Messages...)
		}
	}
	for i := range both {
		lastAnswerOnlyAfter(both[i].Messages, len(before))
	}
	return both[0], both[1], nil
}

// readPrompt reads what comes before both answers: messages or a text.
func readPrompt(f Fields, fields map[string]json.RawMessage) (before []Message, text string, given bool, err error) {
	for _, n := range []string{or(f.Prompt, "prompt"), or(f.Messages, "messages"), "conversations"} {
		b := fields[n]
		if len(b) == 0 || string(b) == "null" {
			continue
		}
		if b[0] == '"' {
			text, err = str(n, b)
			return nil, text, true, err
		}
		before, err = anyMessages(n, b)
		return before, "", true, err
	}
	return nil, "", false, nil
}

// anyMessages reads a list of messages, ShareGPT's among them.
func anyMessages(name string, b json.RawMessage) ([]Message, error) {
	if speaks(b) {
		var r Record
		err := r.readShareGPT(name, map[string]json.RawMessage{name: b})
		return r.Messages, err
	}
	return messages(name, b)
}

// commonText is the beginning that two texts share, without the white space at its
// end, which belongs to the answers.
func commonText(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	for n > 0 && n < len(a) && !utf8.RuneStart(a[n]) || n > 0 && n < len(b) && !utf8.RuneStart(b[n]) {
		n--
	}
	return strings.TrimRightFunc(a[:n], unicode.IsSpace)
}

// commonTurns is how many messages two conversations begin with in common, up to
// before the last of the shorter.
func commonTurns(a, b []Message) int {
	n := 0
	for n < min(len(a), len(b))-1 && a[n].Role == b[n].Role && reflect.DeepEqual(a[n].Value, b[n].Value) {
		n++
	}
	return n
}

// lastAnswerOnly leaves only the last answer to be trained.
func lastAnswerOnly(ms []Message) {
	last := len(ms)
	for i, m := range ms {
		if m.Role == "assistant" {
			last = i
		}
	}
	lastAnswerOnlyAfter(ms, last)
}

// lastAnswerOnlyAfter trains the answers from message n on, and none before.
func lastAnswerOnlyAfter(ms []Message, n int) {
	for i := range ms {
		ms[i].Train = i >= n && ms[i].Role == "assistant"
	}
}

// swapAnswer is the prompt of a with the answer of b.
func swapAnswer(a, b Record) (Record, error) {
	r := Record{Path: a.Path, Line: a.Line, Tools: a.Tools}
	if a.Pair != nil && b.Pair != nil {
		r.Pair = &[2]string{a.Pair[0], b.Pair[1]}
		return r, nil
	}
	if a.Messages == nil || b.Messages == nil {
		return r, fmt.Errorf("records of pairs of strings and of conversations cannot be mixed in answers with labels")
	}
	trained := func(ms []Message) int { return slices.IndexFunc(ms, func(m Message) bool { return m.Train }) }
	i, j := trained(a.Messages), trained(b.Messages)
	if i < 0 || j < 0 {
		return r, fmt.Errorf("the conversation has no answer of the assistant")
	}
	r.Messages = append(slices.Clone(a.Messages[:i]), b.Messages[j])
	return r, nil
}
