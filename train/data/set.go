package data

import (
	"fmt"
	"slices"
	"strings"
)

// Set is a data set ready for use.
type Set struct {
	Samples []Sample
	Stats   Stats
}

// Stats say what became of the records of a file.
type Stats struct {
	Records   int `json:"records"`   // in the file
	Samples   int `json:"samples"`   // made of them, before packing
	Sequences int `json:"sequences"` // after packing; the same without it
	Tokens    int `json:"tokens"`    // in the samples
	Trained   int `json:"trained"`   // of them, those that count in the loss
	Longest   int `json:"longest"`   // tokens of the longest sequence
	// Truncated are records whose end was cut off, and CutTokens what they lost.
	Truncated      int   `json:"truncated"`
	TruncatedLines []int `json:"truncated_lines,omitempty"`
	CutTokens      int   `json:"cut_tokens"`
	// DroppedLong and DroppedUntrained are records left out as Options allow.
	DroppedLong      int   `json:"dropped_long"`
	DroppedUntrained int   `json:"dropped_untrained"`
	DroppedLines     []int `json:"dropped_lines,omitempty"`
	// NoEnd are records, not cut off, of which no trained token is one that a generation
	// stops at: what is learned from them does not stop. See [Encoder.Check].
	NoEnd      int   `json:"no_end"`
	NoEndLines []int `json:"no_end_lines,omitempty"`
}

// And is what two files come to together. Lines of files are named by none.
func (s Stats) And(o Stats) Stats {
	return Stats{Records: s.Records + o.Records, Samples: s.Samples + o.Samples, Sequences: s.Sequences + o.Sequences,
		Tokens: s.Tokens + o.Tokens, Trained: s.Trained + o.Trained, Longest: max(s.Longest, o.Longest),
		Truncated: s.Truncated + o.Truncated, CutTokens: s.CutTokens + o.CutTokens,
		DroppedLong: s.DroppedLong + o.DroppedLong, DroppedUntrained: s.DroppedUntrained + o.DroppedUntrained, NoEnd: s.NoEnd + o.NoEnd}
}

// Lines that are named in an error or kept in Stats, at most.
const maxNamed = 20

func name(lines []int, line int) []int {
	if len(lines) < maxNamed {
		lines = append(lines, line)
	}
	return lines
}

// lineList writes the first lines of n: "lines 3, 9 and 12 more".
func lineList(lines []int, n int) string {
	s := make([]string, len(lines))
	for i, l := range lines {
		s[i] = fmt.Sprint(l)
	}
	out := "line"
	if n > 1 {
		out += "s"
	}
	out += " " + strings.Join(s, ", ")
	if n > len(lines) {
		out += fmt.Sprintf(" and %d more", n-len(lines))
	}
	return out
}

// Notes say in words what a person should know before training on the set.
func (s Stats) Notes() (notes []string) {
	if s.Truncated > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d records are longer than the context: %d tokens are cut off (%s)",
			s.Truncated, s.Records, s.CutTokens, lineList(s.TruncatedLines, s.Truncated)))
	}
	if n := s.DroppedLong + s.DroppedUntrained; n > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d records are left out: %d too long, %d without a token to train on (%s)",
			n, s.Records, s.DroppedLong, s.DroppedUntrained, lineList(s.DroppedLines, n)))
	}
	if s.NoEnd > 0 {
		notes = append(notes, fmt.Sprintf("in %d of %d records no trained token ends the answer: what is learned from them does not stop",
			s.NoEnd, s.Records))
	}
	return notes
}

// Read makes the samples of a file. Records that cannot be used as they are make it
// fail with their lines, unless Options say what else to do with them; everything
// that is cut off or left out is counted.
func (e *Encoder) Read(path string, f Fields) (*Set, error) {
	if err := e.Options.check(); err != nil {
		return nil, err
	}
	if e.Context < 2 {
		return nil, fmt.Errorf("data: a context of %d tokens", e.Context)
	}
	isRecords, err := IsRecords(path)
	if err != nil {
		return nil, err
	}
	set := &Set{}
	if isRecords {
		err = e.readRecords(set, path, f)
	} else {
		err = e.readText(set, path)
	}
	if err != nil {
		return nil, err
	}
	if err := set.count(path); err != nil {
		return nil, err
	}
	if e.Pack {
		set.Samples = Pack(set.Samples, e.Context)
		set.Stats.Sequences, set.Stats.Longest = len(set.Samples), longest(set.Samples)
	}
	return set, nil
}

// count fills in the statistics of the samples as they are.
func (set *Set) count(path string) error {
	if len(set.Samples) == 0 {
		return fmt.Errorf("%s: there is nothing to train on in it", path)
	}
	st := &set.Stats
	for _, s := range set.Samples {
		st.Samples++
		st.Tokens += len(s.IDs)
		st.Trained += s.Trained()
		if s.Rejected != nil {
			st.Tokens += len(s.Rejected.IDs)
			st.Trained += s.Rejected.Trained()
		}
	}
	st.Sequences, st.Longest = len(set.Samples), longest(set.Samples)
	return nil
}

func longest(samples []Sample) (n int) {
	for _, s := range samples {
		n = max(n, s.longest())
	}
	return n
}

func (e *Encoder) readText(set *Set, path string) error {
	text, err := ReadText(path)
	if err != nil {
		return err
	}
	set.Stats.Records = 1
	set.Samples = e.Text(text, false)
	for i := range set.Samples {
		set.Samples[i].Path = path
	}
	return nil
}

func (e *Encoder) readRecords(set *Set, path string, f Fields) error {
	take := taker{e: e, set: set}
	for rec, err := range Records(path, f) {
		if err != nil {
			return err
		}
		set.Stats.Records++
		if rec.Text != nil {
			for _, s := range e.Text(*rec.Text, true) {
				s.Path, s.Lines = path, []int{rec.Line}
				set.Samples = append(set.Samples, s)
			}
			continue
		}
		s, err := e.Sample(rec)
		if err != nil {
			return err
		}
		take.add(s, rec.Line)
	}
	return take.finish(path)
}

// taker adds samples to a set as far as they can be used, and counts what happens to
// the others.
type taker struct {
	e                 *Encoder
	set               *Set
	untrained, long   []int // lines that are refused
	nUntrained, nLong int
}

// cut shortens a sample to the context and returns how many tokens it lost.
func (e *Encoder) cut(s *Sample) int {
	n := len(s.IDs) - e.Context
	if n <= 0 {
		return 0
	}
	s.IDs, s.Train = s.IDs[:e.Context:e.Context], s.Train[:e.Context:e.Context]
	return n
}

func (t *taker) add(s Sample, line int) {
	e, st := t.e, &t.set.Stats
	whole := s.longest() <= e.Context
	if !whole {
		switch e.Long {
		case "drop":
			st.DroppedLong++
			st.DroppedLines = name(st.DroppedLines, line)
			return
		case "error":
			t.nLong++
			t.long = name(t.long, line)
			return
		}
		st.Truncated++
		st.TruncatedLines = name(st.TruncatedLines, line)
		st.CutTokens += e.cut(&s)
		if s.Rejected != nil {
			st.CutTokens += e.cut(s.Rejected)
		}
	}
	if s.Trained() == 0 || s.Rejected != nil && s.Rejected.Trained() == 0 {
		if e.Untrained == "drop" {
			st.DroppedUntrained++
			st.DroppedLines = name(st.DroppedLines, line)
		} else {
			t.nUntrained++
			t.untrained = name(t.untrained, line)
		}
		return
	}
	if whole && !(e.ends(s) && (s.Rejected == nil || e.ends(*s.Rejected))) {
		st.NoEnd++
		st.NoEndLines = name(st.NoEndLines, line)
	}
	t.set.Samples = append(t.set.Samples, s)
}

// finish gives the error of the records that are refused.
func (t *taker) finish(path string) error {
	records := t.set.Stats.Records
	if t.nLong > 0 {
		return fmt.Errorf("%s: %d of %d records are longer than %d tokens: %s", path, t.nLong, records, t.e.Context, lineList(t.long, t.nLong))
	}
	if t.nUntrained > 0 {
		return fmt.Errorf("%s: %d of %d records have no token to train on (no answer, or it begins after the first %d tokens): %s; give them a longer --context, or leave them out (train: --untrained drop)",
			path, t.nUntrained, records, t.e.Context, lineList(t.untrained, t.nUntrained))
	}
	return nil
}

// ends says whether a generation stops at a trained token of s.
func (e *Encoder) ends(s Sample) bool {
	for i := len(s.IDs) - 1; i >= 0; i-- {
		if s.Train[i] && e.stops(s.IDs[i]) {
			return true
		}
	}
	return false
}

// Lines of all samples, for messages; empty for plain text.
func (s Sample) lineText() string {
	if len(s.Lines) == 0 {
		return ""
	}
	l := slices.Clone(s.Lines)
	return lineList(l[:min(len(l), maxNamed)], len(l))
}
