package jinja

import (
	"strings"
	"unicode"
)

// testFunc is a test, as in "x is odd".
type testFunc func(e *eval, on Value, pos []Value) bool

// arg is the argument of a test.
func (e *eval) arg(pos []Value) Value {
	if len(pos) != 1 {
		e.fail("the test takes one argument, got %d", len(pos))
	}
	return pos[0]
}

func comparison(op string) testFunc {
	return func(e *eval, on Value, pos []Value) bool { return e.compare(op, on, e.arg(pos)) }
}

func remainder(e *eval, on, by Value) Value { return e.arith("%", on, by) }

var tests map[string]testFunc

func init() {
	kindOf := func(f func(Value) bool) testFunc {
		return func(_ *eval, on Value, _ []Value) bool { return f(on) }
	}
	tests = map[string]testFunc{
		"defined":   kindOf(func(v Value) bool { _, u := v.(*Undefined); return !u }),
		"undefined": kindOf(func(v Value) bool { _, u := v.(*Undefined); return u }),
		"none":      kindOf(func(v Value) bool { return v == nil }),
		"true":      kindOf(func(v Value) bool { return v == true }),
		"false":     kindOf(func(v Value) bool { return v == false }),
		"boolean":   kindOf(func(v Value) bool { _, ok := v.(bool); return ok }),
		"string":    kindOf(func(v Value) bool { _, ok := v.(string); return ok }),
		"mapping":   kindOf(func(v Value) bool { _, ok := v.(*Dict); return ok }),
		"number": kindOf(func(v Value) bool {
			_, _, _, ok := number(v)
			_, big := v.(bigInt)
			return ok || big
		}),
		"integer": kindOf(func(v Value) bool {
			switch v.(type) {
			case int, bigInt:
				return true
			}
			return false
		}),
		"float": kindOf(func(v Value) bool { _, ok := v.(float64); return ok }),
		"callable": kindOf(func(v Value) bool {
			switch v.(type) {
			case *function, *macro, *loopVar, *Undefined:
				return true
			}
			return false
		}),
		"sequence": kindOf(func(v Value) bool {
			switch v := v.(type) {
			case string, *Dict, *Undefined:
				return true
			case *List:
				return v.kind <= isRange
			}
			return false
		}),
		"iterable": kindOf(func(v Value) bool {
			switch v.(type) {
			case string, *Dict, *List, *Undefined, *loopVar:
				return true
			}
			return false
		}),
		"lower":   kindOf(func(v Value) bool { return isCase(str(v), unicode.IsLower, unicode.IsUpper) }),
		"upper":   kindOf(func(v Value) bool { return isCase(str(v), unicode.IsUpper, unicode.IsLower) }),
		"escaped": kindOf(func(Value) bool { return false }),
		"filter":  kindOf(func(v Value) bool { s, ok := v.(string); return ok && filters[s] != nil }),
		"test":    kindOf(func(v Value) bool { s, ok := v.(string); return ok && tests[s] != nil }),
		"odd":     func(e *eval, on Value, _ []Value) bool { return equal(remainder(e, on, 2), 1) },
		"even":    func(e *eval, on Value, _ []Value) bool { return equal(remainder(e, on, 2), 0) },
		"divisibleby": func(e *eval, on Value, pos []Value) bool {
			return equal(remainder(e, on, e.arg(pos)), 0)
		},
		"in": func(e *eval, on Value, pos []Value) bool { return e.contains(e.arg(pos), on) },
		"sameas": func(e *eval, on Value, pos []Value) bool {
			other := e.arg(pos)
			switch on.(type) {
			case string, int, float64, bool, nil:
				return typeName(on) == typeName(other) && equal(on, other)
			}
			return on == other
		},
	}
	for names, op := range map[string]string{"eq equalto ==": "==", "ne !=": "!=", "lt lessthan <": "<", "le <=": "<=", "gt greaterthan >": ">", "ge >=": ">="} {
		for n := range strings.FieldsSeq(names) {
			tests[n] = comparison(op)
		}
	}
}

func isCase(s string, is, other func(rune) bool) bool {
	return strings.IndexFunc(s, is) >= 0 && strings.IndexFunc(s, other) < 0
}
