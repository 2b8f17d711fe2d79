package tokenizer

import (
	"strings"
	"sync"

	"github.com/dlclark/regexp2"
)

// Stand-ins by which llama.cpp writes the categories of code points beyond ASCII
// before it runs an expression, since the expressions of C++ know no categories.
const (
	standNumber = 0xd1 + iota
	standLetter
	standPunct
	standMark
	standSymbol
	standOther = 0xd0
	standSpace = 0x0b
)

// categories are the classes of an expression: the ASCII members and the stand-in.
var categories = []struct{ name, members string }{
	{`\p{N}`, "\u00d10-9"},
	{`\p{L}`, "\u00d2A-Za-z"},
	{`\p{Lu}`, "\u00d2A-Za-z"}, {`\p{Ll}`, "\u00d2A-Za-z"}, {`\p{Lt}`, "\u00d2A-Za-z"}, {`\p{Lm}`, "\u00d2A-Za-z"}, {`\p{Lo}`, "\u00d2A-Za-z"},
	{`\p{P}`, "\u00d3!-#%-*,-/:-;?-@\\[-\\]_{}"},
	{`\p{M}`, "\u00d4"},
	{`\p{S}`, "\u00d5$+<->^`|~"},
	{`\s`, "\t-\r "},
}

// regexSplit splits at the matches of an expression: each is a word, and so is what
// stands between two. It is what llama.cpp does with the expressions that it has no
// code for: those with categories see stand-ins instead of characters beyond ASCII,
// the others see the text, but a vertical tab for white space beyond ASCII. \s, \d
// and \w are ASCII only.
func regexSplit(pattern string) splitter {
	byCategory := strings.Contains(pattern, `\p{`)
	compile := sync.OnceValue(func() *regexp2.Regexp { return regexp2.MustCompile(expand(pattern), regexp2.ECMAScript) })
	return func(ends []int, text string) []int {
		runes := make([]rune, 0, len(text))
		at := make([]int, 0, len(text)+1) // where each code point begins
		cls := classes()
		for i, r := range text {
			at = append(at, i)
			if r >= 0x80 {
				r = standIn(r, cls[r], byCategory)
			}
			runes = append(runes, r)
		}
		at = append(at, len(text))
		done := 0
		put := func(end int) {
			if end > done {
				ends = append(ends, at[end])
				done = end
			}
		}
		re := compile()
		m, err := re.FindRunesMatch(runes)
		for err == nil && m != nil {
			put(m.Index)
			put(m.Index + m.Length)
			m, err = re.FindNextMatch(m)
		}
		put(len(runes))
		return ends
	}
}

func standIn(r rune, c class, byCategory bool) rune {
	switch {
	case c.space():
		return standSpace
	case !byCategory:
		return r
	case c.number():
		return standNumber
	case c.letter():
		return standLetter
	case c == clsPunct:
		return standPunct
	case c.mark():
		return standMark
	case c == clsSymbol:
		return standSymbol
	}
	return standOther
}

// expand writes the categories of a pattern as classes of stand-ins.
func expand(pattern string) string {
	var b strings.Builder
	inside := false
	for i := 0; i < len(pattern); {
		if pattern[i] == '\\' {
			found := false
			for _, c := range categories {
				if strings.HasPrefix(pattern[i:], c.name) {
					if inside {
						b.WriteString(c.members)
					} else {
						b.WriteString("[" + c.members + "]")
					}
					i += len(c.name)
					found = true
					break
				}
			}
			if !found && strings.HasPrefix(pattern[i:], `\S`) && !inside {
				b.WriteString("[^\t-\r ]")
				i += 2
			} else if !found {
				b.WriteString(pattern[i : i+2])
				i += 2
			}
			continue
		}
		switch {
		case pattern[i] == '[' && !inside:
			inside = true
		case pattern[i] == ']':
			inside = false
		}
		b.WriteByte(pattern[i])
		i++
	}
	return b.String()
}

// splitDigitGroups groups digits by three from the right. What stands before a
// number belongs to its first group, as llama.cpp has it.
func splitDigitGroups(ends []int, text string) []int {
	r := &reader{text, classes()}
	done := 0
	for i := 0; i < len(text); {
		_, c, next := r.at(i)
		if !c.number() {
			i = next
			continue
		}
		var stops []int // the end of each digit
		for c.number() {
			i = next
			stops = append(stops, i)
			_, c, next = r.at(i)
		}
		k := len(stops) % 3
		if k == 0 {
			k = 3
		}
		for ; k <= len(stops); k += 3 {
			ends = append(ends, stops[k-1])
		}
		done = i
	}
	if done < len(text) {
		ends = append(ends, len(text))
	}
	return ends
}

// splitKimi is the pattern of Kimi K2: ideographs by themselves, other words with
// their contraction, the rest as in llama3.
func splitKimi(ends []int, text string) []int {
	r := &reader{text, classes()}
	rest := tiktoken{digits: 3}
	word := func(i int) int {
		for {
			c, cls, next := r.at(i)
			if !cls.letter() || ideograph(c) {
				return i
			}
			i = next
		}
	}
	for i := 0; i < len(text); {
		c, cls, next := r.at(i)
		end := i
		switch {
		case ideograph(c):
			for ; ideograph(c); c, _, next = r.at(end) {
				end = next
			}
			ends, i = append(ends, end), end
			continue
		case cls.letter():
			end = word(i)
		case c != '\r' && c != '\n' && !cls.number():
			if e := word(next); e > next {
				end = e
			}
		}
		switch {
		case end == i:
			end = rest.tail(r, i)
		case end < len(text) && text[end] == '\'':
			end = r.contraction(end, asciiFold)
		}
		ends, i = append(ends, end), end
	}
	return ends
}

// ideograph are the blocks that llama.cpp takes for Han.
func ideograph(r rune) bool {
	return r >= 0x4e00 && r <= 0x9fff || r >= 0x3400 && r <= 0x4dbf || r >= 0x20000 && r <= 0x2a6df ||
		r >= 0x2a700 && r <= 0x2ebef || r >= 0xf900 && r <= 0xfaff || r >= 0x2f800 && r <= 0x2fa1f
}
