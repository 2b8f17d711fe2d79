package jinja

import (
	"slices"
	"strings"
)

// sortKey lets strings that differ in case only be equal.
func sortKey(v Value, caseSensitive bool) Value {
	if s, ok := v.(string); ok && !caseSensitive {
		return lowerCase(s)
	}
	return v
}

// order sorts list, stable, by keys.
func (e *eval) order(list []Value, key func(Value) Value, down bool) {
	keys := make([]Value, len(list))
	at := make([]int, len(list))
	for i, v := range list {
		keys[i], at[i] = key(v), i
	}
	slices.SortStableFunc(at, func(i, j int) int {
		c := e.cmp(keys[i], keys[j])
		if down {
			return -c
		}
		return c
	})
	sorted := make([]Value, len(list))
	for i, j := range at {
		sorted[i] = list[j]
	}
	copy(list, sorted)
}

func (e *eval) cmp(a, b Value) int {
	e.step()
	e.defined(a, b)
	c, ok := compareValues(a, b)
	if !ok {
		e.fail("'<' not supported between instances of %q and %q", typeName(a), typeName(b))
	}
	return c
}

func dictSort(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("dictsort", pos, kw, "case_sensitive", "by", "reverse")
	d, ok := on.(*Dict)
	if !ok {
		e.fail("dictsort needs a mapping, not %s", typeName(on))
	}
	at := map[Value]int{"key": 0, "value": 1}
	by := or(a[1], "key")
	i, ok := at[by]
	if !ok {
		e.fail("you can only sort by either key or value")
	}
	list := slices.Clone(dictMethods["items"](e, d, nil, nil).(*List).Items)
	e.order(list, func(v Value) Value { return sortKey(v.(*List).Items[i], flag(a[0], false)) }, flag(a[2], false))
	return NewList(list...)
}

func sortFilter(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("sort", pos, kw, "reverse", "case_sensitive", "attribute")
	list := slices.Clone(e.iterate(on))
	cs := flag(a[1], false)
	key := func(v Value) Value { return sortKey(v, cs) }
	if attr := or(a[2], nil); attr != nil {
		var gets []func(Value) Value
		if s, ok := attr.(string); ok {
			for p := range strings.SplitSeq(s, ",") {
				gets = append(gets, e.path(p))
			}
		} else {
			gets = append(gets, e.path(attr))
		}
		key = func(v Value) Value {
			k := NewList()
			for _, g := range gets {
				k.Items = append(k.Items, sortKey(g(v), cs))
			}
			return k
		}
	}
	e.order(list, key, flag(a[0], false))
	return NewList(list...)
}

func unique(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("unique", pos, kw, "case_sensitive", "attribute")
	get := func(v Value) Value { return v }
	if attr := or(a[1], nil); attr != nil {
		get = e.path(attr)
	}
	var seen Dict
	var out []Value
	for _, v := range e.iterate(on) {
		k := sortKey(get(v), flag(a[0], false))
		if _, ok := seen.Get(k); ok {
			continue
		}
		if !seen.Set(k, true) {
			e.fail("unhashable type: %q", typeName(k))
		}
		out = append(out, v)
	}
	return generator("generator", out)
}

func (e *eval) extreme(fn string, on Value, pos []Value, kw *Dict, sign int) Value {
	a := e.params(fn, pos, kw, "case_sensitive", "attribute")
	get := func(v Value) Value { return v }
	if attr := or(a[1], nil); attr != nil {
		get = e.path(attr)
	}
	list := e.iterate(on)
	if len(list) == 0 {
		return undefined("no aggregated item, sequence was empty")
	}
	best := list[0]
	for _, v := range list[1:] {
		if e.cmp(sortKey(get(v), flag(a[0], false)), sortKey(get(best), flag(a[0], false)))*sign > 0 {
			best = v
		}
	}
	return best
}

func sum(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("sum", pos, kw, "attribute", "start")
	total := or(a[1], 0)
	get := func(v Value) Value { return v }
	if attr := or(a[0], nil); attr != nil {
		get = e.path(attr)
	}
	for _, v := range e.iterate(on) {
		total = e.arith("+", total, get(v))
	}
	return total
}

// mapFilter applies a filter, or looks up an attribute.
func mapFilter(e *eval, on Value, pos []Value, kw *Dict) Value {
	var out []Value
	if attr, ok := kw.Get("attribute"); ok && len(pos) == 0 {
		def, hasDef := kw.Get("default")
		get := e.path(attr)
		for _, v := range e.iterate(on) {
			e.step()
			v = get(v)
			if _, u := v.(*Undefined); u && hasDef {
				v = def
			}
			out = append(out, v)
		}
		return generator("generator", out)
	}
	if len(pos) == 0 {
		e.fail("map requires a filter argument")
	}
	fn, ok := filters[e.text("map", pos[0])]
	if !ok {
		e.fail("no filter named %q", pos[0])
	}
	for _, v := range e.iterate(on) {
		e.step()
		out = append(out, fn(e, v, pos[1:], kw))
	}
	return generator("generator", out)
}

// selected keeps the items that pass a test, or fail it.
func (e *eval) selected(fn string, on Value, pos []Value, want bool) Value {
	return e.choose(fn, on, pos, want, func(v Value) Value { return v })
}

// selectedAttr is selected by an attribute of the items.
func (e *eval) selectedAttr(fn string, on Value, pos []Value, want bool) Value {
	if len(pos) == 0 {
		e.fail("missing parameter for attribute name")
	}
	return e.choose(fn, on, pos[1:], want, e.path(pos[0]))
}

func (e *eval) choose(fn string, on Value, pos []Value, want bool, get func(Value) Value) Value {
	pass := func(v Value) bool { return truth(v) }
	if len(pos) > 0 {
		t, ok := tests[e.text(fn, pos[0])]
		if !ok {
			e.fail("no test named %q", pos[0])
		}
		pass = func(v Value) bool { return t(e, v, pos[1:]) }
	}
	var out []Value
	for _, v := range e.iterate(on) {
		e.step()
		if pass(get(v)) == want {
			out = append(out, v)
		}
	}
	return generator("generator", out)
}

func groupBy(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("groupby", pos, kw, "attribute", "default", "case_sensitive")
	get := e.path(e.need("groupby", a[0]))
	def := a[1]
	key := func(v Value) Value {
		k := get(v)
		if _, u := k.(*Undefined); u && def != absent {
			k = def
		}
		return k
	}
	cs := flag(a[2], false)
	list := slices.Clone(e.iterate(on))
	e.order(list, func(v Value) Value { return sortKey(key(v), cs) }, false)
	out := NewList()
	for i := 0; i < len(list); {
		first := key(list[i])
		group := NewList()
		for ; i < len(list) && equal(sortKey(key(list[i]), cs), sortKey(first, cs)); i++ {
			group.Items = append(group.Items, list[i])
		}
		named := tuple(first, group)
		named.fields = []string{"grouper", "list"}
		out.Items = append(out.Items, named)
	}
	return out
}

func batch(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("batch", pos, kw, "linecount", "fill_with")
	n := e.integer("batch", e.need("batch", a[0]), 1)
	if n < 1 {
		e.fail("batch size %d", n)
	}
	var out []Value
	for part := range slices.Chunk(e.iterate(on), n) {
		row := NewList(slices.Clone(part)...)
		if fill := or(a[1], nil); fill != nil {
			e.size(n)
			for len(row.Items) < n {
				row.Items = append(row.Items, fill)
			}
		}
		out = append(out, row)
	}
	return generator("generator", out)
}

func sliceFilter(e *eval, on Value, pos []Value, kw *Dict) Value {
	a := e.params("slice", pos, kw, "slices", "fill_with")
	n := e.integer("slice", e.need("slice", a[0]), 1)
	if n < 1 || n > maxRange {
		e.fail("%d slices", n)
	}
	list := e.iterate(on)
	per, extra := len(list)/n, len(list)%n
	var out []Value
	at := 0
	for i := range n {
		size := per
		if i < extra {
			size++
		}
		part := NewList(slices.Clone(list[at : at+size])...)
		at += size
		if fill := or(a[1], nil); fill != nil && i >= extra {
			part.Items = append(part.Items, fill)
		}
		out = append(out, part)
	}
	return generator("generator", out)
}
