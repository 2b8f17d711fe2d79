package tokenizer

import "strings"

// mark stands for a space in SentencePiece vocabularies.
const mark = "▁"

// segmenter cuts text where no token can reach across, so that the parts can be
// encoded by themselves, and remembered, with the result that the whole would have
// had. A merge makes a token; so if no token has character c before a mark, nothing
// is ever merged across such a place, and what happens on one side does not depend
// on the other.
type segmenter struct {
	before map[string]bool // characters that stand before a mark inside some token
}

func newSegmenter(ids map[string]int32) *segmenter {
	s := &segmenter{map[string]bool{mark: true}}
	for tok := range ids {
		for i, prev := 0, ""; i < len(tok); {
			c := tok[i:min(i+leadLen(tok[i]), len(tok))]
			if c == mark && prev != "" {
				s.before[prev] = true
			}
			prev = c
			i += len(c)
		}
	}
	return s
}

// next is the end of the part of text that begins at byte i.
func (s *segmenter) next(text string, i int) int {
	prev := ""
	for i < len(text) {
		if prev != "" && text[i] == mark[0] && strings.HasPrefix(text[i:], mark) && !s.before[prev] {
			return i
		}
		prev = text[i:min(i+leadLen(text[i]), len(text))]
		i += len(prev)
	}
	return i
}
