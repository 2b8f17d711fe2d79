package data

import (
	"fmt"
	"slices"
)

// leastTrained is the part of a set's tokens that must be trained, unless Options say
// that so few are meant: below it the mask is mostly a mistake, and nearly all of the
// time goes into tokens that teach nothing.
const leastTrained = 0.02

// Check says why a set should not be trained on, although every record of it can be:
// answers whose end is not learned, or hardly any token that is trained. The error
// names the file and the lines, and the option that allows it.
func (e *Encoder) Check(set *Set, path string) error {
	st := &set.Stats
	if st.NoEnd > 0 && e.Endless != "allow" {
		return fmt.Errorf("%s: in %d of %d records the answer ends without a token at which the model's generation stops (%s): what learns from them does not stop%s; allow it with endless: allow (--endless allow)",
			path, st.NoEnd, st.Records, lineList(st.NoEndLines, st.NoEnd), e.stopNames())
	}
	if st.Tokens > 0 && float64(st.Trained) < leastTrained*float64(st.Tokens) && e.Masked != "allow" {
		lines := leastTrainedLines(set.Samples)
		return fmt.Errorf("%s: only %d of %d tokens are trained (%.2g %%), the rest is prompt: fewest in %s; look with --show-mask 3, and if it is meant allow it with masked: allow (--masked allow)",
			path, st.Trained, st.Tokens, 100*float64(st.Trained)/float64(st.Tokens), lineList(lines[:min(len(lines), maxNamed)], len(lines)))
	}
	return nil
}

// stops says whether a generation of the deployed model ends at id.
func (e *Encoder) stops(id int32) bool {
	if e.Stops != nil {
		return e.Stops(id)
	}
	return e.Tokenizer.IsEOG(id)
}

// stopNames lists the tokens that a generation stops at.
func (e *Encoder) stopNames() string {
	var names string
	n := 0
	for id := range int32(e.Tokenizer.Size()) {
		if !e.stops(id) {
			continue
		}
		if n++; n > 8 {
			return names + " …)"
		}
		if names == "" {
			names = " (it stops at"
		} else {
			names += ","
		}
		names += fmt.Sprintf(" %q", e.Tokenizer.Token(id))
	}
	if names == "" {
		return " (it stops at no token)"
	}
	return names + ")"
}

// leastTrainedLines are the lines of all samples, those with the smallest part of
// trained tokens first.
func leastTrainedLines(samples []Sample) []int {
	order := make([]int, len(samples))
	part := make([]float64, len(samples))
	for i := range samples {
		order[i] = i
		part[i] = float64(samples[i].Trained()) / float64(len(samples[i].IDs))
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case part[a] < part[b]:
			return -1
		case part[a] > part[b]:
			return 1
		}
		return 0
	})
	var lines []int
	for _, i := range order {
		lines = append(lines, samples[i].Lines...)
	}
	return lines
}
