package jinja

import (
	"math"
	"strconv"
	"strings"
)

// str is Python's str(v).
func str(v Value) string {
	switch v := v.(type) {
	case string:
		return v
	case *Undefined:
		return ""
	}
	return repr(v)
}

// maxRepr bounds what a value prints as: a value that holds others twice, and those
// others twice, and so on, is small and prints without end. maxEqual bounds in the
// same way what one comparison looks at.
const (
	maxRepr  = 8 << 20
	maxEqual = 1_000_000
)

func printable(size int) {
	if size > maxRepr {
		panic(&Error{Msg: "a value prints as more than 8 MiB"})
	}
}

// shallow fails where values are nested so deep that going through them could
// exhaust the stack.
func shallow(depth int) {
	if depth > 10*maxDepth {
		panic(&Error{Msg: "maximum recursion depth exceeded"})
	}
}

// repr is Python's repr(v).
func repr(v Value) string { return reprAt(v, 0) }

func reprAt(v Value, depth int) string {
	shallow(depth)
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int:
		return strconv.Itoa(v)
	case bigInt:
		return v.String()
	case float64:
		return floatRepr(v)
	case string:
		return quote(v)
	case *List:
		return listRepr(v, depth+1)
	case *Dict:
		var b strings.Builder
		b.WriteByte('{')
		for i, k := range v.keys {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(reprAt(k, depth+1))
			b.WriteString(": ")
			b.WriteString(reprAt(v.values[i], depth+1))
			printable(b.Len())
		}
		b.WriteByte('}')
		return b.String()
	case *Undefined:
		return "Undefined"
	case *namespace:
		return "<Namespace " + reprAt(&v.attrs, depth+1) + ">"
	case *macro:
		return "<Macro " + quote(v.def.name) + ">"
	case *loopVar:
		return "<LoopContext " + strconv.Itoa(v.i+1) + "/" + strconv.Itoa(len(v.items)) + ">"
	case *function:
		return "<function " + v.name + ">"
	}
	return "<object>"
}

func listRepr(l *List, depth int) string {
	switch l.kind {
	case isGenerator:
		return "<" + l.view + " object>"
	case isRange:
		if n := len(l.Items); n > 0 {
			a, step := l.Items[0].(int), 1
			if n > 1 {
				step = l.Items[1].(int) - a
			}
			s := "range(" + strconv.Itoa(a) + ", " + strconv.Itoa(a+n*step)
			if step != 1 {
				s += ", " + strconv.Itoa(step)
			}
			return s + ")"
		}
		return "range(0, 0)"
	}
	var b strings.Builder
	open, end := "[", "]"
	switch l.kind {
	case isTuple:
		open, end = "(", ")"
		if len(l.Items) == 1 {
			end = ",)"
		}
	case isView:
		open, end = l.view+"([", "])"
	}
	b.WriteString(open)
	for i, x := range l.Items {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(reprAt(x, depth))
		printable(b.Len())
	}
	b.WriteString(end)
	return b.String()
}

// floatRepr is Python's repr of a float: the shortest digits that give it back,
// with an exponent below 1e-4 and from 1e16 on.
func floatRepr(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64) // Go too writes two digits of exponent at least
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// quote is Python's repr of a string.
func quote(s string) string {
	q := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	var b strings.Builder
	b.WriteByte(q)
	for _, r := range s {
		switch {
		case r == rune(q) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r >= 0x7f && !strconv.IsPrint(r):
			const hex = "0123456789abcdef"
			switch {
			case r < 0x100:
				b.WriteString(`\x` + string([]byte{hex[r>>4], hex[r&15]}))
			case r < 0x10000:
				b.WriteString(`\u` + string([]byte{hex[r>>12], hex[r>>8&15], hex[r>>4&15], hex[r&15]}))
			default:
				b.WriteString(`\U00` + string([]byte{hex[r>>20&15], hex[r>>16&15], hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15]}))
			}
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte(q)
	return b.String()
}
