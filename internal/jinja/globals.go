package jinja

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxRange is the longest range that a sandboxed template may make.
const maxRange = 100000

// globals are the functions that every template sees.
var globals map[string]*function

func init() {
	globals = map[string]*function{
		"range":           {"range", rangeOf},
		"dict":            {"dict", dictOf},
		"namespace":       {"namespace", namespaceOf},
		"raise_exception": {"raise_exception", raise},
		"strftime_now":    {"strftime_now", strftimeNow},
		"cycler":          {"cycler", func(_ *eval, pos []Value, _ *Dict) Value { return &cyclerState{items: pos} }},
		"joiner": {"joiner", func(e *eval, pos []Value, kw *Dict) Value {
			by := or(e.params("joiner", pos, kw, "sep")[0], ", ")
			used := false
			return &function{"joiner", func(*eval, []Value, *Dict) Value {
				if !used {
					used = true
					return ""
				}
				return by
			}}
		}},
	}
}

func raise(e *eval, pos []Value, kw *Dict) Value {
	a := e.params("raise_exception", pos, kw, "message")
	panic(&Error{Line: e.line, Msg: str(e.needAny("raise_exception", a[0])), Raised: true})
}

func rangeOf(e *eval, pos []Value, kw *Dict) Value {
	if kw.Len() > 0 || len(pos) < 1 || len(pos) > 3 {
		e.fail("range() takes 1 to 3 positional arguments")
	}
	start, stop, step := 0, 0, 1
	switch n := func(i int) int { return e.integer("range", pos[i], 0) }; len(pos) {
	case 1:
		stop = n(0)
	case 3:
		step = n(2)
		fallthrough
	case 2:
		start, stop = n(0), n(1)
	}
	if step == 0 {
		e.fail("range() arg 3 must not be zero")
	}
	l := &List{kind: isRange}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		if len(l.Items) == maxRange {
			e.fail("range too big: the sandbox blocks ranges larger than %d", maxRange)
		}
		l.Items = append(l.Items, i)
		if step > 0 && i > stop-step || step < 0 && i < stop-step {
			break
		}
	}
	return l
}

// dictOf is dict(), namespace's arguments too: a mapping or pairs, and keywords.
func dictOf(e *eval, pos []Value, kw *Dict) Value {
	d := &Dict{}
	if len(pos) > 1 {
		e.fail("dict expected at most 1 argument, got %d", len(pos))
	}
	if len(pos) == 1 {
		e.defined(pos[0])
		if from, ok := pos[0].(*Dict); ok {
			d = from.Clone()
		} else {
			for _, x := range e.iterate(pos[0]) {
				p := e.iterate(x)
				if len(p) != 2 {
					e.fail("dictionary update sequence element has length %d; 2 is required", len(p))
				}
				if !d.Set(p[0], p[1]) {
					e.fail("unhashable type: %q", typeName(p[0]))
				}
			}
		}
	}
	for i, k := range kw.keys {
		d.Set(k, kw.values[i])
	}
	return d
}

func namespaceOf(e *eval, pos []Value, kw *Dict) Value {
	return &namespace{*dictOf(e, pos, kw).(*Dict)}
}

// cyclerState is what cycler() makes.
type cyclerState struct {
	items []Value
	at    int
}

func (c *cyclerState) attr(name string) (Value, bool) {
	current := func(e *eval) Value {
		if len(c.items) == 0 {
			e.fail("at least one item has to be provided")
		}
		return c.items[c.at%len(c.items)]
	}
	switch name {
	case "next":
		return &function{"next", func(e *eval, _ []Value, _ *Dict) Value {
			v := current(e)
			c.at++
			return v
		}}, true
	case "reset":
		return &function{"reset", func(*eval, []Value, *Dict) Value {
			c.at = 0
			return nil
		}}, true
	case "current":
		if len(c.items) > 0 {
			return c.items[c.at%len(c.items)], true
		}
	}
	return nil, false
}

func strftimeNow(e *eval, pos []Value, kw *Dict) Value {
	return e.strftime(e.opt.Now(), e.text("strftime_now", e.params("strftime_now", pos, kw, "format")[0]))
}

// strftime is datetime.strftime of a time without a zone, in the C locale.
func (e *eval) strftime(t time.Time, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		width := true
		if (format[i] == '-' || format[i] == '_') && i+1 < len(format) {
			width = false
			i++
		}
		num := func(n, digits int) {
			if width {
				fmt.Fprintf(&b, "%0*d", digits, n)
			} else {
				b.WriteString(strconv.Itoa(n))
			}
		}
		hour12 := (t.Hour()+11)%12 + 1
		_, isoWeek := t.ISOWeek()
		isoYear, _ := t.ISOWeek()
		switch format[i] {
		case 'Y':
			b.WriteString(strconv.Itoa(t.Year()))
		case 'y':
			num(t.Year()%100, 2)
		case 'C':
			num(t.Year()/100, 2)
		case 'm':
			num(int(t.Month()), 2)
		case 'd':
			num(t.Day(), 2)
		case 'e':
			fmt.Fprintf(&b, "%2d", t.Day())
		case 'H':
			num(t.Hour(), 2)
		case 'I':
			num(hour12, 2)
		case 'k':
			fmt.Fprintf(&b, "%2d", t.Hour())
		case 'l':
			fmt.Fprintf(&b, "%2d", hour12)
		case 'M':
			num(t.Minute(), 2)
		case 'S':
			num(t.Second(), 2)
		case 'f':
			fmt.Fprintf(&b, "%06d", t.Nanosecond()/1000)
		case 'j':
			num(t.YearDay(), 3)
		case 'B':
			b.WriteString(t.Month().String())
		case 'b', 'h':
			b.WriteString(t.Month().String()[:3])
		case 'A':
			b.WriteString(t.Weekday().String())
		case 'a':
			b.WriteString(t.Weekday().String()[:3])
		case 'w':
			b.WriteString(strconv.Itoa(int(t.Weekday())))
		case 'u':
			b.WriteString(strconv.Itoa((int(t.Weekday())+6)%7 + 1))
		case 'U':
			num((t.YearDay()+6-int(t.Weekday()))/7, 2)
		case 'W':
			num((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2)
		case 'V':
			num(isoWeek, 2)
		case 'G':
			b.WriteString(strconv.Itoa(isoYear))
		case 'p':
			b.WriteString(t.Format("PM"))
		case 'P':
			b.WriteString(t.Format("pm"))
		case 'T', 'X':
			b.WriteString(t.Format("15:04:05"))
		case 'R':
			b.WriteString(t.Format("15:04"))
		case 'r':
			b.WriteString(t.Format("03:04:05 PM"))
		case 'D', 'x':
			b.WriteString(t.Format("01/02/06"))
		case 'F':
			b.WriteString(t.Format("2006-01-02"))
		case 'c':
			b.WriteString(t.Format("Mon Jan _2 15:04:05 2006"))
		case 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'Z', 'z':
		case '%':
			b.WriteByte('%')
		default:
			b.WriteByte('%')
			b.WriteByte(format[i])
		}
	}
	return b.String()
}
