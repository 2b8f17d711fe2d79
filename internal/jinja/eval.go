package jinja

import (
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
