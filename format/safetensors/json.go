package safetensors

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON of UTF-8 bytes token by token. Unlike encoding/json it shows
// repeated names, refuses halves of surrogate pairs, and knows where it is. After
// the first failure, kept in err, its methods return zeros.
type scanner struct {
	p     []byte
	pos   int
	depth int
	err   error
	errAt int
}

const maxDepth = 128 // as in the parser of the reference

func (s *scanner) fail(at int, err error) {
	if s.err == nil {
		s.err, s.errAt = err, at
	}
}

func (s *scanner) failf(at int, f string, args ...any) {
	if s.err == nil {
		s.fail(at, fmt.Errorf(f, args...))
	}
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.p) {
		switch c := s.p[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) {
	if s.err != nil {
		return
	}
	if got := s.peek(); got != c || s.pos >= len(s.p) {
		if s.pos >= len(s.p) {
			s.failf(s.pos, "the JSON ends where %q is wanted", c)
		} else {
			s.failf(s.pos, "%q where %q is wanted", got, c)
		}
		return
	}
	s.pos++
}

// object calls member for each name of an object; member must read the value.
func (s *scanner) object(member func(name string, at int)) {
	s.list('{', '}', func() {
		s.peek()
		at := s.pos
		name := s.str()
		s.expect(':')
		if s.err == nil {
			member(name, at)
		}
	})
}

// array calls element for each element of an array, which must read it.
func (s *scanner) array(element func()) { s.list('[', ']', element) }

func (s *scanner) list(begin, end byte, item func()) {
	s.expect(begin)
	if s.depth++; s.depth > maxDepth {
		s.fail(s.pos, errors.New("the JSON is nested too deeply"))
	}
	for first := true; s.err == nil; first = false {
		if s.peek() == end && first {
			break
		}
		if !first {
			if s.peek() == end {
				break
			}
			s.expect(',')
		}
		if s.err == nil {
			item()
		}
	}
	s.expect(end)
	s.depth--
}

// str reads a string.
func (s *scanner) str() string {
	s.expect('"')
	begin := s.pos
	for s.err == nil && s.pos < len(s.p) {
		switch c := s.p[s.pos]; {
		case c == '"':
			s.pos++
			return string(s.p[begin : s.pos-1])
		case c == '\\':
			return s.escaped(begin)
		case c < ' ':
			s.failf(s.pos, "control character %#02x in a string", c)
		default:
			s.pos++
		}
	}
	s.fail(s.pos, errors.New("the JSON ends in a string"))
	return ""
}

// escaped reads the rest of a string that began at begin and has an escape at pos.
func (s *scanner) escaped(begin int) string {
	var b strings.Builder
	b.Write(s.p[begin:s.pos])
	for s.err == nil && s.pos < len(s.p) {
		c := s.p[s.pos]
		switch {
		case c == '"':
			s.pos++
			return b.String()
		case c == '\\':
			b.WriteRune(s.escape())
		case c < ' ':
			s.failf(s.pos, "control character %#02x in a string", c)
		default:
			b.WriteByte(c)
			s.pos++
		}
	}
	s.fail(s.pos, errors.New("the JSON ends in a string"))
	return ""
}

var simpleEscapes = map[byte]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (s *scanner) escape() rune {
	at := s.pos
	if s.pos+1 < len(s.p) {
		if r, ok := simpleEscapes[s.p[s.pos+1]]; ok {
			s.pos += 2
			return r
		}
	}
	r, ok := s.unicode()
	if ok && utf16.IsSurrogate(r) {
		var low rune
		if low, ok = s.unicode(); ok {
			r = utf16.DecodeRune(r, low)
			ok = r != utf8.RuneError
		}
	}
	if !ok {
		s.failf(at, "wrong escape in a string")
	}
	return r
}

// unicode reads \uXXXX.
func (s *scanner) unicode() (rune, bool) {
	if s.pos+6 > len(s.p) || s.p[s.pos] != '\\' || s.p[s.pos+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range s.p[s.pos+2 : s.pos+6] {
		d := strings.IndexByte("0123456789abcdef", c|0x20)
		if d < 0 || c < '0' {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	s.pos += 6
	return r, true
}

// integer reads a whole number from 0 to the largest int64.
func (s *scanner) integer() int64 {
	s.peek()
	at := s.pos
	text := s.number()
	if s.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		s.failf(at, "%s is no whole number in range", text)
	}
	return int64(n)
}

// number reads the text of any number.
func (s *scanner) number() string {
	at := s.pos
	digits := func() {
		n := s.pos
		for s.pos < len(s.p) && s.p[s.pos] >= '0' && s.p[s.pos] <= '9' {
			s.pos++
		}
		if s.pos == n {
			s.failf(s.pos, "a digit is wanted")
		}
	}
	s.next("-")
	if !s.next("0") {
		digits()
	}
	if s.next(".") {
		digits()
	}
	if s.next("eE") {
		s.next("+-")
		digits()
	}
	return string(s.p[at:s.pos])
}

// next consumes one of the bytes of set, if it stands there.
func (s *scanner) next(set string) bool {
	if s.pos < len(s.p) && strings.IndexByte(set, s.p[s.pos]) >= 0 {
		s.pos++
		return true
	}
	return false
}

// word consumes a literal, if it stands there.
func (s *scanner) word(w string) bool {
	if s.err == nil && strings.HasPrefix(string(s.p[s.pos:min(s.pos+len(w), len(s.p))]), w) {
		s.pos += len(w)
		return true
	}
	return false
}

// skip reads any value.
func (s *scanner) skip() {
	switch c := s.peek(); {
	case c == '{':
		s.object(func(string, int) { s.skip() })
	case c == '[':
		s.array(s.skip)
	case c == '"':
		s.str()
	case c == '-' || c >= '0' && c <= '9':
		s.number()
	case s.word("true"), s.word("false"), s.word("null"):
	default:
		s.fail(s.pos, errors.New("a value is wanted"))
	}
}

// end checks that nothing but white space is left.
func (s *scanner) end() {
	if s.peek(); s.err == nil && s.pos < len(s.p) {
		s.failf(s.pos, "%q after the end of the JSON", s.p[s.pos])
	}
}

// appendJSON appends v as a JSON string, escaped as little as the reference does.
func appendJSON(b []byte, v string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(v) {
		switch c := v[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ':
			b = append(b, c)
		case strings.IndexByte("\b\f\n\r\t", c) >= 0:
			b = append(b, '\\', "btn_fr"[c-'\b'])
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(b, '"')
}
