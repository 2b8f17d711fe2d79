package jinja

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Value is a value that a template works with: nil (None), bool, int, float64,
// string, *[List], *[Dict], and what only templates make: undefined values,
// functions, macros, namespaces, loops.
type Value = any

// listKind is which of Python's sequences a List stands for.
type listKind uint8

const (
	isList listKind = iota
	isTuple
	isRange
	isView      // of a dict: items(), keys(), values()
	isGenerator // what map, select and the like give: it can be gone through once
)

// List is a list or another of Python's sequences.
type List struct {
	Items  []Value
	kind   listKind
	view   string   // name of the view or generator, for printing
	fields []string // names of the items of a named tuple
}

// NewList returns a list of items, which it takes over.
func NewList(items ...Value) *List { return &List{Items: items} }

func tuple(items ...Value) *List { return &List{Items: items, kind: isTuple} }

func generator(name string, items []Value) *List {
	return &List{Items: items, kind: isGenerator, view: name}
}

// take gives the items to go through; a generator has none left afterwards.
func (l *List) take() []Value {
	items := l.Items
	if l.kind == isGenerator {
		l.Items = nil
	}
	return items
}

// Dict is a dict: keys in the order in which they were put in. The zero value is
// empty and ready to use.
type Dict struct {
	keys, values []Value
	index        map[any]int
}

// tupleKey is the key of a tuple in Dict.index; other keys stand for themselves,
// numbers that are equal as one.
type tupleKey string

// hash gives the key of v in an index; ok is false if v cannot be a key.
func hash(v Value) (key any, ok bool) { return hashAt(v, 0) }

func hashAt(v Value, depth int) (key any, ok bool) {
	shallow(depth)
	switch v := v.(type) {
	case nil, string, int:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int(v), true
		}
		return v, true
	case *List:
		if v.kind != isTuple {
			return nil, false
		}
		var b strings.Builder
		for _, x := range v.Items {
			k, ok := hashAt(x, depth+1)
			if !ok {
				return nil, false
			}
			switch k := k.(type) {
			case tupleKey:
				b.WriteString("t" + strconv.Quote(string(k)))
			case string:
				b.WriteString("s" + strconv.Quote(k))
			default:
				b.WriteString(repr(k))
			}
			b.WriteByte(',')
			printable(b.Len())
		}
		return tupleKey(b.String()), true
	case *Undefined:
		return tupleKey("undefined"), true
	}
	return v, true // functions and the like, by identity
}

// Get returns the value of key; ok is false if there is none.
func (d *Dict) Get(key Value) (v Value, ok bool) {
	k, hashable := hash(key)
	if !hashable {
		return nil, false
	}
	i, ok := d.index[k]
	if !ok {
		return nil, false
	}
	return d.values[i], true
}

// Set replaces the value of key in place, or appends the key. A key that Python
// cannot hash is left out, and false returned.
func (d *Dict) Set(key, v Value) bool {
	k, ok := hash(key)
	if !ok {
		return false
	}
	if i, ok := d.index[k]; ok {
		d.values[i] = v
		return true
	}
	if d.index == nil {
		d.index = map[any]int{}
	}
	d.index[k] = len(d.keys)
	d.keys = append(d.keys, key)
	d.values = append(d.values, v)
	return true
}

// Len is the number of keys.
func (d *Dict) Len() int { return len(d.keys) }

// Keys lists the keys in order. The slice must not be changed.
func (d *Dict) Keys() []Value { return d.keys }

// Clone returns a copy that can be changed; the values are shared.
func (d *Dict) Clone() *Dict {
	c := &Dict{}
	for i, k := range d.keys {
		c.Set(k, d.values[i])
	}
	return c
}

func (d *Dict) pair(i int) *List { return tuple(d.keys[i], d.values[i]) }

// Undefined is what a name or an attribute gives that does not exist. It prints as
// nothing, is false and empty; anything else done to it is an error.
type Undefined struct{ what string }

func undefined(what string) *Undefined { return &Undefined{what} }

// namespace is what namespace() makes.
type namespace struct{ attrs Dict }

// function is something that can be called. kw is never nil.
type function struct {
	name string
	call func(e *eval, pos []Value, kw *Dict) Value
}

// typeName is Python's name of v's type.
func typeName(v Value) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int, bigInt:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case *Dict:
		return "dict"
	case *List:
		switch v.kind {
		case isTuple:
			return "tuple"
		case isRange:
			return "range"
		case isView, isGenerator:
			return v.view
		}
		return "list"
	case *Undefined:
		return "Undefined"
	case *namespace:
		return "Namespace"
	case *macro:
		return "Macro"
	case *loopVar:
		return "LoopContext"
	}
	return "function"
}

// truth is Python's bool(v).
func truth(v Value) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case *List:
		return v.kind == isGenerator || len(v.Items) > 0
	case *Dict:
		return v.Len() > 0
	case *Undefined:
		return false
	}
	return true
}

// number gives v as a number if it is one: as an int, or as a float.
func number(v Value) (i int, f float64, isInt, ok bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, 1, true, true
		}
		return 0, 0, true, true
	case int:
		return v, float64(v), true, true
	case float64:
		return 0, v, false, true
	}
	return 0, 0, false, false
}

// equal is Python's a == b.
func equal(a, b Value) bool {
	budget := maxEqual
	return equalAt(a, b, 0, &budget)
}

func equalAt(a, b Value, depth int, budget *int) bool {
	shallow(depth)
	if *budget--; *budget < 0 {
		panic(&Error{Msg: "a comparison looks at too many values"})
	}
	if i, f, ai, ok := number(a); ok {
		j, g, bi, ok := number(b)
		return ok && (ai && bi && i == j || !(ai && bi) && f == g)
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case string:
		b, ok := b.(string)
		return ok && a == b
	case bigInt:
		b, ok := b.(bigInt)
		return ok && a.String() == b.String()
	case *Undefined:
		_, ok := b.(*Undefined)
		return ok
	case *List:
		b, ok := b.(*List)
		if ok && a == b {
			return true
		}
		if !ok || a.kind != b.kind || a.kind == isGenerator || len(a.Items) != len(b.Items) {
			return false
		}
		for i := range a.Items {
			if !equalAt(a.Items[i], b.Items[i], depth+1, budget) {
				return false
			}
		}
		return true
	case *Dict:
		b, ok := b.(*Dict)
		if ok && a == b {
			return true
		}
		if !ok || a.Len() != b.Len() {
			return false
		}
		for i, k := range a.keys {
			v, ok := b.Get(k)
			if !ok || !equalAt(a.values[i], v, depth+1, budget) {
				return false
			}
		}
		return true
	}
	return a == b
}

// compareValues orders numbers, strings and sequences; ok is false for anything else.
func compareValues(a, b Value) (c int, ok bool) {
	if i, f, ai, isNum := number(a); isNum {
		j, g, bi, isNum := number(b)
		switch {
		case !isNum:
			return 0, false
		case ai && bi:
			f, g = 0, 0
			if i < j {
				f = -1
			} else if i > j {
				f = 1
			}
		}
		switch {
		case f < g:
			return -1, true
		case f > g:
			return 1, true
		case f == g:
			return 0, true
		}
		return 2, true // not a number: no order holds
	}
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			return strings.Compare(a, b), true // the order of UTF-8 is that of code points
		}
	case *List:
		b, ok := b.(*List)
		if !ok || a.kind != b.kind || a.kind > isTuple {
			return 0, false
		}
		for i := range min(len(a.Items), len(b.Items)) {
			if !equal(a.Items[i], b.Items[i]) {
				return compareValues(a.Items[i], b.Items[i])
			}
		}
		return len(a.Items) - len(b.Items), true
	}
	return 0, false
}

// runeLen is the length of s in code points.
func runeLen(s string) int { return utf8.RuneCountInString(s) }
