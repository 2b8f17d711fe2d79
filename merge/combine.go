package merge

import (
	"context"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/internal/kernel"
)

// combiner makes one pair of those that several adapters have for one matrix.
type combiner struct {
	help string
	fold func(c *combination, ts []Term) (Term, error)
}

// combination is what a combiner knows besides the terms, whose scales are the
// adapters' own.
type combination struct {
	*CombineOptions
	ctx     context.Context
	pool    *kernel.Pool
	matrix  string
	weights []float32 // the user's factor for each term
	from    []int     // which adapter each term is of
	rank    int       // the largest among all adapters
}

// combiners are the methods by name.
var combiners = map[string]combiner{
	"cat": {"exact sum: matrices stacked, the rank is the sum of ranks", concatenate},
	"svd": {"exact sum in singular form: the smallest rank that holds it, or --svd-rank", exactSum},
}

// arithmetics are methods of [tasks]: each is there on the factors, and with _svd on
// the changes.
var arithmetics = []struct {
	name, help string
	tasks
}{
	{"linear", "weighted sum", tasks{}},
	{"ties", "the largest of each, a sign elected, the mean of those that agree", tasks{pruneSmall, true}},
	{"dare_linear", "random ones of each, rescaled, and their weighted sum", tasks{pruneRandom, false}},
	{"dare_ties", "random ones of each, rescaled, a sign elected, the mean of those that agree", tasks{pruneRandom, true}},
	{"magnitude_prune", "the largest of each, and their weighted sum", tasks{pruneSmall, false}},
}

func init() {
	for _, m := range arithmetics {
		combiners[m.name] = combiner{m.help + "; of the A's and of the B's: cross terms, equal ranks only", m.onFactors}
		if m.name != "linear" { // whose form on the changes is svd
			combiners[m.name+"_svd"] = combiner{m.help + "; of the changes, cut to --svd-rank", m.onDeltas}
		}
	}
}

// CombineMethods lists the methods with their help, in alphabetical order.
func CombineMethods() (names, help []string) {
	for n := range combiners {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		help = append(help, combiners[n].help)
	}
	return names, help
}

// exact gives what a method does with TrueDelta.
func exact(method string) func(*combination, []Term) (Term, error) {
	for _, m := range arithmetics {
		if m.name != "linear" && strings.TrimSuffix(method, "_svd") == m.name {
			return m.onDeltas
		}
	}
	return exactSum
}

// Combine makes one adapter of several, each with its factor. All must be of one
// layout: resolved against the same base, or all unresolved and of one format.
// A matrix that only some of them change is combined from those.
//
// Memory, besides the adapters: no change is ever formed. Methods that work on the changes
// read them by blocks of rows, several times over, and hold what [TruncatedSVD] does;
// those on factors some copies of the factors of one matrix.
func Combine(ctx context.Context, adapters []Weighted, o CombineOptions) (*adapter.Adapter, error) {
	if o.Method == "" {
		o.Method = "cat"
	}
	m, ok := combiners[o.Method]
	if !ok {
		names, _ := CombineMethods()
		return nil, format.Usagef("no combination method is called %q; there are %s", o.Method, strings.Join(names, ", "))
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.TrueDelta {
		m.fold = exact(o.Method)
	}
	pool := kernel.NewPool(max(o.Threads, 1))
	defer pool.Close()
	first := adapters[0]
	all := map[string]*combination{}
	terms := map[string][]Term{}
	pairs := map[string]*adapter.Pair{}
	var order []string
	var tokens *adapter.Tokens
	rank := 0
	for i, a := range adapters {
		switch {
		case a.Tokens == nil:
		case a.Factor != 1:
			return nil, format.Unsupported("%s has rows of tokens, which are used as they are: its factor is 1, not %v", a.Path, a.Factor)
		case tokens != nil:
			return nil, format.Unsupported("combining several adapters with rows of tokens (%s is the second): merge one into the base first", a.Path)
		default:
			tokens = a.Tokens
		}
		if err := a.Complete(); err != nil {
			return nil, err
		}
		if len(a.Invocation) > 0 {
			return nil, format.Unsupported("combining %s, which acts from an invocation on", a.Path)
		}
		if (a.Format == "gguf") != (first.Format == "gguf") && (!a.Resolved() || !first.Resolved()) {
			return nil, format.Usagef("%s and %s name their matrices differently: give the model they belong to with --base", first.Path, a.Path)
		}
		for _, p := range a.Pairs {
			if p.Magnitude != nil {
				return nil, format.Unsupported("%s is a DoRA adapter (%s): its change is no product of two matrices; merge it instead", a.Path, p.Module)
			}
			k := key(p)
			if pairs[k] == nil {
				pairs[k], all[k] = p, &combination{CombineOptions: &o, ctx: ctx, pool: pool, matrix: k}
				order = append(order, k)
			}
			terms[k] = append(terms[k], termOf(p))
			all[k].weights = append(all[k].weights, a.Factor)
			all[k].from = append(all[k].from, i)
			rank = max(rank, p.Rank)
		}
	}
	out := *first.Adapter
	out.Pairs, out.Meta, out.Name, out.Tokens = nil, nil, "combined", tokens
	for _, k := range order {
		ts := terms[k]
		for i, t := range ts[1:] {
			if t.A.Cols != ts[0].A.Cols || t.B.Rows != ts[0].B.Rows {
				first, other := adapters[all[k].from[0]].Path, adapters[all[k].from[i+1]].Path
				return nil, format.Usagef("%s changes %s as a matrix of %d x %d, %s as one of %d x %d: they are for different models", first, k, ts[0].B.Rows, ts[0].A.Cols, other, t.B.Rows, t.A.Cols)
			}
		}
		all[k].rank = rank
		t, err := m.fold(all[k], ts)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out.Pairs = append(out.Pairs, withTerm(pairs[k], t))
	}
	return &out, nil
}

// key names the matrix that a pair changes within its adapter's layout.
func key(p *adapter.Pair) string {
	name := p.Target
	if name == "" {
		name = p.Module
	}
	if p.Expert >= 0 {
		name = fmt.Sprintf("%s, expert %d", name, p.Expert)
	}
	return name
}

// withTerm is p for the same matrix with other factors.
func withTerm(p *adapter.Pair, t Term) *adapter.Pair {
	q := p.Clone()
	q.SetFactors(matrixOf(t.A), matrixOf(t.B), t.Scale)
	return q
}

// concatenate stacks A's and B's. Where all scales are the same number it stays
// the scale, and the matrices keep their bits; else each A takes its own.
func concatenate(c *combination, ts []Term) (Term, error) {
	rank, same := 0, true
	scale := func(k int) float32 { return ts[k].Scale * c.weights[k] }
	for k, t := range ts {
		rank += t.A.Rows
		same = same && scale(k) == scale(0)
	}
	out := Term{A: kernel.NewMat(rank, ts[0].A.Cols), B: kernel.NewMat(ts[0].B.Rows, rank), Scale: 1}
	if same {
		out.Scale = scale(0)
	}
	at := 0
	for k, t := range ts {
		for i := range t.A.Rows {
			row := out.A.Row(at + i)
			copy(row, t.A.Row(i))
			if !same {
				for j := range row {
					row[j] *= scale(k)
				}
			}
		}
		for i := range t.B.Rows {
			copy(out.B.Row(i)[at:], t.B.Row(i))
		}
		at += t.A.Rows
	}
	return out, nil
}

// exactSum is the exact sum in singular form, cut as told; values at the level
// of float32's rounding are dropped.
func exactSum(c *combination, ts []Term) (Term, error) {
	sum, err := concatenate(c, ts)
	if err != nil {
		return Term{}, err
	}
	l, err := Recompress(sum.B, sum.A, float64(sum.Scale), c.Cut)
	if err != nil {
		return Term{}, err
	}
	return l.withoutNoise().clamped(c.Clamp).term(), nil
}

// onFactors combines A's and B's apart, with x = factor times scale of each weighted
// by sign(x) sqrt(|x|) in the one and sqrt(|x|) in the other. The product then holds
// B_i*A_j too: it is the arithmetic of the changes for one adapter only.
func (t tasks) onFactors(c *combination, ts []Term) (Term, error) {
	rank := ts[0].A.Rows
	var as, bs [][]float32
	var wa, wb []float32
	for k, term := range ts {
		if term.A.Rows != rank {
			return Term{}, format.Usagef("method %s needs equal ranks, these have %d and %d; methods cat, svd and those on changes take any", c.Method, rank, term.A.Rows)
		}
		x := float64(c.weights[k]) * float64(term.Scale)
		root := float32(math.Sqrt(math.Abs(x)))
		wb = append(wb, root)
		if x < 0 {
			root = -root
		}
		wa = append(wa, root)
		as, bs = append(as, valuesOf(term.A)), append(bs, valuesOf(term.B))
	}
	out := Term{Scale: 1, A: kernel.Mat{Rows: rank, Cols: ts[0].A.Cols, Stride: ts[0].A.Cols}, B: kernel.Mat{Rows: ts[0].B.Rows, Cols: rank, Stride: rank}}
	var err error
	if out.A.Data, err = t.combineAll(as, wa, c.CombineOptions, c.masksOf("A")); err != nil {
		return Term{}, err
	}
	out.B.Data, err = t.combineAll(bs, wb, c.CombineOptions, c.masksOf("B"))
	return out, err
}

// masksOf are the random masks of the terms for a part of the matrix.
func (c *combination) masksOf(part string) []func(int) bool {
	all := c.masks(c.matrix, part, c.from[len(c.from)-1]+1)
	out := make([]func(int) bool, len(c.from))
	for k, i := range c.from {
		out[k] = all[i]
	}
	return out
}

// valuesOf is a copy of m's elements.
func valuesOf(m kernel.Mat) []float32 {
	x := make([]float32, 0, m.Rows*m.Cols)
	for i := range m.Rows {
		x = append(x, m.Row(i)...)
	}
	return x
}

// clamped limits the values of the factors U*S and Vᵀ to the quantile q of both, as
// PEFT does it; with 0 nothing changes. The quantile depends on the signs of the
// singular vectors, which no definition fixes.
func (l LowRank) clamped(q float64) LowRank {
	if q == 0 {
		return l
	}
	var all []float64
	for k := range l.A.Rows {
		root := float32(math.Sqrt(l.Singular[k]))
		for i := range l.B.Rows {
			l.B.Row(i)[k] *= root
			all = append(all, float64(l.B.Row(i)[k]))
		}
		row := l.A.Row(k)
		for j := range row {
			if root > 0 {
				row[j] /= root
			}
			all = append(all, float64(row[j]))
		}
	}
	sort.Float64s(all)
	at := float64(q * float64(len(all)-1))
	i := int(at)
	hi := all[i]
	if i+1 < len(all) {
		hi += float64((at - float64(i)) * (all[i+1] - all[i]))
	}
	limit := float32(max(hi, 0))
	for _, m := range []kernel.Mat{l.A, l.B} {
		for i, v := range m.Data {
			m.Data[i] = min(max(v, -limit), limit)
		}
	}
	return l
}

func (l LowRank) term() Term { return Term{A: l.A, B: l.B, Scale: 1} }

// withoutNoise drops directions whose singular values are rounding noise of the
// largest.
func (l LowRank) withoutNoise() LowRank {
	r := 1
	for r < l.A.Rows && l.Singular[r] > 1e-7*l.Singular[0] {
		r++
	}
	return l.first(r)
}

// first is what the first r directions hold.
func (l LowRank) first(r int) LowRank {
	if r == l.A.Rows {
		return l
	}
	l.A = l.A.Sub(0, r, 0, l.A.Cols)
	b := kernel.NewMat(l.B.Rows, r)
	for i := range b.Rows {
		copy(b.Row(i), l.B.Row(i)[:r])
	}
	l.B = b
	return l
}
