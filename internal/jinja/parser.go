package jinja

import (
	"fmt"
	"slices"
)

// Bounds of a template: how deep it can nest, how many operators can follow one
// another, and how long it can be, in bytes.
const (
	maxDepth  = 400
	maxChain  = 10000
	maxSource = 1 << 20
)

type parser struct {
	toks  []token
	pos   int
	depth int
	loops int
	marks bool              // there is a generation block
	used  []map[string]bool // names that the macros being parsed refer to
}

func (p *parser) cur() token { return p.toks[p.pos] }

func (p *parser) next() token {
	t := p.toks[p.pos]
	if t.kind != kEOF {
		p.pos++
	}
	return t
}

func (p *parser) fail(format string, args ...any) {
	panic(&SyntaxError{p.cur().line, fmt.Sprintf(format, args...)})
}

func (p *parser) enter() {
	if p.depth++; p.depth > maxDepth {
		p.fail("nested too deep")
	}
}

func (p *parser) leave() { p.depth-- }

func (p *parser) chain(n int) {
	if n > maxChain {
		p.fail("expression too long")
	}
}

func (p *parser) isOp(op string) bool    { t := p.cur(); return t.kind == kOp && t.s == op }
func (p *parser) isName(n string) bool   { t := p.cur(); return t.kind == kName && t.s == n }
func (p *parser) skipOp(op string) bool  { return p.isOp(op) && p.next().kind == kOp }
func (p *parser) skipName(n string) bool { return p.isName(n) && p.next().kind == kName }

func (p *parser) expectOp(op string) {
	if !p.skipOp(op) {
		p.fail("expected %q, got %v", op, p.cur())
	}
}

func (p *parser) expect(k kind) token {
	if p.cur().kind != k {
		p.fail("unexpected %v", p.cur())
	}
	return p.next()
}

// statements parses up to a block tag with one of the given names, which is left
// current, or to the end of the template if there are none.
func (p *parser) statements(until ...string) []stmt {
	p.enter()
	defer p.leave()
	var out []stmt
	for {
		switch t := p.next(); t.kind {
		case kEOF:
			if until != nil {
				p.fail("unexpected end of template, expected %q", until)
			}
			return out
		case kData:
			out = append(out, &data{t.s})
		case kVarBegin:
			x := p.tuple(true)
			p.expect(kVarEnd)
			out = append(out, &lineSt{t.line, &output{x}})
		case kBlockBegin:
			if p.cur().kind == kName && slices.Contains(until, p.cur().s) {
				return out
			}
			out = append(out, &lineSt{t.line, p.statement()})
		default:
			p.fail("unexpected %v", t)
		}
	}
}

// body parses a block's body and its end tag.
func (p *parser) body(end string) []stmt {
	p.expect(kBlockEnd)
	b := p.statements(end)
	p.next()
	p.expect(kBlockEnd)
	return b
}

func (p *parser) statement() stmt {
	t := p.expect(kName)
	switch t.s {
	case "for":
		return p.forLoop()
	case "if":
		return p.ifElse()
	case "set":
		return p.set()
	case "macro":
		return p.macro()
	case "call":
		return p.callBlock()
	case "filter":
		f := p.filters()
		return &filterBlock{f, p.body("endfilter")}
	case "with":
		w := &withSt{}
		for p.cur().kind != kBlockEnd {
			if len(w.names) > 0 {
				p.expectOp(",")
			}
			w.names = append(w.names, p.target(false))
			p.expectOp("=")
			w.values = append(w.values, p.expression())
		}
		w.body = p.body("endwith")
		return w
	case "generation":
		p.marks = true
		loops := p.loops
		p.loops = 0 // it is a call block: no break leads out of it
		b := p.body("endgeneration")
		p.loops = loops
		return &generation{b}
	case "block":
		p.expect(kName)
		p.skipName("scoped")
		p.skipName("required")
		p.expect(kBlockEnd)
		b := p.statements("endblock")
		p.next()
		if p.cur().kind == kName {
			p.next()
		}
		p.expect(kBlockEnd)
		return &scopeBlock{b}
	case "break", "continue":
		if p.loops == 0 {
			p.fail("%s outside a loop", t.s)
		}
		p.expect(kBlockEnd)
		if t.s == "break" {
			return &breakSt{}
		}
		return &continueSt{}
	}
	p.pos--
	p.fail("encountered unknown tag %q", t.s)
	return nil
}

func (p *parser) forLoop() stmt {
	f := &forSt{target: p.targets()}
	if !p.skipName("in") {
		p.fail("expected in, got %v", p.cur())
	}
	f.iter = p.tuple(false)
	if p.skipName("if") {
		f.test = p.expression()
	}
	f.recursive = p.skipName("recursive")
	p.expect(kBlockEnd)
	p.loops++
	f.body = p.statements("endfor", "else")
	p.loops--
	if p.next().s == "else" {
		p.expect(kBlockEnd)
		f.orElse = p.statements("endfor")
		p.next()
	}
	p.expect(kBlockEnd)
	return f
}

func (p *parser) ifElse() stmt {
	f := &ifSt{}
	for {
		f.tests = append(f.tests, p.tuple(false))
		p.expect(kBlockEnd)
		f.bodies = append(f.bodies, p.statements("elif", "else", "endif"))
		switch p.next().s {
		case "elif":
			continue
		case "else":
			p.expect(kBlockEnd)
			f.orElse = p.statements("endif")
			p.next()
		}
		p.expect(kBlockEnd)
		return f
	}
}

func (p *parser) set() stmt {
	target := p.setTarget()
	if p.skipOp("=") {
		v := p.tuple(true)
		p.expect(kBlockEnd)
		return &setSt{target, v}
	}
	var f []*filter
	if p.isOp("|") {
		p.next()
		f = p.filters()
	}
	return &setBlock{target, f, p.body("endset")}
}

// setTarget is a name, an attribute of a namespace, or several names.
func (p *parser) setTarget() expr {
	if p.cur().kind == kName && p.toks[p.pos+1].kind == kOp && p.toks[p.pos+1].s == "." {
		n := p.use(p.next().s)
		p.next()
		return &getAttr{n, p.expect(kName).s}
	}
	return p.targets()
}

// targets is a name or a tuple of names.
func (p *parser) targets() expr {
	first := p.target(true)
	if !p.isOp(",") {
		return first
	}
	list := &listLit{items: []expr{first}, tuple: true}
	for p.skipOp(",") {
		if p.cur().kind != kName && !p.isOp("(") {
			break
		}
		if p.isName("in") {
			break
		}
		list.items = append(list.items, p.target(true))
	}
	return list
}

func (p *parser) target(parens bool) expr {
	if parens && p.skipOp("(") {
		t := p.targets()
		p.expectOp(")")
		return t
	}
	t := p.expect(kName)
	switch t.s {
	case "true", "false", "none", "True", "False", "None":
		p.fail("can't assign to %q", t.s)
	}
	return &name{t.s}
}

// signature parses the parameters of a macro or a call block.
func (p *parser) signature(m *macroSt) {
	p.expectOp("(")
	for !p.isOp(")") {
		if len(m.params) > 0 {
			p.expectOp(",")
			if p.isOp(")") {
				break
			}
		}
		m.params = append(m.params, p.expect(kName).s)
		if p.skipOp("=") {
			m.defaults = append(m.defaults, p.expression())
		} else if len(m.defaults) > 0 {
			p.fail("non-default argument follows default argument")
		}
	}
	p.expectOp(")")
}

// macroBody parses the body of a macro and notes which of the names that are filled
// in on demand it refers to.
func (p *parser) macroBody(m *macroSt, end string) {
	p.used = append(p.used, map[string]bool{})
	loops := p.loops
	p.loops = 0
	m.body = p.body(end)
	p.loops = loops
	u := p.used[len(p.used)-1]
	p.used = p.used[:len(p.used)-1]
	m.varargs, m.kwargs, m.caller = u["varargs"], u["kwargs"], u["caller"]
	if len(p.used) > 0 {
		for n := range u {
			p.used[len(p.used)-1][n] = true
		}
	}
}

func (p *parser) macro() stmt {
	m := &macroSt{name: p.expect(kName).s}
	p.signature(m)
	p.macroBody(m, "endmacro")
	return m
}

func (p *parser) callBlock() stmt {
	m := &macroSt{name: "caller"}
	if p.isOp("(") {
		p.signature(m)
	}
	c, ok := p.expression().(*call)
	if !ok {
		p.fail("expected call")
	}
	p.macroBody(m, "endcall")
	return &callBlock{c, m}
}

// filters parses filters behind one another, the first without its bar.
func (p *parser) filters() []*filter {
	var list []*filter
	for {
		f := &filter{name: p.dotted()}
		if p.isOp("(") {
			f.args = p.args()
		}
		list = append(list, f)
		if !p.skipOp("|") {
			return list
		}
	}
}

func (p *parser) dotted() string {
	n := p.expect(kName).s
	for p.isOp(".") {
		p.next()
		n += "." + p.expect(kName).s
	}
	return n
}

func (p *parser) use(id string) *name {
	if len(p.used) > 0 {
		p.used[len(p.used)-1][id] = true
	}
	return &name{id}
}
