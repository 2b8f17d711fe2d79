package jinja

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// percent is Python's format % value for the conversions s, r, d, i, f, e, g, x, X, o, c.
func (e *eval) percent(format string, v Value) string {
	args := []Value{v}
	if l, ok := v.(*List); ok && l.kind == isTuple {
		args = l.Items
	}
	used, byName := 0, false
	next := func() Value {
		if used >= len(args) {
			e.fail("not enough arguments for format string")
		}
		used++
		return args[used-1]
	}
	var b strings.Builder
	for i := 0; i < len(format); {
		if format[i] != '%' {
			b.WriteByte(format[i])
			i++
			continue
		}
		i++
		var arg Value = absent
		if i < len(format) && format[i] == '(' {
			j := strings.IndexByte(format[i:], ')')
			d, ok := v.(*Dict)
			if j < 0 || !ok {
				e.fail("format requires a mapping")
			}
			if arg, ok = d.Get(format[i+1 : i+j]); !ok {
				e.fail("no key %q for the format", format[i+1:i+j])
			}
			byName = true
			i += j + 1
		}
		s := spec{fill: " ", precision: -1}
		for ; i < len(format) && strings.IndexByte("-+ 0#", format[i]) >= 0; i++ {
			switch format[i] {
			case '-':
				s.align = '<'
			case '0':
				s.zero = true
			case '+', ' ':
				s.sign = format[i]
			}
		}
		s.width, i = e.digits(format, i)
		if i < len(format) && format[i] == '.' {
			s.precision, i = e.digits(format, i+1)
		}
		if i >= len(format) {
			e.fail("incomplete format")
		}
		s.verb = format[i]
		i++
		if s.verb == '%' {
			b.WriteByte('%')
			continue
		}
		if arg == absent {
			arg = next()
		}
		e.defined(arg)
		if s.align == 0 {
			s.align = '>'
		}
		switch s.verb {
		case 's':
			arg = str(arg)
		case 'r', 'a':
			arg, s.verb = repr(arg), 's'
		case 'i', 'u':
			s.verb = 'd'
		case 'c':
			if n, ok := arg.(int); ok {
				arg = string(rune(n))
			}
			s.verb = 's'
		}
		if f, ok := arg.(float64); ok && s.verb == 'd' {
			arg = int(f)
		}
		b.WriteString(e.formatted(arg, s))
		e.size(b.Len())
	}
	if _, isDict := v.(*Dict); !byName && !isDict && used < len(args) {
		e.fail("not all arguments converted during string formatting")
	}
	return b.String()
}

func (e *eval) digits(s string, i int) (int, int) {
	n := 0
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		if n = n*10 + int(s[i]-'0'); n > 1<<20 {
			e.fail("format width too large")
		}
	}
	return n, i
}

// spec is a format specification: [[fill]align][sign][0][width][,][.precision][verb].
type spec struct {
	fill      string
	align     byte // '<', '>', '^', 0: by type
	sign      byte
	zero      bool
	comma     bool
	width     int
	precision int // -1: not given
	verb      byte
}

// parseSpec reads what follows the colon of a replacement field.
func (e *eval) parseSpec(s string) spec {
	p := spec{fill: " ", precision: -1}
	if _, n := utf8.DecodeRuneInString(s); n > 0 && len(s) > n && strings.IndexByte("<>^", s[n]) >= 0 {
		p.fill, p.align, s = s[:n], s[n], s[n+1:]
	} else if s != "" && strings.IndexByte("<>^", s[0]) >= 0 {
		p.align, s = s[0], s[1:]
	}
	if s != "" && strings.IndexByte("+- ", s[0]) >= 0 {
		p.sign, s = s[0], s[1:]
	}
	if strings.HasPrefix(s, "0") {
		p.zero, s = true, s[1:]
	}
	i := 0
	p.width, i = e.digits(s, 0)
	s = s[i:]
	if strings.HasPrefix(s, ",") || strings.HasPrefix(s, "_") {
		p.comma, s = s[0] == ',', s[1:]
	}
	if strings.HasPrefix(s, ".") {
		p.precision, i = e.digits(s, 1)
		s = s[i:]
	}
	if len(s) > 1 {
		e.fail("invalid format specifier")
	}
	if s != "" {
		p.verb = s[0]
	}
	return p
}

// formatted is v under a specification.
func (e *eval) formatted(v Value, s spec) string {
	var text string
	align := byte('<')
	switch i, f, isInt, ok := number(v); {
	case ok && s.verb != 's':
		align = '>'
		neg := isInt && i < 0 || !isInt && math.Signbit(f)
		if isInt {
			f = math.Abs(f)
		}
		digits := strconv.FormatUint(uint64(max(i, -i)), 10)
		if s.precision < 0 && s.verb != 0 {
			s.precision = 6
		}
		switch s.verb {
		case 'd':
			if !isInt {
				e.fail("unknown format code 'd' for object of type 'float'")
			}
			text = digits
		case 'x', 'X', 'o', 'b':
			text = strconv.FormatUint(uint64(max(i, -i)), map[byte]int{'x': 16, 'X': 16, 'o': 8, 'b': 2}[s.verb])
			if s.verb == 'X' {
				text = strings.ToUpper(text)
			}
		case 'f', 'F', 'e', 'E':
			text = strconv.FormatFloat(math.Abs(f), s.verb|0x20, s.precision, 64)
		case 'g', 'G':
			text = strconv.FormatFloat(math.Abs(f), 'g', max(s.precision, 1), 64)
		case '%':
			text = strconv.FormatFloat(math.Abs(f)*100, 'f', s.precision, 64) + "%"
		case 0:
			text = digits
			if !isInt {
				text = floatRepr(math.Abs(f))
				if s.precision >= 0 {
					text = strconv.FormatFloat(math.Abs(f), 'g', max(s.precision, 1), 64)
				}
			} else if _, isBool := v.(bool); isBool {
				text = repr(v)
			}
		default:
			e.fail("unknown format code %q", s.verb)
		}
		if s.comma {
			text = thousands(text)
		}
		sign := ""
		if neg {
			sign = "-"
		} else if s.sign == '+' || s.sign == ' ' {
			sign = string(s.sign)
		}
		if s.zero && s.align != '<' {
			text = e.pad(text, s.width-len(sign), "0", func(n int) int { return n })
		}
		text = sign + text
	default:
		if s.verb != 0 && s.verb != 's' {
			e.fail("unknown format code %q for object of type %q", s.verb, typeName(v))
		}
		text = str(v)
		if s.precision >= 0 && runeLen(text) > s.precision {
			text = string([]rune(text)[:s.precision])
		}
	}
	if s.align != 0 {
		align = s.align
	}
	return e.pad(text, s.width, s.fill, func(n int) int {
		switch align {
		case '<':
			return 0
		case '^':
			return n / 2
		}
		return n
	})
}

func thousands(s string) string {
	end := strings.IndexAny(s, ".e%")
	if end < 0 {
		end = len(s)
	}
	for i := end - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// format is str.format: replacement fields with numbers or names, attributes,
// items, conversions and specifications.
func (e *eval) format(s string, pos []Value, kw *Dict) string {
	var b strings.Builder
	auto, manual := 0, false
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c != '{' && c != '}':
			b.WriteByte(c)
			i++
			continue
		case i+1 < len(s) && s[i+1] == c:
			b.WriteByte(c)
			i += 2
			continue
		case c == '}':
			e.fail("single '}' encountered in format string")
		}
		j := strings.IndexByte(s[i:], '}')
		if j < 0 {
			e.fail("expected '}' before end of string")
		}
		field, specText, _ := strings.Cut(s[i+1:i+j], ":")
		if strings.Contains(specText, "{") {
			e.fail("nested replacement fields are not supported")
		}
		i += j + 1
		field, conv, _ := strings.Cut(field, "!")
		end := strings.IndexAny(field, ".[")
		if end < 0 {
			end = len(field)
		}
		first, rest := field[:end], field[end:]
		var v Value
		numbered := first != ""
		if !numbered {
			first = strconv.Itoa(auto)
			auto++
		}
		if n, err := strconv.Atoi(first); err == nil {
			if manual = manual || numbered; manual && auto > 0 {
				e.fail("cannot mix numbered and automatic replacement fields")
			}
			if n >= len(pos) {
				e.fail("replacement index %d out of range", n)
			}
			v = pos[n]
		} else {
			var ok bool
			if v, ok = kw.Get(first); !ok {
				e.fail("no argument %q for the format", first)
			}
		}
		for rest != "" {
			end := strings.IndexAny(rest[1:], ".[") + 1
			if end == 0 {
				end = len(rest)
			}
			if part := rest[1:end]; rest[0] == '.' {
				v = e.attr(v, part)
			} else if key := strings.TrimSuffix(part, "]"); key != part {
				if n, err := strconv.Atoi(key); err == nil {
					v = e.item(v, n)
				} else {
					v = e.item(v, key)
				}
			} else {
				e.fail("missing ']' in format string")
			}
			rest = rest[end:]
		}
		switch conv {
		case "r", "a":
			v = repr(v)
		case "s":
			v = str(v)
		}
		b.WriteString(e.formatted(v, e.parseSpec(specText)))
		e.size(b.Len())
	}
	return b.String()
}
