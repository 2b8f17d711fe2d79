package jinja

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind is the kind of a token.
type kind uint8

const (
	kEOF kind = iota
	kData
	kVarBegin
	kVarEnd
	kBlockBegin
	kBlockEnd
	kName
	kInt
	kFloat
	kString
	kOp
)

type token struct {
	kind kind
	s    string // name, operator, text, digits, or the value of a string literal
	line int
}

func (t token) String() string {
	switch t.kind {
	case kEOF:
		return "end of template"
	case kVarEnd:
		return "end of print statement"
	case kBlockEnd:
		return "end of statement block"
	}
	return fmt.Sprintf("%q", t.s)
}

// SyntaxError says where a template is not a template.
type SyntaxError struct {
	Line int // from 1
	Msg  string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("jinja: line %d: %s", e.Line, e.Msg) }

// lexer cuts a template into tokens, with the two rules about white space that chat
// templates are written for: trim_blocks (the first line end after a block or a
// comment goes) and lstrip_blocks (so does white space between the beginning of a
// line and a block or comment).
type lexer struct {
	src       string
	pos       int
	line      int
	lineStart bool // what was read last ended with a line end
	toks      []token
}

// lex tokenizes src; it panics with a *SyntaxError.
func lex(src string) []token {
	src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	src = strings.TrimSuffix(src, "\n")
	l := &lexer{src: src, line: 1, lineStart: true}
	for l.pos < len(l.src) {
		l.text()
	}
	return append(l.toks, token{kEOF, "", l.line})
}

func (l *lexer) fail(format string, args ...any) {
	panic(&SyntaxError{l.line, fmt.Sprintf(format, args...)})
}

// advance moves to pos and counts lines.
func (l *lexer) advance(pos int) {
	l.line += strings.Count(l.src[l.pos:pos], "\n")
	if pos > l.pos {
		l.lineStart = l.src[pos-1] == '\n'
	}
	l.pos = pos
}

func (l *lexer) emit(k kind, s string) { l.toks = append(l.toks, token{k, s, l.line}) }

// text reads up to the next tag and the tag with it.
func (l *lexer) text() {
	rest := l.src[l.pos:]
	i := 0
	for {
		j := strings.IndexByte(rest[i:], '{')
		if j < 0 || i+j+1 >= len(rest) {
			l.emit(kData, rest)
			l.advance(len(l.src))
			return
		}
		i += j
		if c := rest[i+1]; c == '{' || c == '%' || c == '#' {
			break
		}
		i++
	}
	tag := rest[i+1]
	data := rest[:i]
	after := l.pos + i + 2
	sign := byte(0)
	if after < len(l.src) && (l.src[after] == '-' || l.src[after] == '+' && tag != '{') {
		sign = l.src[after]
		after++
	}
	switch {
	case sign == '-':
		data = strings.TrimRightFunc(data, pySpace)
	case sign != '+' && tag != '{':
		from := strings.LastIndexByte(data, '\n') + 1
		if (from > 0 || l.lineStart) && strings.TrimLeftFunc(data[from:], pySpace) == "" {
			data = data[:from]
		}
	}
	if data != "" {
		l.emit(kData, data)
	}
	switch tag {
	case '#':
		l.comment(after)
	case '%':
		if end, ok := l.rawTag(after, "raw"); ok {
			l.advance(end)
			l.raw()
			return
		}
		l.advance(after)
		l.emit(kBlockBegin, "{%")
		l.expression("%}", kBlockEnd)
	default:
		l.advance(after)
		l.emit(kVarBegin, "{{")
		l.expression("}}", kVarEnd)
	}
}

// comment skips to the end of a comment.
func (l *lexer) comment(pos int) {
	i := strings.Index(l.src[pos:], "#}")
	if i < 0 {
		l.fail("missing end of comment tag")
	}
	end := pos + i + 2
	switch {
	case i > 0 && l.src[pos+i-1] == '-':
		end = l.skipSpace(end)
	case i > 0 && l.src[pos+i-1] == '+':
	default:
		end = l.skipNewline(end)
	}
	l.advance(end)
}

func (l *lexer) skipSpace(pos int) int {
	return len(l.src) - len(strings.TrimLeftFunc(l.src[pos:], pySpace))
}

func (l *lexer) skipNewline(pos int) int {
	if pos < len(l.src) && l.src[pos] == '\n' {
		pos++
	}
	return pos
}

// rawTag matches the rest of {% raw %} or {% endraw %} at pos, after its sign, and
// gives its end.
func (l *lexer) rawTag(pos int, name string) (end int, ok bool) {
	pos = l.skipSpace(pos)
	if !strings.HasPrefix(l.src[pos:], name) {
		return 0, false
	}
	pos = l.skipSpace(pos + len(name))
	switch {
	case strings.HasPrefix(l.src[pos:], "-%}"):
		return l.skipSpace(pos + 3), true
	case strings.HasPrefix(l.src[pos:], "+%}"):
		return pos + 3, true
	case strings.HasPrefix(l.src[pos:], "%}"):
		if name == "raw" {
			return pos + 2, true
		}
		return l.skipNewline(pos + 2), true
	}
	return 0, false
}

// raw reads up to {% endraw %}.
func (l *lexer) raw() {
	for i := l.pos; ; i++ {
		j := strings.Index(l.src[i:], "{%")
		if j < 0 {
			l.fail("missing end of raw directive")
		}
		i += j
		after, sign := i+2, byte(0)
		if after < len(l.src) && (l.src[after] == '-' || l.src[after] == '+') {
			sign = l.src[after]
			after++
		}
		end, ok := l.rawTag(after, "endraw")
		if !ok {
			continue
		}
		data := l.src[l.pos:i]
		if sign == '-' {
			data = strings.TrimRightFunc(data, pySpace)
		} else if sign == 0 {
			from := strings.LastIndexByte(data, '\n') + 1
			if (from > 0 || l.lineStart) && strings.TrimLeftFunc(data[from:], pySpace) == "" {
				data = data[:from]
			}
		}
		if data != "" {
			l.emit(kData, data)
		}
		l.advance(end)
		return
	}
}

var operators = []string{"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";"}

// expression reads the tokens of a tag up to its end.
func (l *lexer) expression(end string, endKind kind) {
	var open []byte
	for {
		if l.pos >= len(l.src) {
			l.fail("unexpected end of template")
		}
		rest := l.src[l.pos:]
		if len(open) == 0 {
			n := 0
			switch {
			case strings.HasPrefix(rest, "-"+end):
				n = l.skipSpace(l.pos + 3)
			case strings.HasPrefix(rest, "+"+end) && endKind == kBlockEnd:
				n = l.pos + 3
			case strings.HasPrefix(rest, end):
				n = l.pos + 2
				if endKind == kBlockEnd {
					n = l.skipNewline(n)
				}
			}
			if n > 0 {
				l.emit(endKind, end)
				l.advance(n)
				return
			}
		}
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case pySpace(r):
			l.advance(l.pos + size)
		case r >= '0' && r <= '9':
			l.number()
		case r == '_' || unicode.IsLetter(r):
			n := strings.IndexFunc(rest, func(r rune) bool {
				return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.M, r)
			})
			if n < 0 {
				n = len(rest)
			}
			l.emit(kName, rest[:n])
			l.advance(l.pos + n)
		case r == '"' || r == '\'':
			l.str(byte(r))
		default:
			open = l.operator(open)
		}
	}
}

func (l *lexer) operator(open []byte) []byte {
	rest := l.src[l.pos:]
	for _, op := range operators {
		if !strings.HasPrefix(rest, op) {
			continue
		}
		switch op {
		case "(":
			open = append(open, ')')
		case "[":
			open = append(open, ']')
		case "{":
			open = append(open, '}')
		case ")", "]", "}":
			if len(open) == 0 || open[len(open)-1] != op[0] {
				l.fail("unexpected %q", op)
			}
			open = open[:len(open)-1]
		}
		l.emit(kOp, op)
		l.advance(l.pos + len(op))
		return open
	}
	r, _ := utf8.DecodeRuneInString(rest)
	l.fail("unexpected character %q", r)
	return nil
}

// number reads an integer or a float; digits may be grouped by underscores.
func (l *lexer) number() {
	rest := l.src[l.pos:]
	digits := func(i int) int {
		for i < len(rest) && (rest[i] >= '0' && rest[i] <= '9' || rest[i] == '_' && i+1 < len(rest) && rest[i+1] >= '0' && rest[i+1] <= '9') {
			i++
		}
		return i
	}
	digit := func(i int) bool { return i < len(rest) && rest[i] >= '0' && rest[i] <= '9' }
	if len(rest) > 2 && rest[0] == '0' && strings.ContainsRune("xXoObB", rune(rest[1])) {
		i := 2
		for i < len(rest) && (digit(i) || rest[i] == '_' || rest[i] >= 'a' && rest[i] <= 'f' || rest[i] >= 'A' && rest[i] <= 'F') {
			i++
		}
		l.emit(kInt, rest[:i])
		l.advance(l.pos + i)
		return
	}
	i, k := digits(0), kInt
	if i < len(rest) && rest[i] == '.' && digit(i+1) {
		i, k = digits(i+1), kFloat
	}
	if i < len(rest) && (rest[i] == 'e' || rest[i] == 'E') {
		j := i + 1
		if j < len(rest) && (rest[j] == '+' || rest[j] == '-') {
			j++
		}
		if digit(j) {
			i, k = digits(j), kFloat
		}
	}
	l.emit(k, strings.ReplaceAll(rest[:i], "_", ""))
	l.advance(l.pos + i)
}

// str reads a string literal with Python's escapes.
func (l *lexer) str(quote byte) {
	rest := l.src[l.pos:]
	i := 1
	for ; i < len(rest) && rest[i] != quote; i++ {
		if rest[i] == '\\' {
			i++
		}
	}
	if i >= len(rest) {
		l.fail("unterminated string")
	}
	s, err := unescape(rest[1:i])
	if err != nil {
		l.fail("%v", err)
	}
	l.emit(kString, s)
	l.advance(l.pos + i + 1)
}

// unescape resolves the escapes of a Python string literal.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "\\") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			i++
			continue
		}
		c := s[i+1]
		i += 2
		hex := func(n int) error {
			if i+n > len(s) {
				return fmt.Errorf("truncated \\%c escape", c)
			}
			var v rune
			if _, err := fmt.Sscanf(s[i:i+n], "%x", &v); err != nil || v > utf8.MaxRune {
				return fmt.Errorf("invalid \\%c escape", c)
			}
			b.WriteRune(v)
			i += n
			return nil
		}
		var err error
		switch c {
		case '\n':
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'a':
			b.WriteByte('\a')
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'v':
			b.WriteByte('\v')
		case '\\', '\'', '"':
			b.WriteByte(c)
		case 'x':
			err = hex(2)
		case 'u':
			err = hex(4)
		case 'U':
			err = hex(8)
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v := rune(c - '0')
			for k := 0; k < 2 && i < len(s) && s[i] >= '0' && s[i] <= '7'; k++ {
				v = v*8 + rune(s[i]-'0')
				i++
			}
			b.WriteRune(v)
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
		if err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// pySpace is what Python's str.isspace and strip take for white space.
func pySpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
