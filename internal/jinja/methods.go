package jinja

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Methods that change a value are not to be had by a template.
var (
	changesList = map[string]bool{"append": true, "clear": true, "extend": true, "insert": true, "pop": true, "remove": true, "reverse": true, "sort": true}
	changesDict = map[string]bool{"clear": true, "pop": true, "popitem": true, "setdefault": true, "update": true}
)

var listMethods = map[string]method[*List]{
	"index": func(e *eval, l *List, pos []Value, kw *Dict) Value {
		a := e.params("index", pos, kw, "x", "start", "end")
		start, end := e.bounds(len(l.Items), a[1], a[2])
		for i := start; i < end; i++ {
			if equal(l.Items[i], a[0]) {
				return i
			}
		}
		e.fail("%s is not in list", repr(a[0]))
		return nil
	},
	"count": func(e *eval, l *List, pos []Value, kw *Dict) Value {
		a := e.params("count", pos, kw, "x")
		n := 0
		for _, x := range l.Items {
			if equal(x, a[0]) {
				n++
			}
		}
		return n
	},
	"copy": func(_ *eval, l *List, _ []Value, _ *Dict) Value {
		return &List{Items: slices.Clone(l.Items), kind: l.kind}
	},
}

var dictMethods = map[string]method[*Dict]{
	"items": func(_ *eval, d *Dict, _ []Value, _ *Dict) Value {
		l := &List{kind: isView, view: "dict_items"}
		for i := range d.keys {
			l.Items = append(l.Items, d.pair(i))
		}
		return l
	},
	"keys": func(_ *eval, d *Dict, _ []Value, _ *Dict) Value {
		return &List{Items: slices.Clone(d.keys), kind: isView, view: "dict_keys"}
	},
	"values": func(_ *eval, d *Dict, _ []Value, _ *Dict) Value {
		return &List{Items: slices.Clone(d.values), kind: isView, view: "dict_values"}
	},
	"get": func(e *eval, d *Dict, pos []Value, kw *Dict) Value {
		a := e.params("get", pos, kw, "key", "default")
		if v, ok := d.Get(e.needAny("get", a[0])); ok {
			return v
		}
		return or(a[1], nil)
	},
	"copy": func(_ *eval, d *Dict, _ []Value, _ *Dict) Value { return d.Clone() },
}

// needAny is an argument that must be given but may be undefined.
func (e *eval) needAny(fn string, v Value) Value {
	if v == absent {
		e.fail("%s() misses an argument", fn)
	}
	return v
}

// bounds are the start and end arguments of a search in n items.
func (e *eval) bounds(n int, start, end Value) (int, int) {
	at := func(v Value, def int) int {
		if v == nil {
			return def
		}
		i := e.integer("index", v, def)
		if i < 0 {
			i += n
		}
		return min(max(i, 0), n)
	}
	i, j := at(start, 0), at(end, n)
	return i, max(i, j)
}

// find looks for a substring and gives its place in code points, -1 if there is none.
func (e *eval) find(fn, s string, pos []Value, kw *Dict, last bool) int {
	a := e.params(fn, pos, kw, "sub", "start", "end")
	r := []rune(s)
	i, j := e.bounds(len(r), a[1], a[2])
	part := string(r[i:j])
	k := strings.Index(part, e.text(fn, a[0]))
	if last {
		k = strings.LastIndex(part, a[0].(string))
	}
	if k < 0 {
		return -1
	}
	return i + runeLen(part[:k])
}

// affix is startswith and endswith: one string or a tuple of them.
func affix(fn string, has func(s, x string) bool) method[string] {
	return func(e *eval, s string, pos []Value, kw *Dict) Value {
		a := e.params(fn, pos, kw, "prefix", "start", "end")
		if a[1] != absent || a[2] != absent {
			r := []rune(s)
			i, j := e.bounds(len(r), a[1], a[2])
			s = string(r[i:j])
		}
		if l, ok := a[0].(*List); ok && l.kind == isTuple {
			for _, x := range l.Items {
				if has(s, e.text(fn, x)) {
					return true
				}
			}
			return false
		}
		return has(s, e.text(fn, a[0]))
	}
}

// mapped is a method without arguments.
func mapped(fn string, f func(string) Value) method[string] {
	return func(e *eval, s string, pos []Value, kw *Dict) Value {
		e.params(fn, pos, kw)
		return f(s)
	}
}

// every is one of the is… methods: f holds for all code points, and there are some.
func every(fn string, f func(rune) bool) method[string] {
	return mapped(fn, func(s string) Value {
		return s != "" && strings.IndexFunc(s, func(r rune) bool { return !f(r) }) < 0
	})
}

// cased is isupper and islower: there are letters of that case and none of the other.
func cased(fn string, is, other func(rune) bool) method[string] {
	return mapped(fn, func(s string) Value {
		return strings.IndexFunc(s, is) >= 0 && strings.IndexFunc(s, func(r rune) bool { return other(r) || unicode.IsTitle(r) }) < 0
	})
}

func strip(fn string, left, right bool) method[string] {
	return func(e *eval, s string, pos []Value, kw *Dict) Value {
		cut := e.cutset(fn, e.params(fn, pos, kw, "chars")[0])
		if left {
			s = strings.TrimLeftFunc(s, cut)
		}
		if right {
			s = strings.TrimRightFunc(s, cut)
		}
		return s
	}
}

func justify(fn string, place func(space, width int) (left int)) method[string] {
	return func(e *eval, s string, pos []Value, kw *Dict) Value {
		a := e.params(fn, pos, kw, "width", "fillchar")
		fill := " "
		if a[1] != absent {
			fill = e.text(fn, a[1])
		}
		if runeLen(fill) != 1 {
			e.fail("the fill character must be exactly one character long")
		}
		width := e.integer(fn, a[0], 0)
		return e.pad(s, width, fill, func(n int) int { return place(n, width) })
	}
}

func (e *eval) pad(s string, width int, fill string, place func(int) int) string {
	space := width - runeLen(s)
	if space <= 0 {
		return s
	}
	e.size(space)
	left := place(space)
	return strings.Repeat(fill, left) + s + strings.Repeat(fill, space-left)
}

// stringMethods is filled in by init: some of them call back into the evaluator.
var stringMethods map[string]method[string]

func init() {
	stringMethods = map[string]method[string]{
		"upper":      mapped("upper", func(s string) Value { return upperCase(s) }),
		"lower":      mapped("lower", func(s string) Value { return lowerCase(s) }),
		"casefold":   mapped("casefold", func(s string) Value { return strings.ReplaceAll(lowerCase(s), "ß", "ss") }),
		"title":      mapped("title", func(s string) Value { return pyTitle(s) }),
		"capitalize": mapped("capitalize", func(s string) Value { return capitalize(s) }),
		"swapcase": mapped("swapcase", func(s string) Value {
			return strings.Map(func(r rune) rune {
				if unicode.IsUpper(r) {
					return unicode.ToLower(r)
				}
				return unicode.ToUpper(r)
			}, s)
		}),
		"strip":      strip("strip", true, true),
		"lstrip":     strip("lstrip", true, false),
		"rstrip":     strip("rstrip", false, true),
		"startswith": affix("startswith", strings.HasPrefix),
		"endswith":   affix("endswith", strings.HasSuffix),
		"removeprefix": func(e *eval, s string, pos []Value, kw *Dict) Value {
			return strings.TrimPrefix(s, e.text("removeprefix", e.params("removeprefix", pos, kw, "prefix")[0]))
		},
		"removesuffix": func(e *eval, s string, pos []Value, kw *Dict) Value {
			return strings.TrimSuffix(s, e.text("removesuffix", e.params("removesuffix", pos, kw, "suffix")[0]))
		},
		"isdigit":   every("isdigit", func(r rune) bool { return unicode.IsDigit(r) || superDigit(r) }),
		"isdecimal": every("isdecimal", unicode.IsDigit),
		"isnumeric": every("isnumeric", unicode.IsNumber),
		"isalpha":   every("isalpha", unicode.IsLetter),
		"isalnum":   every("isalnum", func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }),
		"isspace":   every("isspace", pySpace),
		"isascii":   mapped("isascii", func(s string) Value { return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 }),
		"isupper":   cased("isupper", unicode.IsUpper, unicode.IsLower),
		"islower":   cased("islower", unicode.IsLower, unicode.IsUpper),
		"istitle":   mapped("istitle", func(s string) Value { return strings.IndexFunc(s, unicode.IsLetter) >= 0 && pyTitle(s) == s }),
		"split":     func(e *eval, s string, pos []Value, kw *Dict) Value { return e.split("split", s, pos, kw, false) },
		"rsplit":    func(e *eval, s string, pos []Value, kw *Dict) Value { return e.split("rsplit", s, pos, kw, true) },
		"splitlines": func(e *eval, s string, pos []Value, kw *Dict) Value {
			return splitLines(s, flag(e.params("splitlines", pos, kw, "keepends")[0], false))
		},
		"replace": func(e *eval, s string, pos []Value, kw *Dict) Value {
			a := e.params("replace", pos, kw, "old", "new", "count")
			return e.replace(s, e.text("replace", a[0]), e.text("replace", a[1]), e.integer("replace", a[2], -1))
		},
		"find":  func(e *eval, s string, pos []Value, kw *Dict) Value { return e.find("find", s, pos, kw, false) },
		"rfind": func(e *eval, s string, pos []Value, kw *Dict) Value { return e.find("rfind", s, pos, kw, true) },
		"index": func(e *eval, s string, pos []Value, kw *Dict) Value {
			i := e.find("index", s, pos, kw, false)
			if i < 0 {
				e.fail("substring not found")
			}
			return i
		},
		"rindex": func(e *eval, s string, pos []Value, kw *Dict) Value {
			i := e.find("rindex", s, pos, kw, true)
			if i < 0 {
				e.fail("substring not found")
			}
			return i
		},
		"count": func(e *eval, s string, pos []Value, kw *Dict) Value {
			a := e.params("count", pos, kw, "sub", "start", "end")
			r := []rune(s)
			i, j := e.bounds(len(r), a[1], a[2])
			return strings.Count(string(r[i:j]), e.text("count", a[0]))
		},
		"join": func(e *eval, s string, pos []Value, kw *Dict) Value {
			a := e.params("join", pos, kw, "iterable")
			var parts []string
			for _, x := range e.iterate(e.need("join", a[0])) {
				parts = append(parts, e.text("join", x))
			}
			return e.join(parts, s)
		},
		"partition":  func(e *eval, s string, pos []Value, kw *Dict) Value { return e.partition(s, pos, kw, false) },
		"rpartition": func(e *eval, s string, pos []Value, kw *Dict) Value { return e.partition(s, pos, kw, true) },
		"ljust":      justify("ljust", func(int, int) int { return 0 }),
		"rjust":      justify("rjust", func(space, _ int) int { return space }),
		"center":     justify("center", centered),
		"zfill": func(e *eval, s string, pos []Value, kw *Dict) Value {
			width := e.integer("zfill", e.params("zfill", pos, kw, "width")[0], 0)
			sign := ""
			if strings.HasPrefix(s, "-") || strings.HasPrefix(s, "+") {
				sign, s = s[:1], s[1:]
			}
			return sign + e.pad(s, width-len(sign), "0", func(space int) int { return space })
		},
		"format": func(e *eval, s string, pos []Value, kw *Dict) Value { return e.format(s, pos, kw) },
	}
}

// superDigit: digits that are no decimals, such as ² and ①.
func superDigit(r rune) bool {
	return r == '²' || r == '³' || r == '¹' || r == 0x2070 || r >= 0x2074 && r <= 0x2079 || r >= 0x2080 && r <= 0x2089 || r >= 0x2460 && r <= 0x2468
}

// longUpper are the letters whose upper case is several.
var longUpper = strings.NewReplacer("ß", "SS", "ŉ", "ʼN", "ǰ", "J̌", "ﬀ", "FF", "ﬁ", "FI", "ﬂ", "FL", "ﬃ", "FFI", "ﬄ", "FFL", "ﬅ", "ST", "ﬆ", "ST")

func upperCase(s string) string { return longUpper.Replace(strings.ToUpper(s)) }

// lowerCase is str.lower: a sigma that ends a word is written otherwise.
func lowerCase(s string) string {
	out := strings.ToLower(strings.ReplaceAll(s, "İ", "i̇"))
	if !strings.Contains(s, "Σ") {
		return out
	}
	r := []rune(out)
	src := []rune(strings.ReplaceAll(s, "İ", "i̇"))
	for i := range src {
		if src[i] == 'Σ' && i > 0 && unicode.IsLetter(src[i-1]) && (i+1 == len(src) || !unicode.IsLetter(src[i+1])) {
			r[i] = 'ς'
		}
	}
	return string(r)
}

// centered is how much of the space str.center puts on the left.
func centered(space, width int) int { return space/2 + space&width&1 }

func capitalize(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return ""
	}
	return string(unicode.ToTitle(r)) + lowerCase(s[n:])
}

// pyTitle is str.title: the first letter of each run of letters is upper case.
func pyTitle(s string) string {
	prev := false
	return strings.Map(func(r rune) rune {
		letter := unicode.IsLetter(r)
		defer func() { prev = letter }()
		if letter && !prev {
			return unicode.ToTitle(r)
		}
		return unicode.ToLower(r)
	}, s)
}

func (e *eval) join(parts []string, by string) string {
	n := 0
	for _, p := range parts {
		n += len(p) + len(by)
	}
	e.size(n)
	return strings.Join(parts, by)
}

func (e *eval) replace(s, old, by string, count int) string {
	if n := strings.Count(s, old); len(by) > 0 && n > 0 {
		if len(by) > (e.opt.MaxOutput-len(s))/n {
			e.size(-1)
		}
	}
	return strings.Replace(s, old, by, count)
}

func (e *eval) partition(s string, pos []Value, kw *Dict, last bool) Value {
	sep := e.text("partition", e.params("partition", pos, kw, "sep")[0])
	if sep == "" {
		e.fail("empty separator")
	}
	i := strings.Index(s, sep)
	if last {
		i = strings.LastIndex(s, sep)
	}
	switch {
	case i >= 0:
		return tuple(s[:i], sep, s[i+len(sep):])
	case last:
		return tuple("", "", s)
	}
	return tuple(s, "", "")
}

// split is str.split and, from the right, str.rsplit.
func (e *eval) split(fn, s string, pos []Value, kw *Dict, right bool) Value {
	a := e.params(fn, pos, kw, "sep", "maxsplit")
	limit := e.integer(fn, a[1], -1)
	var parts []string
	if sep := or(a[0], nil); sep != nil {
		by := e.text(fn, sep)
		if by == "" {
			e.fail("empty separator")
		}
		for limit != 0 {
			i := strings.Index(s, by)
			if right {
				i = strings.LastIndex(s, by)
			}
			if i < 0 {
				break
			}
			if right {
				parts = append(parts, s[i+len(by):])
				s = s[:i]
			} else {
				parts = append(parts, s[:i])
				s = s[i+len(by):]
			}
			limit--
		}
		parts = append(parts, s)
	} else {
		parts = splitSpace(s, limit, right)
	}
	if right {
		slices.Reverse(parts)
	}
	l := NewList()
	for _, p := range parts {
		l.Items = append(l.Items, p)
	}
	return l
}

// splitSpace splits at runs of white space; from the right, the parts come last first.
func splitSpace(s string, limit int, right bool) (parts []string) {
	for {
		if right {
			s = strings.TrimRightFunc(s, pySpace)
		} else {
			s = strings.TrimLeftFunc(s, pySpace)
		}
		if s == "" {
			return parts
		}
		i := strings.IndexFunc(s, pySpace)
		if right {
			if i = strings.LastIndexFunc(s, pySpace); i >= 0 {
				_, n := utf8.DecodeRuneInString(s[i:])
				if limit != 0 {
					parts = append(parts, s[i+n:])
					s = s[:i]
					limit--
					continue
				}
			}
			return append(parts, strings.TrimLeftFunc(s, func(r rune) bool { return limit != 0 && pySpace(r) }))
		}
		if i < 0 || limit == 0 {
			return append(parts, s)
		}
		parts = append(parts, s[:i])
		s = s[i:]
		limit--
	}
}

// splitLines splits at Python's line ends.
func splitLines(s string, keep bool) Value {
	l := NewList()
	for s != "" {
		i := strings.IndexAny(s, "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029")
		if i < 0 {
			l.Items = append(l.Items, s)
			break
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		if strings.HasPrefix(s[i:], "\r\n") {
			n = 2
		}
		line := s[:i]
		if keep {
			line = s[:i+n]
		}
		l.Items = append(l.Items, line)
		s = s[i+n:]
	}
	return l
}
