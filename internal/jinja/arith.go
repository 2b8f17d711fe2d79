package jinja

import (
	"math"
	"strings"
)

func (e *eval) unary(x *unary, s *scope) Value {
	v := e.expr(x.x, s)
	if x.op == "not" {
		return !truth(v)
	}
	e.defined(v)
	i, f, isInt, ok := number(v)
	switch {
	case !ok:
		e.fail("bad operand type for unary %s: %q", x.op, typeName(v))
	case isInt && x.op == "-":
		return -i
	case isInt:
		return i
	case x.op == "-":
		return -f
	}
	return f
}

func (e *eval) compare(op string, l, r Value) bool {
	switch op {
	case "==":
		return equal(l, r)
	case "!=":
		return !equal(l, r)
	case "in":
		return e.contains(r, l)
	case "not in":
		return !e.contains(r, l)
	}
	e.defined(l, r)
	c, ok := compareValues(l, r)
	if !ok {
		e.fail("%q not supported between instances of %q and %q", op, typeName(l), typeName(r))
	}
	if c == 2 { // not a number
		if _, isList := l.(*List); !isList {
			return false
		}
	}
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}

// contains is x in where.
func (e *eval) contains(where, x Value) bool {
	switch w := where.(type) {
	case string:
		s, ok := x.(string)
		if !ok {
			e.defined(x)
			e.fail("'in <string>' requires string as left operand, not %s", typeName(x))
		}
		e.work(len(w) / 256)
		return strings.Contains(w, s)
	case *List:
		e.work(len(w.Items))
		for _, y := range w.take() {
			if equal(x, y) {
				return true
			}
		}
		return false
	case *Dict:
		if _, ok := hash(x); !ok {
			e.fail("unhashable type: %q", typeName(x))
		}
		_, ok := w.Get(x)
		return ok
	case *Undefined:
		return false
	}
	e.fail("argument of type %q is not iterable", typeName(where))
	return false
}

// arith is a binary operator on numbers, strings and sequences.
func (e *eval) arith(op string, l, r Value) Value {
	e.defined(l, r)
	a, x, ai, aok := number(l)
	b, y, bi, bok := number(r)
	if aok && bok {
		if ai && bi {
			return e.intArith(op, a, b)
		}
		return e.floatArith(op, x, y)
	}
	switch {
	case op == "+":
		switch l := l.(type) {
		case string:
			if r, ok := r.(string); ok {
				e.size(len(l) + len(r))
				e.work((len(l) + len(r)) / 256)
				return l + r
			}
		case *List:
			if r, ok := r.(*List); ok && l.kind == r.kind && l.kind <= isTuple {
				e.size(16 * (len(l.Items) + len(r.Items)))
				e.work((len(l.Items) + len(r.Items)) / 16)
				items := append(append(make([]Value, 0, len(l.Items)+len(r.Items)), l.Items...), r.Items...)
				return &List{Items: items, kind: l.kind}
			}
		}
	case op == "*" && aok && ai:
		if v, ok := e.repeat(r, a); ok {
			return v
		}
	case op == "*" && bok && bi:
		if v, ok := e.repeat(l, b); ok {
			return v
		}
	case op == "%":
		if f, ok := l.(string); ok {
			return e.percent(f, r)
		}
	}
	e.fail("unsupported operand types for %s: %q and %q", op, typeName(l), typeName(r))
	return nil
}

// repeat is v * n for a string or a sequence.
func (e *eval) repeat(v Value, n int) (Value, bool) {
	n = max(n, 0)
	check := func(size int) {
		if size > 0 && n > e.opt.MaxOutput/size {
			e.size(math.MaxInt)
		}
	}
	switch v := v.(type) {
	case string:
		check(len(v))
		return strings.Repeat(v, n), true
	case *List:
		if v.kind > isTuple {
			return nil, false
		}
		check(16 * len(v.Items))
		out := &List{kind: v.kind}
		if len(v.Items) > 0 {
			for range n {
				out.Items = append(out.Items, v.Items...)
			}
		}
		return out, true
	}
	return nil, false
}

func (e *eval) intArith(op string, a, b int) Value {
	overflow := func(bad bool) {
		if bad {
			e.fail("integer too large")
		}
	}
	switch op {
	case "+":
		c := a + b
		overflow(a > 0 && b > 0 && c < 0 || a < 0 && b < 0 && c >= 0)
		return c
	case "-":
		c := a - b
		overflow(a >= 0 && b < 0 && c < 0 || a < 0 && b > 0 && c >= 0)
		return c
	case "*":
		c := a * b
		overflow(a != 0 && (c/a != b || a == -1 && b == math.MinInt))
		return c
	case "/", "//", "%":
		if b == 0 {
			e.fail("division by zero")
		}
		switch op {
		case "/":
			return float64(a) / float64(b)
		case "//":
			overflow(a == math.MinInt && b == -1)
			q := a / b
			if a%b != 0 && (a < 0) != (b < 0) {
				q--
			}
			return q
		}
		if b == -1 {
			return 0
		}
		m := a % b
		if m != 0 && (m < 0) != (b < 0) {
			m += b
		}
		return m
	case "**":
		if b < 0 {
			return e.floatArith(op, float64(a), float64(b))
		}
		c := 1
		for range b {
			if a == 0 || a == 1 || a == -1 {
				break
			}
			next := c * a
			overflow(next/a != c)
			c = next
		}
		switch {
		case a == 0 && b > 0:
			return 0
		case a == -1 && b%2 == 1:
			return -1
		}
		return c
	}
	e.fail("unknown operator %s", op)
	return nil
}

func (e *eval) floatArith(op string, a, b float64) Value {
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "**":
		if a == 0 && b < 0 {
			e.fail("0.0 cannot be raised to a negative power")
		}
		return math.Pow(a, b)
	}
	if b == 0 {
		e.fail("float division by zero")
	}
	if op == "/" {
		return a / b
	}
	m := math.Mod(a, b)
	if m != 0 && (m < 0) != (b < 0) {
		m += b
	}
	if op == "%" {
		return m
	}
	return math.Floor((a - m) / b)
}
