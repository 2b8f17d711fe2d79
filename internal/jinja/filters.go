package jinja

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// filterFunc is a filter, as in x|upper.
type filterFunc func(e *eval, on Value, pos []Value, kw *Dict) Value

var filters map[string]filterFunc

// textual is a filter on a string, or what prints as one, without arguments.
func textual(fn string, f func(string) string) filterFunc {
	return func(e *eval, on Value, pos []Value, kw *Dict) Value {
		e.params(fn, pos, kw)
		return f(str(on))
	}
}

func init() {
	filters = map[string]filterFunc{
		"upper":      textual("upper", upperCase),
		"lower":      textual("lower", lowerCase),
		"capitalize": textual("capitalize", capitalize),
		"title":      textual("title", titleWords),
		"string":     textual("string", func(s string) string { return s }),
		"escape":     textual("escape", escapeHTML),
		"striptags":  textual("striptags", stripTags),
		"safe":       textual("safe", func(s string) string { return s }),
		"trim": func(e *eval, on Value, pos []Value, kw *Dict) Value {
			return strings.TrimFunc(str(on), e.cutset("trim", e.params("trim", pos, kw, "chars")[0]))
		},
		"length":    length,
		"first":     func(e *eval, on Value, pos []Value, kw *Dict) Value { return e.end("first", on, pos, kw, 0) },
		"last":      func(e *eval, on Value, pos []Value, kw *Dict) Value { return e.end("last", on, pos, kw, -1) },
		"default":   defaultTo,
		"int":       toInt,
		"float":     toFloat,
		"abs":       absolute,
		"round":     round,
		"list":      func(e *eval, on Value, _ []Value, _ *Dict) Value { return NewList(slices.Clone(e.iterate(on))...) },
		"join":      join,
		"replace":   replaceFilter,
		"reverse":   reverse,
		"tojson":    toJSON,
		"items":     items,
		"dictsort":  dictSort,
		"sort":      sortFilter,
		"unique":    unique,
		"min":       func(e *eval, on Value, pos []Value, kw *Dict) Value { return e.extreme("min", on, pos, kw, -1) },
		"max":       func(e *eval, on Value, pos []Value, kw *Dict) Value { return e.extreme("max", on, pos, kw, 1) },
		"sum":       sum,
		"map":       mapFilter,
		"select":    func(e *eval, on Value, pos []Value, _ *Dict) Value { return e.selected("select", on, pos, true) },
		"reject":    func(e *eval, on Value, pos []Value, _ *Dict) Value { return e.selected("reject", on, pos, false) },
		"groupby":   groupBy,
		"batch":     batch,
		"slice":     sliceFilter,
		"attr":      func(e *eval, on Value, pos []Value, kw *Dict) Value { return e.attrOnly(on, pos, kw) },
		"indent":    indent,
		"truncate":  truncate,
		"wordcount": func(_ *eval, on Value, _ []Value, _ *Dict) Value { return len(wordRE.FindAllString(str(on), -1)) },
		"center": func(e *eval, on Value, pos []Value, kw *Dict) Value {
			width := e.integer("center", e.params("center", pos, kw, "width")[0], 80)
			return e.pad(str(on), width, " ", func(n int) int { return centered(n, width) })
		},
		"format": func(e *eval, on Value, pos []Value, kw *Dict) Value {
			if kw.Len() > 0 {
				return e.percent(str(on), kw)
			}
			return e.percent(str(on), tuple(pos...))
		},
		"urlencode":      func(_ *eval, on Value, _ []Value, _ *Dict) Value { return urlEncode(str(on)) },
		"filesizeformat": fileSize,
		"pprint":         func(_ *eval, on Value, _ []Value, _ *Dict) Value { return repr(on) },
		"selectattr": func(e *eval, on Value, pos []Value, _ *Dict) Value {
			return e.selectedAttr("selectattr", on, pos, true)
		},
		"rejectattr": func(e *eval, on Value, pos []Value, _ *Dict) Value {
			return e.selectedAttr("rejectattr", on, pos, false)
		},
	}
	filters["e"], filters["forceescape"] = filters["escape"], filters["escape"]
	filters["count"], filters["d"] = filters["length"], filters["default"]
}

var (
	wordRE = regexp.MustCompile(`[\pL\pN_]+`)
	tagRE  = regexp.MustCompile(`(?s)<!--.*?-->|<[^>]*>`)
)

// titleWords upper-cases the first letter of each word, words being what white
// space, hyphens and opening brackets separate.
func titleWords(s string) string {
	start := true
	return strings.Map(func(r rune) rune {
		first := start
		start = pySpace(r) || strings.ContainsRune("-({[<", r)
		if first && !start {
			return unicode.ToUpper(r)
		}
		return unicode.ToLower(r)
	}, s)
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

func escapeHTML(s string) string { return htmlEscaper.Replace(s) }

func stripTags(s string) string {
	return strings.Join(strings.Fields(tagRE.ReplaceAllString(s, "")), " ")
}

func length(e *eval, on Value, pos []Value, kw *Dict) Value {
	e.params("length", pos, kw)
	switch v := on.(type) {
	case string:
		return runeLen(v)
	case *Dict:
		return v.Len()
	case *List:
		if v.kind != isGenerator {
			return len(v.Items)
		}
	case *Undefined:
		return 0
	case *loopVar:
		return len(v.items)
	}
	e.fail("object of type %q has no len()", typeName(on))
	return nil
}

// end is the first or the last item.
func (e *eval) end(fn string, on Value, pos []Value, kw *Dict, at int) Value {
	e.params(fn, pos, kw)
	list := e.iterate(on)
	switch {
	case len(list) == 0:
		return undefined("no " + fn + " item, sequence was empty")
	case at < 0:
		return list[len(list)-1]
	}
	return list[0]
}

func defaultTo(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("default", pos, kw, "default_value", "boolean")
	if _, u := on.(*Undefined); u || flag(a[1], false) && !truth(on) {
		return or(a[0], "")
	}
	return on
}

func toInt(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("int", pos, kw, "default", "base")
	def, base := or(a[0], 0), e.integer("int", a[1], 10)
	e.defined(on)
	switch v := on.(type) {
	case string:
		s := strings.ReplaceAll(strings.TrimFunc(v, pySpace), "_", "")
		if base != 10 {
			s = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(s), "0x"), "0b"), "0o")
		}
		if base >= 2 && base <= 36 {
			if n, err := strconv.ParseInt(s, base, 64); err == nil {
				return int(n)
			}
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < 1<<63 {
			return int(f)
		}
		return def
	case bigInt:
		return v
	}
	if i, f, isInt, ok := number(on); ok {
		if isInt {
			return i
		}
		if math.Abs(f) < 1<<63 {
			return int(f)
		}
	}
	return def
}

func toFloat(e *eval, on Value, pos []Value, kw *Dict) Value {
	def := or(e.params("float", pos, kw, "default")[0], 0.0)
	e.defined(on)
	if s, ok := on.(string); ok {
		s = strings.TrimFunc(s, pySpace)
		if f, err := strconv.ParseFloat(s, 64); (err == nil || math.IsInf(f, 0)) && !strings.ContainsAny(s, "xXpP") {
			return f
		}
		return def
	}
	if _, f, _, ok := number(on); ok {
		return f
	}
	return def
}

func absolute(e *eval, on Value, _ []Value, _ *Dict) Value {
	e.defined(on)
	i, f, isInt, ok := number(on)
	switch {
	case !ok:
		e.fail("bad operand type for abs(): %q", typeName(on))
	case isInt:
		return max(i, -i)
	}
	return math.Abs(f)
}

func round(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("round", pos, kw, "precision", "method")
	places := e.integer("round", a[0], 0)
	method := str(or(a[1], "common"))
	e.defined(on)
	i, f, isInt, ok := number(on)
	if !ok {
		e.fail("type %s doesn't define __round__ method", typeName(on))
	}
	scale := math.Pow(10, float64(places))
	switch method {
	case "ceil":
		return math.Ceil(f*scale) / scale
	case "floor":
		return math.Floor(f*scale) / scale
	case "common":
	default:
		e.fail("method must be common, ceil or floor")
	}
	if isInt && places >= 0 {
		return i
	}
	if places >= 0 {
		// Python rounds the decimal expansion, half to even of the exact value.
		r, err := strconv.ParseFloat(strconv.FormatFloat(f, 'f', min(places, 400), 64), 64)
		if err == nil {
			return r
		}
		return f
	}
	r := math.RoundToEven(f*scale) / scale
	if isInt {
		return int(r)
	}
	return r
}

// path gives what looks up an attribute as filters do: a name, names with dots
// between them, or a number.
func (e *eval) path(attr Value) func(Value) Value {
	if s, ok := attr.(string); ok {
		parts := strings.Split(s, ".")
		return func(v Value) Value {
			for _, p := range parts {
				if n, err := strconv.Atoi(p); err == nil && n >= 0 {
					v = e.item(v, n)
				} else {
					v = e.item(v, p)
				}
			}
			return v
		}
	}
	return func(v Value) Value { return e.item(v, attr) }
}

func join(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("join", pos, kw, "d", "attribute")
	by := str(or(a[0], ""))
	list := e.iterate(on)
	parts := make([]string, len(list))
	get := func(v Value) Value { return v }
	if attr := or(a[1], nil); attr != nil {
		get = e.path(attr)
	}
	for i, v := range list {
		parts[i] = str(get(v))
	}
	return e.join(parts, by)
}

func replaceFilter(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("replace", pos, kw, "old", "new", "count")
	n := -1
	if or(a[2], nil) != nil {
		n = e.integer("replace", a[2], -1)
	}
	return e.replace(str(on), str(e.needAny("replace", a[0])), str(e.needAny("replace", a[1])), n)
}

func reverse(e *eval, on Value, _ []Value, _ *Dict) Value {
	if s, ok := on.(string); ok {
		r := []rune(s)
		slices.Reverse(r)
		return string(r)
	}
	list := slices.Clone(e.iterate(on))
	slices.Reverse(list)
	return generator("list_reverseiterator", list)
}

func toJSON(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("tojson", pos, kw, "ensure_ascii", "indent", "separators", "sort_keys")
	s := &jsonStyle{comma: ", ", col: ": ", escapeASCII: flag(a[0], false), sorted: flag(a[3], false)}
	switch ind := or(a[1], nil).(type) {
	case nil:
	case string:
		s.indent, s.lines, s.comma = ind, true, ","
	default:
		n := min(max(e.integer("tojson", ind, 0), 0), 1000)
		s.indent, s.lines, s.comma = strings.Repeat(" ", n), true, ","
	}
	if sep := or(a[2], nil); sep != nil {
		pair := e.iterate(sep)
		if len(pair) != 2 {
			e.fail("tojson(): separators are two strings")
		}
		s.comma, s.col = e.text("tojson", pair[0]), e.text("tojson", pair[1])
	}
	var b strings.Builder
	if err := writeJSON(&b, on, s, 0); err != nil {
		e.fail("%v", err)
	}
	e.size(b.Len())
	return b.String()
}

func items(e *eval, on Value, pos []Value, kw *Dict) Value {
	e.params("items", pos, kw)
	switch d := on.(type) {
	case *Undefined:
		return generator("generator", nil)
	case *Dict:
		return generator("generator", dictMethods["items"](e, d, nil, nil).(*List).Items)
	}
	e.fail("can only get item pairs from a mapping")
	return nil
}

// attrOnly looks up an attribute, not an item.
func (e *eval) attrOnly(on Value, pos []Value, kw *Dict) Value {
	n := str(e.need("attr", e.params("attr", pos, kw, "name")[0]))
	e.defined(on)
	if v, ok := e.attribute(on, n); ok {
		return v
	}
	return undefined(quote(typeName(on)) + " object has no attribute " + quote(n))
}

func indent(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("indent", pos, kw, "width", "first", "blank")
	var by string
	switch w := or(a[0], 4).(type) {
	case string:
		by = w
	default:
		by = e.pad("", e.integer("indent", w, 4), " ", func(n int) int { return n })
	}
	s := str(on) + "\n" // a text that ends with a line end keeps it
	var lines []string
	for _, l := range splitLines(s, false).(*List).Items {
		lines = append(lines, l.(string))
	}
	for i := range lines {
		if i > 0 && (flag(a[2], false) || lines[i] != "") || i == 0 && flag(a[1], false) {
			lines[i] = by + lines[i]
		}
	}
	return e.join(lines, "\n")
}

func truncate(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("truncate", pos, kw, "length", "killwords", "end", "leeway")
	n, end := e.integer("truncate", a[0], 255), str(or(a[2], "..."))
	leeway := 5
	if or(a[3], nil) != nil {
		leeway = e.integer("truncate", a[3], 5)
	}
	r := []rune(str(on))
	if len(r) <= n+leeway {
		return string(r)
	}
	keep := n - runeLen(end)
	if keep < 0 {
		e.fail("expected length >= %d, got %d", runeLen(end), n)
	}
	s := string(r[:keep])
	if !flag(a[1], false) {
		if i := strings.LastIndexByte(s, ' '); i >= 0 {
			s = s[:i]
		}
	}
	return s + end
}

func urlEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			const hex = "0123456789ABCDEF"
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

func fileSize(e *eval, on Value, pos []Value, kw *Dict) Value {
	binary := flag(e.params("filesizeformat", pos, kw, "binary")[0], false)
	f, _ := toFloat(e, on, nil, &Dict{}).(float64)
	base, units := 1000.0, []string{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"}
	if binary {
		base, units = 1024, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}
	}
	switch {
	case f == 1:
		return "1 Byte"
	case f < base:
		return strconv.Itoa(int(f)) + " Bytes"
	}
	for i, u := range units {
		if unit := math.Pow(base, float64(i+2)); f < unit || i == len(units)-1 {
			return strconv.FormatFloat(base*f/unit, 'f', 1, 64) + " " + u
		}
	}
	return ""
}
