package jinja

import "strings"

// absent is the value of an argument that was not given.
type absentArg struct{}

var absent Value = absentArg{}

// params sorts the arguments of a call by the names of its parameters.
func (e *eval) params(fn string, pos []Value, kw *Dict, names ...string) []Value {
	if len(pos) > len(names) {
		e.fail("%s() takes at most %d arguments (%d given)", fn, len(names), len(pos))
	}
	out := make([]Value, len(names))
	for i := range out {
		out[i] = absent
		if i < len(pos) {
			out[i] = pos[i]
		}
	}
	for i, k := range kw.keys {
		found := false
		for j, n := range names {
			if n == k {
				if j < len(pos) {
					e.fail("%s() got multiple values for argument %q", fn, n)
				}
				out[j], found = kw.values[i], true
			}
		}
		if !found {
			e.fail("%s() got an unexpected keyword argument %s", fn, repr(k))
		}
	}
	return out
}

func (e *eval) need(fn string, v Value) Value {
	if v == absent {
		e.fail("%s() misses an argument", fn)
	}
	e.defined(v)
	return v
}

// text is an argument that must be a string.
func (e *eval) text(fn string, v Value) string {
	s, ok := e.need(fn, v).(string)
	if !ok {
		e.fail("%s() argument must be str, not %s", fn, typeName(v))
	}
	return s
}

// integer is an argument that must be an integer; def if it was not given.
func (e *eval) integer(fn string, v Value, def int) int {
	if v == absent {
		return def
	}
	i, _, isInt, ok := number(e.need(fn, v))
	if !ok || !isInt {
		e.fail("%s() argument must be int, not %s", fn, typeName(v))
	}
	return i
}

// flag is an argument for its truth; def if it was not given.
func flag(v Value, def bool) bool {
	if v == absent {
		return def
	}
	return truth(v)
}

// or is v, or def if it was not given.
func or(v, def Value) Value {
	if v == absent {
		return def
	}
	return v
}

// cutset is an argument of strip: None or absent for white space.
func (e *eval) cutset(fn string, v Value) func(rune) bool {
	if v == absent || v == nil {
		return pySpace
	}
	set := e.text(fn, v)
	return func(r rune) bool { return strings.ContainsRune(set, r) }
}
