package jinja

import (
	"fmt"
	"strings"
	"time"
)

// Template is a parsed template. It is immutable and safe for concurrent use.
type Template struct {
	body  []stmt
	marks bool
}

// Parse reads a template. Errors are [*SyntaxError].
func Parse(src string) (t *Template, err error) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*SyntaxError)
			if !ok {
				panic(r)
			}
			t, err = nil, e
		}
	}()
	if len(src) > maxSource {
		return nil, &SyntaxError{1, fmt.Sprintf("the template is longer than %d bytes", maxSource)}
	}
	p := &parser{toks: lex(src)}
	body := p.statements()
	return &Template{body: body, marks: p.marks}, nil
}

// HasGeneration says whether the template marks what a model generates with
// {% generation %}.
func (t *Template) HasGeneration() bool { return t.marks }

// Options are the limits and the surroundings of a rendering. The zero value is the
// default.
type Options struct {
	Now       func() time.Time // for strftime_now; nil: time.Now
	MaxSteps  int              // statements and expressions evaluated; 0: 20 million
	MaxOutput int              // bytes of output, and of any string on the way; 0: 64 MiB
}

// Output is a rendered template.
type Output struct {
	Text string
	// Generation are the byte ranges of Text inside {% generation %} blocks, in order.
	Generation [][2]int
}

// Error is an error of rendering.
type Error struct {
	Line   int // of the template, from 1; 0 if not known
	Msg    string
	Raised bool // the template called raise_exception, and Msg is what it said
}

func (e *Error) Error() string {
	if e.Raised {
		return "the chat template says: " + e.Msg
	}
	return fmt.Sprintf("jinja: line %d: %s", e.Line, e.Msg)
}

// Render renders the template with the given variables. It does not change them.
// Errors are [*Error].
func (t *Template) Render(vars *Dict, opt Options) (out Output, err error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.MaxSteps == 0 {
		opt.MaxSteps = 20_000_000
	}
	if opt.MaxOutput == 0 {
		opt.MaxOutput = 64 << 20
	}
	e := &eval{opt: opt}
	e.out = &e.main
	defer func() {
		if r := recover(); r != nil {
			bad, ok := r.(*Error)
			if !ok {
				panic(r)
			}
			if bad.Line == 0 {
				bad.Line = e.line
			}
			out, err = Output{}, bad
		}
	}()
	root := &scope{vars: map[string]Value{}}
	e.root = root
	if vars != nil {
		for i, k := range vars.keys {
			if s, ok := k.(string); ok {
				root.vars[s] = vars.values[i]
			}
		}
	}
	e.run(t.body, root)
	return Output{Text: e.main.String(), Generation: e.marks}, nil
}

// scope is the variables of a template, a loop, a macro.
type scope struct {
	vars   map[string]Value
	parent *scope
}

func (s *scope) lookup(name string) (Value, bool) {
	for ; s != nil; s = s.parent {
		if v, ok := s.vars[name]; ok {
			return v, true
		}
	}
	return nil, false
}

func (s *scope) child() *scope { return &scope{vars: map[string]Value{}, parent: s} }

// eval is one rendering.
type eval struct {
	opt   Options
	root  *scope
	main  strings.Builder  // the output
	out   *strings.Builder // where output goes now: main, or the body of a block
	marks [][2]int
	steps int
	depth int // of macros and recursive loops
	line  int
}

func (e *eval) fail(format string, args ...any) {
	panic(&Error{Line: e.line, Msg: fmt.Sprintf(format, args...)})
}

func (e *eval) step() { e.work(1) }

// work counts n steps, for what goes through n things at once.
func (e *eval) work(n int) {
	if e.steps += n; e.steps > e.opt.MaxSteps {
		e.fail("the template takes more than %d steps", e.opt.MaxSteps)
	}
}

// size checks how long a string is going to be.
func (e *eval) size(n int) {
	if n > e.opt.MaxOutput || n < 0 {
		e.fail("the output is longer than %d bytes", e.opt.MaxOutput)
	}
}

func (e *eval) write(s string) {
	e.size(e.out.Len() + len(s))
	e.out.WriteString(s)
}

// capture runs f and gives what it put out.
func (e *eval) capture(f func()) string {
	saved := e.out
	var b strings.Builder
	e.out = &b
	defer func() { e.out = saved }()
	f()
	return b.String()
}

// nested counts calls within calls.
func (e *eval) nested(f func()) {
	if e.depth++; e.depth > maxDepth {
		e.fail("maximum recursion depth exceeded")
	}
	f()
	e.depth--
}
