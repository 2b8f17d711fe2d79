package merge

import (
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/internal/kernel"
)

// combiners make one pair of the pairs that several adapters have for one matrix.
// Each is a table entry: a name, a line of help, the algebra.
var combiners = map[string]struct {
	help string
	fold func([]Term) (Term, error)
}{
	"cat":    {"exact sum: matrices stacked, the rank is the sum of ranks", concatenate},
	"svd":    {"exact sum, brought to singular form: the smallest rank that holds it", func(ts []Term) (Term, error) { return recompressSum(ts, Cut{}) }},
	"linear": {"weighted sums of the A's and of the B's, as PEFT computes it: cross terms, equal ranks only", linear},
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

// Combine makes one adapter of several, each with its factor. All must be of one
// layout: resolved against the same base, or all unresolved and of one format.
// A matrix that only some of them change is combined from those.
func Combine(method string, adapters []Weighted) (*adapter.Adapter, error) {
	c, ok := combiners[method]
	if !ok {
		names, _ := CombineMethods()
		return nil, format.Usagef("no combination method is called %q; there are %s", method, strings.Join(names, ", "))
	}
	first := adapters[0]
	terms := map[string][]Term{}
	pairs := map[string]*adapter.Pair{}
	var order []string
	for _, a := range adapters {
		if (a.Format == "gguf") != (first.Format == "gguf") && (!a.Resolved() || !first.Resolved()) {
			return nil, format.Usagef("%s and %s name their matrices differently: give the model they belong to with --base", first.Path, a.Path)
		}
		for _, p := range a.Pairs {
			if p.Magnitude != nil {
				return nil, format.Unsupported("%s is a DoRA adapter (%s): its change is no product of two matrices; merge it instead", a.Path, p.Module)
			}
			k := key(p)
			if pairs[k] == nil {
				pairs[k] = p
				order = append(order, k)
			}
			t := termOf(p)
			t.Scale *= a.Factor
			terms[k] = append(terms[k], t)
		}
	}
	out := *first.Adapter
	out.Pairs, out.Meta, out.Name = nil, nil, "combined"
	for _, k := range order {
		ts := terms[k]
		for _, t := range ts[1:] {
			if t.A.Cols != ts[0].A.Cols || t.B.Rows != ts[0].B.Rows {
				return nil, fmt.Errorf("%s: the adapters change a %dx%d and a %dx%d matrix", k, ts[0].B.Rows, ts[0].A.Cols, t.B.Rows, t.A.Cols)
			}
		}
		t, err := c.fold(ts)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
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
func concatenate(ts []Term) (Term, error) {
	rank, same := 0, true
	for _, t := range ts {
		rank += t.A.Rows
		same = same && t.Scale == ts[0].Scale
	}
	out := Term{A: kernel.NewMat(rank, ts[0].A.Cols), B: kernel.NewMat(ts[0].B.Rows, rank), Scale: 1}
	if same {
		out.Scale = ts[0].Scale
	}
	at := 0
	for _, t := range ts {
		for k := range t.A.Rows {
			row := out.A.Row(at + k)
			copy(row, t.A.Row(k))
			if !same {
				for j := range row {
					row[j] *= t.Scale
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

// linear is add_weighted_adapter's "linear": with x = factor times scale of each,
// A = sum sign(x) sqrt(|x|) A_i and B = sum sqrt(|x|) B_i. Their product holds
// B_i*A_j too; it is the weighted sum of the changes for one adapter only.
func linear(ts []Term) (Term, error) {
	rank := ts[0].A.Rows
	out := Term{A: kernel.NewMat(rank, ts[0].A.Cols), B: kernel.NewMat(ts[0].B.Rows, rank), Scale: 1}
	for _, t := range ts {
		if t.A.Rows != rank {
			return Term{}, format.Usagef("method linear needs equal ranks, these have %d and %d; methods cat and svd take any", rank, t.A.Rows)
		}
		root := float32(math.Sqrt(math.Abs(float64(t.Scale))))
		signed := root
		if t.Scale < 0 {
			signed = -root
		}
		for i := range t.A.Rows {
			for j, v := range t.A.Row(i) {
				out.A.Row(i)[j] += float32(signed * v)
			}
		}
		for i := range t.B.Rows {
			for j, v := range t.B.Row(i) {
				out.B.Row(i)[j] += float32(root * v)
			}
		}
	}
	return out, nil
}

// recompressSum is the exact sum in singular form, cut as told; values at the level
// of float32's rounding are dropped.
func recompressSum(ts []Term, cut Cut) (Term, error) {
	sum, err := concatenate(ts)
	if err != nil {
		return Term{}, err
	}
	l, err := Recompress(sum.B, sum.A, float64(sum.Scale), cut)
	if err != nil {
		return Term{}, err
	}
	return l.withoutNoise().term(), nil
}

func (l LowRank) term() Term { return Term{A: l.A, B: l.B, Scale: 1} }

// withoutNoise drops directions whose singular values are rounding noise of the
// largest.
func (l LowRank) withoutNoise() LowRank {
	r := 1
	for r < l.A.Rows && l.Singular[r] > 1e-7*l.Singular[0] {
		r++
	}
	l.A = l.A.Sub(0, r, 0, l.A.Cols)
	b := kernel.NewMat(l.B.Rows, r)
	for i := range b.Rows {
		copy(b.Row(i), l.B.Row(i)[:r])
	}
	l.B = b
	return l
}

// Resized says what became of one pair.
type Resized struct {
	Name     string    `json:"matrix"`
	Rank     [2]int    `json:"rank"` // before and after
	Kept     float64   `json:"kept"` // share of the squared norm
	Singular []float64 `json:"singular_values"`
}

// Resize brings every pair to the rank that cut allows, by QR of its factors and an
// SVD of their core.
func Resize(a *adapter.Adapter, cut Cut) (*adapter.Adapter, []Resized, error) {
	out := *a
	out.Pairs, out.Meta = nil, nil
	var report []Resized
	for _, p := range a.Pairs {
		if p.Magnitude != nil {
			return nil, nil, format.Unsupported("%s is a DoRA adapter (%s): its change is no product of two matrices; merge it instead", a.Path, p.Module)
		}
		t := termOf(p)
		l, err := Recompress(t.B, t.A, float64(t.Scale), cut)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", key(p), err)
		}
		out.Pairs = append(out.Pairs, withTerm(p, l.term()))
		report = append(report, Resized{Name: key(p), Rank: [2]int{p.Rank, l.A.Rows}, Kept: l.Kept, Singular: l.Singular})
	}
	return &out, report, nil
}

// PairSpectrum gives the singular values of what a pair adds, descending, from its
// factors alone; of a DoRA pair those of its product, without the magnitudes.
func PairSpectrum(p *adapter.Pair) ([]float64, error) {
	t := termOf(p)
	l, err := Recompress(t.B, t.A, float64(t.Scale), Cut{Rank: 1})
	return l.Singular, err
}
