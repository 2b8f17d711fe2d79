package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pretokenizer splits a chunk into words, which the model encodes one by one.
type pretokenizer func(chunk) []chunk

const contractions = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`

// knownPatterns are the splitters of patterns that common tokenizers have, so that
// no regular expression runs on the hot path.
var knownPatterns = map[string]splitter{
	`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`:                                                     splitGPT2,
	contractions + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                         tiktoken{fold: unicodeFold, digits: 3}.split,
	contractions + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                              tiktoken{fold: unicodeFold, digits: 1}.split,
	contractions + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                             tiktoken{fold: unicodeFold}.split,
	contractions + `|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                  tiktoken{fold: unicodeFold, digits: 1, marks: true}.split,
	`[^\r\n\p{L}\p{N}]?` + upperLower + `|[^\r\n\p{L}\p{N}]?` + upperOnly + `|\p{N}` + caseTail:                                      tiktoken{digits: 1, slash: true, upper: upperSet, lower: lowerSet}.split,
	`[^\r\n\p{L}\p{N}]?` + upperLower + contractions + `?|[^\r\n\p{L}\p{N}]?` + upperOnly + contractions + `?|\p{N}{1,3}` + caseTail: tiktoken{fold: unicodeFold, digits: 3, slash: true, upper: upperSet, lower: lowerSet}.split,
	`\p{N}`:      splitDigits(1),
	`\p{N}{1,3}`: splitDigits(3),
}

// Parts of the patterns of words by case.
const (
	upperLower = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
	upperOnly  = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
	caseTail   = `| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// words cuts a chunk at the ends that a splitter gives.
func words(split splitter) pretokenizer {
	return func(c chunk) []chunk {
		var out []chunk
		start := 0
		for _, end := range split(nil, c.s) {
			out = append(out, c.sub(start, end))
			start = end
		}
		return out
	}
}

// cut splits a chunk by what was found in it, in one of the five ways that the
// format has.
func cut(c chunk, found [][2]int, behavior string) ([]chunk, error) {
	type part struct {
		i, j  int
		match bool
	}
	var parts []part
	at := 0
	for _, m := range found {
		if m[0] > at {
			parts = append(parts, part{at, m[0], false})
		}
		if m[1] > m[0] {
			parts = append(parts, part{m[0], m[1], true})
		}
		at = m[1]
	}
	if at < len(c.s) {
		parts = append(parts, part{at, len(c.s), false})
	}
	var out []part
	for k, p := range parts {
		last := len(out) - 1
		switch behavior {
		case "Isolated":
			out = append(out, p)
		case "Removed":
			if !p.match {
				out = append(out, p)
			}
		case "Contiguous":
			if last >= 0 && out[last].match == p.match {
				out[last].j = p.j
			} else {
				out = append(out, p)
			}
		case "MergedWithPrevious":
			if p.match && last >= 0 && !parts[k-1].match {
				out[last].j = p.j
			} else {
				out = append(out, p)
			}
		case "MergedWithNext":
			if !p.match && last >= 0 && parts[k-1].match {
				out[last].j = p.j
			} else {
				out = append(out, p)
			}
		default:
			return nil, fmt.Errorf("tokenizer: split behavior %q: %w", behavior, ErrUnsupported)
		}
	}
	chunks := make([]chunk, len(out))
	for k, p := range out {
		chunks[k] = c.sub(p.i, p.j)
	}
	return chunks, nil
}

// runes finds the code points of which f holds, or runs of them.
func runes(f func(rune) bool, runs bool) finder {
	return func(text string) (found [][2]int) {
		for i, r := range text {
			if !f(r) {
				continue
			}
			end := i + utf8.RuneLen(r)
			if n := len(found); runs && n > 0 && found[n-1][1] == i {
				found[n-1][1] = end
			} else {
				found = append(found, [2]int{i, end})
			}
		}
		return found
	}
}

func punctuation(r rune) bool {
	return r < utf8.RuneSelf && r > ' ' && r != 0x7f && !unicode.IsLetter(r) && !unicode.IsDigit(r) || unicode.IsPunct(r)
}

// parsePreTokenizer reads a pre-tokenizer of a tokenizer.json. last says that
// nothing comes after it, so that a byte-level one may leave the bytes to the model.
func parsePreTokenizer(raw json.RawMessage, last bool) (pretokenizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	var p struct {
		Type          string
		Pretokenizers []json.RawMessage
		AddPrefix     *bool `json:"add_prefix_space"`
		UseRegex      *bool `json:"use_regex"`
		Pattern       pattern
		Behavior      string
		Invert        bool
		Individual    bool `json:"individual_digits"`
		Replacement   string
		PrependScheme *string `json:"prepend_scheme"`
		Split         *bool
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("tokenizer: pre-tokenizer: %w", err)
	}
	byFinder := func(find finder, behavior string) (pretokenizer, error) {
		if _, err := cut(chunk{s: "x"}, [][2]int{{0, 1}}, behavior); err != nil {
			return nil, err
		}
		return func(c chunk) []chunk {
			out, _ := cut(c, find(c.s), behavior)
			return out
		}, nil
	}
	switch p.Type {
	case "Sequence":
		var list []pretokenizer
		for i, r := range p.Pretokenizers {
			f, err := parsePreTokenizer(r, last && i == len(p.Pretokenizers)-1)
			if err != nil {
				return nil, err
			}
			if f != nil { // null does nothing
				list = append(list, f)
			}
		}
		return func(c chunk) []chunk {
			chunks := []chunk{c}
			for _, f := range list {
				var next []chunk
				for _, c := range chunks {
					next = append(next, f(c)...)
				}
				chunks = next
			}
			return chunks
		}, nil
	case "ByteLevel":
		return byteLevelWords(p.AddPrefix == nil || *p.AddPrefix, p.UseRegex == nil || *p.UseRegex, last), nil
	case "Split":
		if p.Pattern.Regex != nil && p.Behavior == "Isolated" {
			if split, ok := knownPatterns[*p.Pattern.Regex]; ok {
				return words(split), nil
			}
		}
		find, err := p.Pattern.compile()
		if err != nil {
			return nil, err
		}
		if p.Invert {
			match := find
			find = func(text string) (found [][2]int) {
				at := 0
				for _, m := range match(text) {
					found = append(found, [2]int{at, m[0]})
					at = m[1]
				}
				return append(found, [2]int{at, len(text)})
			}
		}
		return byFinder(find, p.Behavior)
	case "Digits":
		if p.Individual {
			return words(splitDigits(1)), nil
		}
		return byFinder(runes(unicode.IsNumber, true), "Contiguous")
	case "Punctuation":
		if p.Behavior == "" {
			p.Behavior = "Isolated"
		}
		return byFinder(runes(punctuation, false), p.Behavior)
	case "WhitespaceSplit":
		return byFinder(runes(unicode.IsSpace, false), "Removed")
	case "Whitespace": // \w+|[^\w\s]+
		word := func(r rune) bool {
			return unicode.IsLetter(r) || unicode.Is(unicode.M, r) || unicode.Is(unicode.Nd, r) || unicode.Is(unicode.Nl, r) || unicode.Is(unicode.Pc, r)
		}
		return func(c chunk) []chunk {
			spaced, _ := cut(c, runes(unicode.IsSpace, false)(c.s), "Removed")
			var out []chunk
			for _, w := range spaced {
				parts, _ := cut(w, runes(word, true)(w.s), "Isolated")
				out = append(out, parts...)
			}
			return out
		}, nil
	case "BertPreTokenizer":
		return func(c chunk) []chunk {
			spaced, _ := cut(c, runes(unicode.IsSpace, false)(c.s), "Removed")
			var out []chunk
			for _, w := range spaced {
				parts, _ := cut(w, runes(punctuation, false)(w.s), "Isolated")
				out = append(out, parts...)
			}
			return out
		}, nil
	case "Metaspace":
		scheme := "always"
		if p.PrependScheme != nil {
			scheme = *p.PrependScheme
		} else if p.AddPrefix != nil && !*p.AddPrefix {
			scheme = "never"
		}
		return metaspace(p.Replacement, scheme, p.Split == nil || *p.Split), nil
	}
	return nil, fmt.Errorf("tokenizer: pre-tokenizer %q: %w", p.Type, ErrUnsupported)
}

// byteLevelWords splits as GPT-2 does, or not at all, and goes over to the byte-level
// alphabet: for the model by marking the chunks, for other steps by spelling it out.
func byteLevelWords(prefix, split, last bool) pretokenizer {
	return func(c chunk) []chunk {
		if prefix && !strings.HasPrefix(c.s, " ") {
			e := edit{old: c}
			e.put(" ", 0)
			e.keep(0, len(c.s))
			c = e.chunk()
		}
		chunks := []chunk{c}
		if split {
			chunks = words(splitGPT2)(c)
		}
		for i, w := range chunks {
			if last {
				chunks[i].raw = true
				continue
			}
			e := edit{old: w}
			for k := range len(w.s) {
				e.put(string(byteRunes[w.s[k]]), k)
			}
			chunks[i] = e.chunk()
		}
		return chunks
	}
}

func metaspace(mark, scheme string, split bool) pretokenizer {
	if mark == "" {
		mark = "▁"
	}
	return func(c chunk) []chunk {
		start := c.at(0) == 0
		c = replace(c, mustFind(" ")(c.s), mark)
		if (scheme == "always" || scheme == "first" && start) && !strings.HasPrefix(c.s, mark) {
			e := edit{old: c}
			e.put(mark, 0)
			e.keep(0, len(c.s))
			c = e.chunk()
		}
		if !split {
			return []chunk{c}
		}
		out, _ := cut(c, mustFind(mark)(c.s), "MergedWithNext")
		return out
	}
}

// mustFind finds a fixed string.
func mustFind(s string) finder {
	f, _ := pattern{String: &s}.compile()
	return f
}
