package jinja

import (
	"math/big"
	"slices"
	"strconv"
	"strings"
)

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
