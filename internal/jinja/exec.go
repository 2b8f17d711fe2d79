package jinja

// signal says how a list of statements ended.
type signal uint8

const (
	sNone signal = iota
	sBreak
	sContinue
)

// run executes statements.
func (e *eval) run(body []stmt, s *scope) signal {
	for _, st := range body {
		if sig := e.exec(st, s); sig != sNone {
			return sig
		}
	}
	return sNone
}

func (e *eval) exec(st stmt, s *scope) signal {
	e.step()
	switch st := st.(type) {
	case *data:
		e.write(st.s)
	case *lineSt:
		e.line = st.line
		return e.exec(st.st, s)
	case *output:
		e.write(str(e.expr(st.x, s)))
	case *ifSt:
		for i, t := range st.tests {
			if truth(e.expr(t, s)) {
				return e.run(st.bodies[i], s)
			}
		}
		return e.run(st.orElse, s)
	case *forSt:
		items := e.iterate(e.expr(st.iter, s))
		e.loop(st, items, s, 0)
	case *setSt:
		e.assign(st.target, e.expr(st.value, s), s)
	case *setBlock:
		text := Value(e.capture(func() { e.run(st.body, s.child()) }))
		for _, f := range st.filters {
			text = e.filter(f, text, s)
		}
		e.assign(st.target, text, s)
	case *macroSt:
		s.vars[st.name] = &macro{st, s}
	case *callBlock:
		e.callWith(st, s)
	case *filterBlock:
		text := Value(e.capture(func() { e.run(st.body, s.child()) }))
		for _, f := range st.filters {
			text = e.filter(f, text, s)
		}
		e.write(str(text))
	case *withSt:
		inner := s.child()
		for i, n := range st.names {
			e.assign(n, e.expr(st.values[i], s), inner)
		}
		return e.run(st.body, inner)
	case *scopeBlock:
		e.run(st.body, e.root.child())
	case *generation:
		text := e.capture(func() { e.run(st.body, s.child()) })
		// As in transformers, a block inside a macro counts from where the output is.
		start := e.main.Len()
		e.marks = append(e.marks, [2]int{start, start + len(text)})
		e.write(text)
	case *breakSt:
		return sBreak
	case *continueSt:
		return sContinue
	}
	return sNone
}

// assign gives v to a name, to several, or to an attribute of a namespace.
func (e *eval) assign(target expr, v Value, s *scope) {
	switch t := target.(type) {
	case *name:
		s.vars[t.id] = v
	case *listLit:
		items := e.iterate(v)
		if len(items) != len(t.items) {
			e.fail("%d values to unpack into %d names", len(items), len(t.items))
		}
		for i, x := range t.items {
			e.assign(x, items[i], s)
		}
	case *getAttr:
		ns, ok := e.expr(t.obj, s).(*namespace)
		if !ok {
			e.fail("cannot assign attribute on non-namespace object")
		}
		if t.name[0] == '_' {
			e.fail("cannot assign attribute %q of a namespace", t.name)
		}
		ns.attrs.Set(t.name, v)
	}
}

// iterate gives what a loop goes through.
func (e *eval) iterate(v Value) []Value {
	switch v := v.(type) {
	case *List:
		e.work(len(v.Items) / 16)
		return v.take()
	case *Dict:
		return v.keys
	case string:
		e.work(len(v) / 16)
		e.size(16 * len(v))
		items := make([]Value, 0, len(v))
		for _, r := range v {
			items = append(items, string(r))
		}
		return items
	case *Undefined:
		return nil
	}
	e.fail("%q object is not iterable", typeName(v))
	return nil
}

// loopVar is the variable loop.
type loopVar struct {
	st      *forSt
	scope   *scope
	items   []Value
	i       int
	depth   int
	changed []Value // what changed() saw last; nil: nothing yet
}

func (e *eval) loop(st *forSt, items []Value, s *scope, depth int) {
	if st.test != nil {
		var kept []Value
		for _, x := range items {
			inner := s.child()
			e.step()
			e.assign(st.target, x, inner)
			if truth(e.expr(st.test, inner)) {
				kept = append(kept, x)
			}
		}
		items = kept
	}
	l := &loopVar{st: st, scope: s, items: items, depth: depth}
	for i, x := range items {
		e.step()
		l.i = i
		inner := s.child()
		inner.vars["loop"] = l
		e.assign(st.target, x, inner)
		if e.run(st.body, inner) == sBreak {
			break
		}
	}
	if len(items) == 0 {
		e.run(st.orElse, s.child())
	}
}

// attr gives an attribute of the variable loop.
func (l *loopVar) attr(e *eval, name string) (Value, bool) {
	n := len(l.items)
	switch name {
	case "index":
		return l.i + 1, true
	case "index0":
		return l.i, true
	case "revindex":
		return n - l.i, true
	case "revindex0":
		return n - l.i - 1, true
	case "first":
		return l.i == 0, true
	case "last":
		return l.i == n-1, true
	case "length":
		return n, true
	case "depth":
		return l.depth + 1, true
	case "depth0":
		return l.depth, true
	case "previtem":
		if l.i == 0 {
			return undefined("there is no previous item"), true
		}
		return l.items[l.i-1], true
	case "nextitem":
		if l.i == n-1 {
			return undefined("there is no next item"), true
		}
		return l.items[l.i+1], true
	case "cycle":
		return &function{"cycle", func(e *eval, pos []Value, _ *Dict) Value {
			if len(pos) == 0 {
				e.fail("no items for cycling given")
			}
			return pos[l.i%len(pos)]
		}}, true
	case "changed":
		return &function{"changed", func(_ *eval, pos []Value, _ *Dict) Value {
			if l.changed != nil && equal(tuple(l.changed...), tuple(pos...)) {
				return false
			}
			l.changed = append([]Value{}, pos...)
			return true
		}}, true
	}
	return nil, false
}

// macro is a macro with the scope that it was defined in.
type macro struct {
	def   *macroSt
	scope *scope
}

// call runs a macro and gives what it puts out.
func (m *macro) call(e *eval, pos []Value, kw *Dict) Value {
	d := m.def
	s := m.scope.child()
	if len(pos) > len(d.params) && !d.varargs {
		e.fail("macro %q takes not more than %d arguments", d.name, len(d.params))
	}
	rest := &Dict{}
	for i, k := range kw.keys {
		n := str(k)
		at := -1
		for j, p := range d.params {
			if p == n {
				at = j
			}
		}
		switch {
		case at >= 0 && at < len(pos):
			e.fail("macro %q got multiple values for argument %q", d.name, n)
		case at >= 0:
			s.vars[n] = kw.values[i]
		case n == "caller" && d.caller:
			s.vars["caller"] = kw.values[i]
		case d.kwargs:
			rest.Set(k, kw.values[i])
		default:
			e.fail("macro %q takes no keyword argument %q", d.name, n)
		}
	}
	for i, p := range d.params {
		if i < len(pos) {
			s.vars[p] = pos[i]
			continue
		}
		if _, ok := s.vars[p]; ok {
			continue
		}
		if k := i - (len(d.params) - len(d.defaults)); k >= 0 {
			s.vars[p] = e.expr(d.defaults[k], s)
		} else {
			s.vars[p] = undefined("parameter " + quote(p) + " was not provided")
		}
	}
	if d.varargs {
		s.vars["varargs"] = tuple(pos[min(len(pos), len(d.params)):]...)
	}
	if d.kwargs {
		s.vars["kwargs"] = rest
	}
	if _, ok := s.vars["caller"]; !ok && d.caller && d.name != "caller" {
		s.vars["caller"] = undefined("no caller defined")
	}
	line := e.line
	var text string
	e.nested(func() { text = e.capture(func() { e.run(d.body, s) }) })
	e.line = line
	return text
}

// attr gives an attribute of a macro.
func (m *macro) attr(name string) (Value, bool) {
	switch name {
	case "name":
		return m.def.name, true
	case "arguments":
		l := tuple()
		for _, p := range m.def.params {
			l.Items = append(l.Items, p)
		}
		return l, true
	case "catch_kwargs":
		return m.def.kwargs, true
	case "catch_varargs":
		return m.def.varargs, true
	case "caller":
		return m.def.caller, true
	}
	return nil, false
}

func (e *eval) callWith(st *callBlock, s *scope) {
	fn := e.expr(st.call.fn, s)
	pos, kw := e.args(&st.call.args, s)
	kw.Set("caller", &macro{st.macro, s})
	e.write(str(e.call(fn, pos, kw)))
}
