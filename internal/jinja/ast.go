package jinja

// expr is an expression.
type expr interface{}

type (
	constant struct{ v Value }
	name     struct{ id string }
	getAttr  struct {
		obj  expr
		name string
	}
	getItem struct{ obj, key expr }
	slice   struct{ from, to, step expr } // nil where left out
	listLit struct {
		items []expr
		tuple bool
	}
	dictLit struct{ keys, values []expr }
	call    struct {
		fn   expr
		args args
	}
	filter struct {
		on   expr // nil: the body of a block
		name string
		args args
	}
	test struct {
		on   expr
		name string
		args args
	}
	unary struct {
		op string
		x  expr
	}
	binary struct {
		op   string
		l, r expr
	}
	concat  struct{ parts []expr }
	compare struct {
		first expr
		ops   []string
		rest  []expr
	}
	cond struct{ test, then, other expr } // other nil: undefined
)

// args are the arguments of a call.
type args struct {
	pos      []expr
	names    []string
	named    []expr
	star     expr // *x
	starstar expr // **x
}

// stmt is a statement.
type stmt interface{}

type (
	output struct{ x expr }
	data   struct{ s string }
	forSt  struct {
		target    expr
		iter      expr
		test      expr // nil: none
		body      []stmt
		orElse    []stmt
		recursive bool
	}
	ifSt struct {
		tests  []expr
		bodies [][]stmt
		orElse []stmt
	}
	setSt struct {
		target expr
		value  expr
	}
	setBlock struct {
		target  expr
		filters []*filter
		body    []stmt
	}
	macroSt struct {
		name     string
		params   []string
		defaults []expr // of the last parameters
		body     []stmt
		varargs  bool // the body names them
		kwargs   bool
		caller   bool
	}
	callBlock struct {
		call  *call
		macro *macroSt
	}
	filterBlock struct {
		filters []*filter
		body    []stmt
	}
	withSt struct {
		names  []expr
		values []expr
		body   []stmt
	}
	scopeBlock struct{ body []stmt } // block without inheritance
	generation struct{ body []stmt }
	breakSt    struct{}
	continueSt struct{}
	lineSt     struct { // the statement at a line, for messages
		line int
		st   stmt
	}
)
