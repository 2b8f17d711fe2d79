package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
	"golang.org/x/text/unicode/norm"
)

// chunk is a part of the input, perhaps changed by a normalizer.
type chunk struct {
	s    string
	from []int32 // where byte i of s came from is from[base+i]; nil: base+i
	base int
	raw  bool // bytes that stand for characters of the byte-level alphabet
}

func (c chunk) at(i int) int {
	if c.from == nil {
		return c.base + i
	}
	return int(c.from[c.base+i])
}

// sub is the part from byte i to byte j.
func (c chunk) sub(i, j int) chunk { return chunk{c.s[i:j], c.from, c.base + i, c.raw} }

// edit collects a changed chunk: runs of bytes, each with the place in the old one
// that it came from.
type edit struct {
	old  chunk
	s    []byte
	from []int32
}

// put appends s, which replaces what stands at byte i of the old chunk.
func (e *edit) put(s string, i int) {
	e.s = append(e.s, s...)
	at := int32(e.old.at(i))
	for range len(s) {
		e.from = append(e.from, at)
	}
}

// keep appends bytes i to j of the old chunk.
func (e *edit) keep(i, j int) {
	e.s = append(e.s, e.old.s[i:j]...)
	for ; i < j; i++ {
		e.from = append(e.from, int32(e.old.at(i)))
	}
}

func (e *edit) chunk() chunk {
	e.from = append(e.from, int32(e.old.at(len(e.old.s))))
	return chunk{s: string(e.s), from: e.from}
}

// normalizer changes a chunk before it is split.
type normalizer func(chunk) chunk

// replace gives a chunk with each of the given matches, pairs of byte offsets,
// replaced; unchanged if there are none.
func replace(c chunk, matches [][2]int, by string) chunk {
	if len(matches) == 0 {
		return c
	}
	e := edit{old: c}
	at := 0
	for _, m := range matches {
		e.keep(at, m[0])
		e.put(by, m[0])
		at = m[1]
	}
	e.keep(at, len(c.s))
	return e.chunk()
}

// unicodeForm is a normalization form of Unicode.
func unicodeForm(f norm.Form) normalizer {
	return func(c chunk) chunk {
		if f.IsNormalString(c.s) {
			return c
		}
		e := edit{old: c}
		var it norm.Iter
		it.InitString(f, c.s)
		for !it.Done() {
			at := it.Pos()
			s := it.Next()
			if end := it.Pos(); string(s) == c.s[at:end] {
				e.keep(at, end)
			} else {
				e.put(string(s), at)
			}
		}
		return e.chunk()
	}
}

// mapRunes replaces each code point by what f gives.
func mapRunes(f func(rune) string) normalizer {
	return func(c chunk) chunk {
		e := edit{old: c}
		changed := false
		for i, r := range c.s {
			s := f(r)
			changed = changed || s != string(r)
			e.put(s, i)
		}
		if !changed {
			return c
		}
		return e.chunk()
	}
}

func lower(r rune) string {
	if r == 'İ' {
		return "i̇"
	}
	return string(unicode.ToLower(r))
}

// pattern is a pattern of a tokenizer.json: a string or a regular expression.
type pattern struct {
	String *string
	Regex  *string
}

// finder lists the matches in text, in order and without overlap.
type finder func(text string) [][2]int

func (p pattern) compile() (finder, error) {
	switch {
	case p.String != nil && *p.String != "":
		key := *p.String
		return func(text string) (found [][2]int) {
			for at := 0; ; {
				i := strings.Index(text[at:], key)
				if i < 0 {
					return found
				}
				found = append(found, [2]int{at + i, at + i + len(key)})
				at += i + len(key)
			}
		}, nil
	case p.Regex != nil:
		if split, ok := knownPatterns[*p.Regex]; ok {
			return func(text string) [][2]int {
				var found [][2]int
				start := 0
				for _, end := range split(nil, text) {
					found = append(found, [2]int{start, end})
					start = end
				}
				return found
			}, nil
		}
		re, err := regexp2.Compile(*p.Regex, regexp2.None)
		if err != nil {
			return nil, fmt.Errorf("tokenizer: pattern %q: %w (%w)", *p.Regex, ErrUnsupported, err)
		}
		return func(text string) [][2]int { return findAll(re, text) }, nil
	}
	return nil, fmt.Errorf("tokenizer: a pattern that is neither String nor Regex: %w", ErrUnsupported)
}

// findAll lists the matches of re, which counts in code points, as byte offsets.
func findAll(re *regexp2.Regexp, text string) (found [][2]int) {
	runes := []rune(text)
	m, err := re.FindRunesMatch(runes)
	i, at := 0, 0 // code points and bytes so far
	for err == nil && m != nil {
		for ; i < m.Index; i++ {
			at += utf8.RuneLen(runes[i])
		}
		start := at
		for ; i < m.Index+m.Length; i++ {
			at += utf8.RuneLen(runes[i])
		}
		found = append(found, [2]int{start, at})
		m, err = re.FindNextMatch(m)
	}
	return found
}

// parseNormalizer reads a normalizer of a tokenizer.json.
func parseNormalizer(raw json.RawMessage) (normalizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	var n struct {
		Type        string
		Normalizers []json.RawMessage
		Prepend     string
		Pattern     pattern
		Content     string
		StripLeft   bool  `json:"strip_left"`
		StripRight  bool  `json:"strip_right"`
		CleanText   bool  `json:"clean_text"`
		Chinese     bool  `json:"handle_chinese_chars"`
		Accents     *bool `json:"strip_accents"`
		Lowercase   bool
	}
	if err := json.Unmarshal(raw, &n); err != nil {
		return nil, fmt.Errorf("tokenizer: normalizer: %w", err)
	}
	switch n.Type {
	case "Sequence":
		var list []normalizer
		for _, r := range n.Normalizers {
			f, err := parseNormalizer(r)
			if err != nil {
				return nil, err
			}
			if f != nil { // null does nothing
				list = append(list, f)
			}
		}
		return func(c chunk) chunk {
			for _, f := range list {
				c = f(c)
			}
			return c
		}, nil
	case "NFC":
		return unicodeForm(norm.NFC), nil
	case "NFD":
		return unicodeForm(norm.NFD), nil
	case "NFKC":
		return unicodeForm(norm.NFKC), nil
	case "NFKD":
		return unicodeForm(norm.NFKD), nil
	case "Lowercase":
		return mapRunes(lower), nil
	case "StripAccents":
		return mapRunes(dropMarks), nil
	case "Strip":
		return func(c chunk) chunk {
			i, j := 0, len(c.s)
			if n.StripLeft {
				i = len(c.s) - len(strings.TrimLeftFunc(c.s, unicode.IsSpace))
			}
			if n.StripRight {
				j = max(i, len(strings.TrimRightFunc(c.s, unicode.IsSpace)))
			}
			return c.sub(i, j)
		}, nil
	case "Prepend":
		return func(c chunk) chunk {
			if c.s == "" {
				return c
			}
			e := edit{old: c}
			e.put(n.Prepend, 0)
			e.keep(0, len(c.s))
			return e.chunk()
		}, nil
	case "Replace":
		find, err := n.Pattern.compile()
		if err != nil {
			return nil, err
		}
		return func(c chunk) chunk { return replace(c, find(c.s), n.Content) }, nil
	case "BertNormalizer":
		return bertNormalizer(n.CleanText, n.Chinese, n.Accents != nil && *n.Accents || n.Accents == nil && n.Lowercase, n.Lowercase), nil
	}
	return nil, fmt.Errorf("tokenizer: normalizer %q: %w", n.Type, ErrUnsupported)
}

func dropMarks(r rune) string {
	if unicode.Is(unicode.Mn, r) {
		return ""
	}
	return string(r)
}

func bertNormalizer(clean, hanWords, accents, lowercase bool) normalizer {
	steps := []normalizer{}
	if clean {
		steps = append(steps, mapRunes(func(r rune) string {
			switch {
			case r == '\t' || r == '\n' || r == '\r' || unicode.IsSpace(r):
				return " "
			case r == 0 || r == utf8.RuneError || unicode.Is(unicode.C, r):
				return ""
			}
			return string(r)
		}))
	}
	if hanWords {
		steps = append(steps, mapRunes(func(r rune) string {
			if chinese(r) {
				return " " + string(r) + " "
			}
			return string(r)
		}))
	}
	if accents {
		steps = append(steps, unicodeForm(norm.NFD), mapRunes(dropMarks))
	}
	if lowercase {
		steps = append(steps, mapRunes(lower))
	}
	return func(c chunk) chunk {
		for _, f := range steps {
			c = f(c)
		}
		return c
	}
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }
