package jinja

import (
	"math"
	"slices"
	"strings"
)

// expr evaluates an expression.
func (e *eval) expr(x expr, s *scope) Value {
	e.step()
	switch x := x.(type) {
	case *constant:
		return x.v
	case *name:
		if v, ok := s.lookup(x.id); ok {
			return v
		}
		if f, ok := globals[x.id]; ok {
			return f
		}
		return undefined(quote(x.id) + " is undefined")
	case *getAttr:
		return e.attr(e.expr(x.obj, s), x.name)
	case *getItem:
		return e.subscript(x, s)
	case *listLit:
		l := NewList()
		if x.tuple {
			l.kind = isTuple
		}
		for _, i := range x.items {
			l.Items = append(l.Items, e.expr(i, s))
		}
		return l
	case *dictLit:
		d := &Dict{}
		for i, k := range x.keys {
			key := e.expr(k, s)
			if !d.Set(key, e.expr(x.values[i], s)) {
				e.fail("unhashable type: %q", typeName(key))
			}
		}
		return d
	case *call:
		fn := e.expr(x.fn, s)
		pos, kw := e.args(&x.args, s)
		return e.call(fn, pos, kw)
	case *filter:
		return e.filter(x, e.expr(x.on, s), s)
	case *test:
		f, ok := tests[x.name]
		if !ok {
			e.fail("no test named %q", x.name)
		}
		on := e.expr(x.on, s)
		pos, _ := e.args(&x.args, s)
		return f(e, on, pos)
	case *unary:
		return e.unary(x, s)
	case *binary:
		l := e.expr(x.l, s)
		switch {
		case x.op == "and" && !truth(l), x.op == "or" && truth(l):
			return l
		case x.op == "and" || x.op == "or":
			return e.expr(x.r, s)
		}
		return e.arith(x.op, l, e.expr(x.r, s))
	case *concat:
		parts := make([]string, len(x.parts))
		n := 0
		for i, p := range x.parts {
			parts[i] = str(e.expr(p, s))
			n += len(parts[i])
			e.size(n)
		}
		return strings.Join(parts, "")
	case *compare:
		l := e.expr(x.first, s)
		for i, op := range x.ops {
			r := e.expr(x.rest[i], s)
			if !e.compare(op, l, r) {
				return false
			}
			l = r
		}
		return true
	case *cond:
		switch {
		case truth(e.expr(x.test, s)):
			return e.expr(x.then, s)
		case x.other != nil:
			return e.expr(x.other, s)
		}
		return undefined("the inline if-expression has no else")
	}
	e.fail("unexpected expression %T", x)
	return nil
}

// args evaluates the arguments of a call.
func (e *eval) args(a *args, s *scope) (pos []Value, kw *Dict) {
	kw = &Dict{}
	for _, x := range a.pos {
		pos = append(pos, e.expr(x, s))
	}
	for i, n := range a.names {
		kw.Set(n, e.expr(a.named[i], s))
	}
	if a.star != nil {
		pos = append(pos, e.iterate(e.expr(a.star, s))...)
	}
	if a.starstar != nil {
		d, ok := e.expr(a.starstar, s).(*Dict)
		if !ok {
			e.fail("argument after ** must be a mapping")
		}
		for i, k := range d.keys {
			kw.Set(k, d.values[i])
		}
	}
	return pos, kw
}

func (e *eval) call(fn Value, pos []Value, kw *Dict) Value {
	switch fn := fn.(type) {
	case *function:
		return fn.call(e, pos, kw)
	case *macro:
		return fn.call(e, pos, kw)
	case *loopVar:
		if !fn.st.recursive || len(pos) != 1 {
			e.fail("the loop is not recursive, or is not called with one value")
		}
		var text string
		e.nested(func() {
			text = e.capture(func() { e.loop(fn.st, e.iterate(pos[0]), fn.scope, fn.depth+1) })
		})
		return text
	case *Undefined:
		e.fail("%s", fn.what)
	}
	e.fail("%q object is not callable", typeName(fn))
	return nil
}

func (e *eval) filter(f *filter, on Value, s *scope) Value {
	fn, ok := filters[f.name]
	if !ok {
		e.fail("no filter named %q", f.name)
	}
	pos, kw := e.args(&f.args, s)
	if text, ok := on.(string); ok {
		e.work(len(text) / 256)
	}
	return fn(e, on, pos, kw)
}

// defined fails if v is undefined: nearly all that is done to such a value is an error.
func (e *eval) defined(vs ...Value) {
	for _, v := range vs {
		if u, ok := v.(*Undefined); ok {
			e.fail("%s", u.what)
		}
	}
}

// attr is obj.name: an attribute, or else an item.
func (e *eval) attr(obj Value, name string) Value {
	e.defined(obj)
	if v, ok := e.attribute(obj, name); ok {
		return v
	}
	if d, ok := obj.(*Dict); ok {
		if v, ok := d.Get(name); ok {
			return v
		}
	}
	return undefined(quote(typeName(obj)+" object") + " has no attribute " + quote(name))
}

// attribute gives a method or an attribute as Python has it.
func (e *eval) attribute(obj Value, name string) (Value, bool) {
	switch o := obj.(type) {
	case *namespace:
		return o.attrs.Get(name)
	case *loopVar:
		return o.attr(e, name)
	case *macro:
		return o.attr(name)
	case string:
		if f, ok := stringMethods[name]; ok {
			e.work(len(o) / 256)
			return bind(name, o, f), true
		}
	case *List:
		if i := slices.Index(o.fields, name); i >= 0 {
			return o.Items[i], true
		}
		if f, ok := listMethods[name]; ok && o.kind <= isTuple {
			return bind(name, o, f), true
		}
		if changesList[name] && o.kind == isList {
			return unsafe(name), true
		}
	case *Dict:
		if f, ok := dictMethods[name]; ok {
			return bind(name, o, f), true
		}
		if changesDict[name] {
			return unsafe(name), true
		}
	case *cyclerState:
		return o.attr(name)
	}
	return nil, false
}

func unsafe(name string) *Undefined {
	return undefined("access to attribute " + quote(name) + " is unsafe: a template cannot change what it is given")
}

// method is a method of a value of type T.
type method[T any] func(e *eval, self T, pos []Value, kw *Dict) Value

func bind[T any](name string, self T, f method[T]) *function {
	return &function{name, func(e *eval, pos []Value, kw *Dict) Value { return f(e, self, pos, kw) }}
}

// subscript is obj[key].
func (e *eval) subscript(x *getItem, s *scope) Value {
	obj := e.expr(x.obj, s)
	if sl, ok := x.key.(*slice); ok {
		part := func(x expr) Value {
			if x == nil {
				return nil
			}
			return e.expr(x, s)
		}
		return e.slice(obj, part(sl.from), part(sl.to), part(sl.step))
	}
	if l, ok := x.key.(*listLit); ok {
		for _, k := range l.items {
			if _, ok := k.(*slice); ok || k == nil {
				e.fail("%q indices must be integers or slices", typeName(obj))
			}
		}
	}
	return e.item(obj, e.expr(x.key, s))
}

// item is obj[key] with a key that is no slice: an item, or else an attribute.
func (e *eval) item(obj, key Value) Value {
	e.defined(obj)
	if s, ok := obj.(string); ok {
		e.work(len(s) / 256)
	}
	switch o := obj.(type) {
	case *Dict:
		if v, ok := o.Get(key); ok {
			return v
		}
	case *List:
		if i, _, isInt, ok := number(key); ok && isInt && o.kind <= isRange {
			if i < 0 {
				i += len(o.Items)
			}
			if i >= 0 && i < len(o.Items) {
				return o.Items[i]
			}
		}
	case string:
		if i, _, isInt, ok := number(key); ok && isInt {
			r := []rune(o)
			if i < 0 {
				i += len(r)
			}
			if i >= 0 && i < len(r) {
				return string(r[i])
			}
		}
	}
	if n, ok := key.(string); ok {
		if v, ok := e.attribute(obj, n); ok {
			return v
		}
	}
	return undefined(typeName(obj) + " object has no element " + repr(key))
}

// slice is obj[from:to:step] as Python has it.
func (e *eval) slice(obj, from, to, step Value) Value {
	e.defined(obj, from, to, step)
	index := func(v Value, def int) int {
		if v == nil {
			return def
		}
		i, _, isInt, ok := number(v)
		if !ok || !isInt {
			e.fail("slice indices must be integers or None")
		}
		return i
	}
	var n int
	var runes []rune
	var list *List
	switch o := obj.(type) {
	case string:
		runes = []rune(o)
		n = len(runes)
	case *List:
		if o.kind > isRange {
			e.fail("%q object is not subscriptable", typeName(o))
		}
		list, n = o, len(o.Items)
	default:
		e.fail("%q object is not subscriptable", typeName(obj))
	}
	e.work(n / 64)
	by := index(step, 1)
	if by == 0 {
		e.fail("slice step cannot be zero")
	}
	low, high := 0, n
	if by < 0 {
		low, high = -1, n-1
	}
	clamp := func(v Value, def int) int {
		i := index(v, def)
		if v == nil {
			return def
		}
		if i < 0 {
			i += n
		}
		return min(max(i, low), high)
	}
	first, last := low, high
	if by < 0 {
		first, last = high, low
	}
	i, end := clamp(from, first), clamp(to, last)
	var at []int
	for ; by > 0 && i < end || by < 0 && i > end; i += by {
		at = append(at, i)
		if by > n || by < -n {
			break
		}
	}
	if list == nil {
		out := make([]rune, len(at))
		for k, i := range at {
			out[k] = runes[i]
		}
		return string(out)
	}
	out := &List{Items: make([]Value, len(at)), kind: list.kind}
	for k, i := range at {
		out.Items[k] = list.Items[i]
	}
	return out
}

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
