package jinja

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
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

// tuple parses one expression, or several with commas. Without conds an if after it
// belongs to the statement.
func (p *parser) tuple(conds bool) expr {
	one := p.expression
	if !conds {
		one = p.or
	}
	first := one()
	if !p.isOp(",") {
		return first
	}
	list := &listLit{items: []expr{first}, tuple: true}
	for p.skipOp(",") {
		if k := p.cur().kind; k == kVarEnd || k == kBlockEnd || p.isOp(")") {
			break
		}
		list.items = append(list.items, one())
	}
	return list
}

func (p *parser) expression() expr {
	p.enter()
	defer p.leave()
	x := p.or()
	for n := 0; p.skipName("if"); n++ {
		p.chain(n)
		c := &cond{test: p.or(), then: x}
		if p.skipName("else") {
			c.other = p.expression()
		}
		x = c
	}
	return x
}

func (p *parser) or() expr {
	x := p.and()
	for n := 0; p.skipName("or"); n++ {
		p.chain(n)
		x = &binary{"or", x, p.and()}
	}
	return x
}

func (p *parser) and() expr {
	x := p.not()
	for n := 0; p.skipName("and"); n++ {
		p.chain(n)
		x = &binary{"and", x, p.not()}
	}
	return x
}

func (p *parser) not() expr {
	p.enter()
	defer p.leave()
	if p.skipName("not") {
		return &unary{"not", p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	c := &compare{first: p.math(0)}
	for {
		op := ""
		switch t := p.cur(); {
		case t.kind == kOp && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, t.s):
			op = t.s
			p.next()
		case p.isName("in"):
			op = "in"
			p.next()
		case p.isName("not") && p.toks[p.pos+1].kind == kName && p.toks[p.pos+1].s == "in":
			op = "not in"
			p.pos += 2
		default:
			if len(c.ops) == 0 {
				return c.first
			}
			return c
		}
		c.ops = append(c.ops, op)
		c.rest = append(c.rest, p.math(0))
	}
}

// levels are the binary operators from the loosest to the tightest.
var levels = [][]string{{"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}}

func (p *parser) math(level int) expr {
	if level == len(levels) {
		return p.unary(true)
	}
	x := p.math(level + 1)
	for n := 0; p.cur().kind == kOp && slices.Contains(levels[level], p.cur().s); n++ {
		p.chain(n)
		op := p.next().s
		y := p.math(level + 1)
		if op != "~" {
			x = &binary{op, x, y}
			continue
		}
		c, ok := x.(*concat)
		if !ok {
			c = &concat{[]expr{x}}
		}
		c.parts = append(c.parts, y)
		x = c
	}
	return x
}

func (p *parser) unary(filters bool) expr {
	p.enter()
	defer p.leave()
	var x expr
	switch {
	case p.skipOp("-"):
		x = &unary{"-", p.unary(false)}
	case p.skipOp("+"):
		x = &unary{"+", p.unary(false)}
	default:
		x = p.primary()
	}
	x = p.postfix(x)
	if filters {
		x = p.filterExpr(x)
	}
	return x
}

func (p *parser) primary() expr {
	switch t := p.next(); t.kind {
	case kName:
		switch t.s {
		case "true", "True":
			return &constant{true}
		case "false", "False":
			return &constant{false}
		case "none", "None":
			return &constant{nil}
		}
		return p.use(t.s)
	case kString:
		s := t.s
		for p.cur().kind == kString {
			s += p.next().s
		}
		return &constant{s}
	case kInt:
		n, ok := new(big.Int).SetString(strings.ReplaceAll(t.s, "_", ""), 0)
		if !ok {
			n, ok = new(big.Int).SetString(strings.ReplaceAll(t.s, "_", ""), 10)
		}
		if !ok || !n.IsInt64() {
			p.pos--
			p.fail("integer %s is too large", t.s)
		}
		return &constant{int(n.Int64())}
	case kFloat:
		f, err := strconv.ParseFloat(t.s, 64)
		if err != nil && f == 0 {
			p.fail("%v", err)
		}
		return &constant{f}
	case kOp:
		switch t.s {
		case "(":
			return p.parens()
		case "[":
			list := &listLit{}
			for !p.isOp("]") {
				if len(list.items) > 0 {
					p.expectOp(",")
					if p.isOp("]") {
						break
					}
				}
				list.items = append(list.items, p.expression())
			}
			p.expectOp("]")
			return list
		case "{":
			d := &dictLit{}
			for !p.isOp("}") {
				if len(d.keys) > 0 {
					p.expectOp(",")
					if p.isOp("}") {
						break
					}
				}
				d.keys = append(d.keys, p.expression())
				p.expectOp(":")
				d.values = append(d.values, p.expression())
			}
			p.expectOp("}")
			return d
		}
	}
	if p.toks[p.pos].kind != kEOF {
		p.pos--
	}
	p.fail("unexpected %v", p.cur())
	return nil
}

// parens parses what follows an opening parenthesis: a tuple or an expression.
func (p *parser) parens() expr {
	if p.skipOp(")") {
		return &listLit{tuple: true}
	}
	x := p.tuple(true)
	p.expectOp(")")
	return x
}

func (p *parser) postfix(x expr) expr {
	for n := 0; ; n++ {
		p.chain(n)
		switch {
		case p.skipOp("."):
			switch t := p.next(); t.kind {
			case kName:
				x = &getAttr{x, t.s}
			case kInt:
				n, err := strconv.Atoi(t.s)
				if err != nil {
					p.fail("%v", err)
				}
				x = &getItem{x, &constant{n}}
			default:
				p.pos--
				p.fail("expected name or number")
			}
		case p.skipOp("["):
			x = p.subscript(x)
		case p.isOp("("):
			x = &call{x, p.args()}
		default:
			return x
		}
	}
}

func (p *parser) subscript(x expr) expr {
	part := func() expr {
		if p.isOp(":") || p.isOp("]") || p.isOp(",") {
			return nil
		}
		return p.expression()
	}
	var keys []expr
	for {
		var key expr
		if p.isOp(":") {
			key = nil
		} else {
			key = p.expression()
		}
		if p.skipOp(":") {
			s := &slice{from: key, to: part()}
			if p.skipOp(":") {
				s.step = part()
			}
			key = s
		}
		keys = append(keys, key)
		if !p.skipOp(",") {
			break
		}
	}
	p.expectOp("]")
	if len(keys) == 1 {
		return &getItem{x, keys[0]}
	}
	return &getItem{x, &listLit{items: keys, tuple: true}}
}

func (p *parser) filterExpr(x expr) expr {
	for n := 0; ; n++ {
		p.chain(n)
		switch {
		case p.skipOp("|"):
			f := &filter{on: x, name: p.dotted()}
			if p.isOp("(") {
				f.args = p.args()
			}
			x = f
		case p.skipName("is"):
			x = p.test(x)
		case p.isOp("("):
			x = &call{x, p.args()}
		default:
			return x
		}
	}
}

func (p *parser) test(x expr) expr {
	negated := p.skipName("not")
	t := &test{on: x, name: p.dotted()}
	switch c := p.cur(); {
	case p.isOp("("):
		t.args = p.args()
	case c.kind == kName && c.s == "is":
		p.fail("you cannot chain multiple tests with is")
	case c.kind == kName && c.s != "else" && c.s != "or" && c.s != "and", c.kind == kString, c.kind == kInt, c.kind == kFloat,
		p.isOp("["), p.isOp("{"):
		if c.kind == kName && (c.s == "if" || c.s == "in" || c.s == "not" || c.s == "recursive") {
			break
		}
		t.args.pos = []expr{p.postfix(p.primary())}
	}
	if negated {
		return &unary{"not", t}
	}
	return t
}

func (p *parser) args() args {
	var a args
	p.expectOp("(")
	first := true
	for !p.isOp(")") {
		if !first {
			p.expectOp(",")
			if p.isOp(")") {
				break
			}
		}
		first = false
		switch {
		case p.skipOp("*"):
			if a.star != nil || a.starstar != nil {
				p.fail("invalid syntax for function call expression")
			}
			a.star = p.expression()
		case p.skipOp("**"):
			if a.starstar != nil {
				p.fail("invalid syntax for function call expression")
			}
			a.starstar = p.expression()
		case p.cur().kind == kName && p.toks[p.pos+1].kind == kOp && p.toks[p.pos+1].s == "=":
			if a.starstar != nil {
				p.fail("invalid syntax for function call expression")
			}
			n := p.next().s
			p.next()
			a.names = append(a.names, n)
			a.named = append(a.named, p.expression())
		default:
			if a.star != nil || a.starstar != nil || len(a.names) > 0 {
				p.fail("invalid syntax for function call expression")
			}
			a.pos = append(a.pos, p.expression())
		}
	}
	p.expectOp(")")
	return a
}
