package tokenizer

import "unicode/utf8"

// splitter cuts text into words: it appends to ends the end of each, in ascending
// order, the last one len(text). The text is valid UTF-8.
type splitter func(ends []int, text string) []int

// chain splits with a, then each of its words with b, and so on. A pattern of b
// that looks ahead sees the end of a's word as the end of the text.
func chain(stages ...splitter) splitter {
	if len(stages) == 1 {
		return stages[0]
	}
	first, rest := stages[0], chain(stages[1:]...)
	return func(ends []int, text string) []int {
		start := 0
		var inner []int
		for _, end := range first(nil, text) {
			inner = rest(inner[:0], text[start:end])
			for _, e := range inner {
				ends = append(ends, start+e)
			}
			start = end
		}
		return ends
	}
}

// reader looks at the code points of a text.
type reader struct {
	text string
	cls  *[utf8.MaxRune + 1]class
}

// at gives the code point at byte i, its class and the byte after it; class clsEnd
// at the end.
func (r *reader) at(i int) (c rune, cls class, next int) {
	if i >= len(r.text) {
		return -1, clsEnd, i
	}
	if b := r.text[i]; b < utf8.RuneSelf {
		return rune(b), r.cls[b], i + 1
	}
	c, n := utf8.DecodeRuneInString(r.text[i:])
	return c, r.cls[c], i + n
}

// run goes on from i while ok holds.
func (r *reader) run(i int, ok func(class) bool) int {
	for {
		_, c, next := r.at(i)
		if c == clsEnd || !ok(c) {
			return i
		}
		i = next
	}
}

// white finds the end of the white space that a word at i takes. There is some at
// i. The last character of a longer run is left to the word after it.
func (r *reader) white(i int) int {
	last := i
	for {
		_, c, next := r.at(i)
		if c == clsEnd {
			return i
		}
		if !c.space() {
			break
		}
		last, i = i, next
	}
	return last
}

// contraction matches 's 't 'm 'd 're 've 'll at i, where an apostrophe stands, and
// gives the end; i if there is none.
func (r *reader) contraction(i int, fold func(rune) rune) int {
	a, _, n1 := r.at(i + 1)
	switch a = fold(a); a {
	case 's', 't', 'm', 'd':
		return n1
	}
	b, _, n2 := r.at(n1)
	b = fold(b)
	if (a == 'r' || a == 'v') && b == 'e' || a == 'l' && b == 'l' {
		return n2
	}
	return i
}

func sameCase(c rune) rune { return c }

// asciiFold lowers ASCII letters, unicodeFold also the long s, which matches s where
// a regular expression ignores case.
func asciiFold(c rune) rune {
	if c >= 'A' && c <= 'Z' {
		return c + 32
	}
	return c
}

func unicodeFold(c rune) rune {
	if c == 'ſ' {
		return 's'
	}
	return asciiFold(c)
}

// splitGPT2 is 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+.
func splitGPT2(ends []int, text string) []int {
	r := &reader{text, classes()}
	for i := 0; i < len(text); {
		c, cls, next := r.at(i)
		if c == '\'' {
			if e := r.contraction(i, sameCase); e > i {
				ends, i = append(ends, e), e
				continue
			}
		}
		j, after := i, cls
		if c == ' ' {
			_, after, _ = r.at(next)
			j = next
		}
		switch {
		case after.letter():
			i = r.run(j, class.letter)
		case after.number():
			i = r.run(j, class.number)
		case after.other():
			i = r.run(j, class.other)
		default:
			if e := r.white(i); e > i {
				i = e
			} else {
				i = next
			}
		}
		ends = append(ends, i)
	}
	return ends
}

// splitDigits isolates each number character, \p{N}, or runs of them of at most max.
func splitDigits(max int) splitter {
	return func(ends []int, text string) []int {
		r := &reader{text, classes()}
		start := 0
		for i := 0; i < len(text); {
			_, c, next := r.at(i)
			if !c.number() {
				i = next
				continue
			}
			if i > start {
				ends = append(ends, i)
			}
			for k := 0; c.number() && k < max; k++ {
				i = next
				_, c, next = r.at(i)
			}
			ends = append(ends, i)
			start = i
		}
		if start < len(text) {
			ends = append(ends, len(text))
		}
		return ends
	}
}

// tiktoken is the family of patterns that began with cl100k:
//
//	CONTRACTION|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,d}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//
// and with words split by case, where a contraction stays with the word before it:
//
//	[^\r\n\p{L}\p{N}]?U*L+(CONTRACTION)?|[^\r\n\p{L}\p{N}]?U+L*(CONTRACTION)?|…
type tiktoken struct {
	fold   func(rune) rune // nil: contractions are not told apart
	marks  bool            // combining marks are letters, in words and outside
	digits int             // longest run of digits; 0: any
	slash  bool            // the tail of punctuation may hold / too
	noTail bool            // punctuation has no tail, and does not hold \r and \n
	upper  func(class, rune) bool
	lower  func(class, rune) bool
}

func (p tiktoken) split(ends []int, text string) []int {
	r := &reader{text, classes()}
	for i := 0; i < len(text); {
		end := p.word(r, i)
		if end == i {
			end = p.tail(r, i)
		}
		ends, i = append(ends, end), end
	}
	return ends
}

func (p tiktoken) letter(c class) bool { return c.letter() || p.marks && c.mark() }
func (p tiktoken) other(c class) bool  { return c.other() && !(p.marks && c.mark()) }

// word matches a contraction or a word at i, with one character before it that is
// neither letter, digit nor line end; i if there is none.
func (p tiktoken) word(r *reader, i int) int {
	c, cls, next := r.at(i)
	if c == '\'' && p.fold != nil && p.upper == nil {
		if e := r.contraction(i, p.fold); e > i {
			return e
		}
	}
	if c == '\r' || c == '\n' || cls.number() {
		return i
	}
	if p.upper != nil {
		return p.cased(r, i)
	}
	if _, after, _ := r.at(next); p.letter(cls) || p.letter(after) {
		return r.run(next, p.letter)
	}
	return i
}

// tail matches digits, punctuation or white space at i, or else one character.
func (p tiktoken) tail(r *reader, i int) int {
	c, cls, next := r.at(i)
	if cls.number() {
		for k := 0; cls.number() && (p.digits == 0 || k < p.digits); k++ {
			i = next
			_, cls, next = r.at(i)
		}
		return i
	}
	j, after := i, cls
	if c == ' ' {
		_, after, _ = r.at(next)
		j = next
	}
	if after != clsEnd && p.other(after) {
		i = r.run(j, p.other)
		for !p.noTail && i < len(r.text) && (r.text[i] == '\r' || r.text[i] == '\n' || p.slash && r.text[i] == '/') {
			i++
		}
		return i
	}
	return p.white(r, i, next)
}

// white matches \s*[\r\n]+|\s+(?!\S)|\s+ at i, and if there is no white space takes
// the one character.
func (p tiktoken) white(r *reader, i, next int) int {
	lineEnd := 0
	for j := i; ; {
		c, cls, n := r.at(j)
		if cls == clsEnd || !cls.space() {
			break
		}
		if c == '\r' || c == '\n' {
			lineEnd = n
		}
		j = n
	}
	if lineEnd > 0 {
		return lineEnd
	}
	if e := r.white(i); e > i {
		return e
	}
	return next
}

// cased matches the two alternatives of words by case at i; i if neither does.
func (p tiktoken) cased(r *reader, i int) int {
	_, cls, next := r.at(i)
	starts := []int{next, i}
	if cls.letter() {
		starts = starts[1:] // no letter stands before the word
	}
	for _, s := range starts {
		// U*L+: the longest run of U, given back until an L follows.
		top := s
		var cuts []int
		for {
			c, k, n := r.at(top)
			if k == clsEnd || !p.upper(k, c) {
				break
			}
			cuts = append(cuts, top)
			top = n
		}
		cuts = append(cuts, top)
		for j := len(cuts) - 1; j >= 0; j-- {
			if e := p.lowerRun(r, cuts[j]); e > cuts[j] {
				return p.suffix(r, e)
			}
		}
	}
	for _, s := range starts {
		// U+L*
		e := s
		for {
			c, k, n := r.at(e)
			if k == clsEnd || !p.upper(k, c) {
				break
			}
			e = n
		}
		if e > s {
			return p.suffix(r, p.lowerRun(r, e))
		}
	}
	return i
}

func (p tiktoken) lowerRun(r *reader, i int) int {
	for {
		c, k, n := r.at(i)
		if k == clsEnd || !p.lower(k, c) {
			return i
		}
		i = n
	}
}

func (p tiktoken) suffix(r *reader, i int) int {
	if p.fold != nil && i < len(r.text) && r.text[i] == '\'' {
		return r.contraction(i, p.fold)
	}
	return i
}

// Letters by case as llama.cpp tells them apart: outside ASCII a letter is both.
func notLower(k class, c rune) bool { return k.letter() && !(c >= 'a' && c <= 'z') }
func notUpper(k class, c rune) bool { return k.letter() && !(c >= 'A' && c <= 'Z') }

// The same, combining marks taken along.
func markOrNotLower(k class, c rune) bool { return notLower(k, c) || k.mark() }
func markOrNotUpper(k class, c rune) bool { return notUpper(k, c) || k.mark() }

// anyCase is what is left of both sets where the reference drops the case.
func anyCase(k class, _ rune) bool { return k.letter() || k.mark() }

// Letters by case as the patterns themselves have it, marks included:
// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and [\p{Ll}\p{Lm}\p{Lo}\p{M}].
func upperSet(k class, _ rune) bool { return k.letter() && k != clsLower || k.mark() }
func lowerSet(k class, _ rune) bool {
	return k == clsLower || k == clsModif || k == clsLetter || k.mark()
}

// splitNewlines is [^\n]+|[\n]+.
func splitNewlines(ends []int, text string) []int {
	for i := 1; i < len(text); i++ {
		if (text[i] == '\n') != (text[i-1] == '\n') {
			ends = append(ends, i)
		}
	}
	if text != "" {
		ends = append(ends, len(text))
	}
	return ends
}
