package merge

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/fmath"
	"github.com/graft-lora/graft/internal/kernel"
)

// PairDiff compares what two adapters do to one matrix, from their factors alone.
type PairDiff struct {
	Name   string  `json:"matrix"`
	RankA  int     `json:"rank_a"`
	RankB  int     `json:"rank_b"`
	NormA  float64 `json:"norm_a"` // Frobenius, of s·B·A
	NormB  float64 `json:"norm_b"`
	Norm   float64 `json:"norm_of_difference"`
	Cosine float64 `json:"cosine"` // of the two changes as vectors; 0 if one is nothing
	// Effective is how many directions the difference uses: e to the entropy of its
	// singular values' shares of the squared norm.
	Effective float64 `json:"effective_rank_of_difference"`
	Status    string  `json:"status"` // "same", "differs", "only in A", "only in B"; of rows "other tokens"
}

// sameChange is the relative difference up to which two changes are the same: rounding of
// factors to float16 and another order of sums stay below it.
const sameChange = 2e-3

// DiffAdapters compares two adapters by what they change, whatever their formats, ranks
// and scales: matrices in the order of their names. Magnitudes of DoRA count as different
// where they are. Both must be resolved, or be of formats with the same names.
func DiffAdapters(a, b *adapter.Adapter) ([]*PairDiff, error) {
	for _, ad := range []*adapter.Adapter{a, b} {
		if err := ad.Complete(); err != nil {
			return nil, err
		}
	}
	type both struct{ a, b *adapter.Pair }
	pairs := map[string]*both{}
	names := func(p *adapter.Pair) string {
		name := p.Target
		if name == "" {
			name = p.Module
		}
		if p.Expert >= 0 {
			name = fmt.Sprintf("%s, expert %d", name, p.Expert)
		}
		if p.Row > 0 {
			name = fmt.Sprintf("%s, from row %d", name, p.Row)
		}
		return name
	}
	for i, ad := range []*adapter.Adapter{a, b} {
		for _, p := range ad.Pairs {
			n := names(p)
			if pairs[n] == nil {
				pairs[n] = &both{}
			}
			if i == 0 {
				pairs[n].a = p
			} else {
				pairs[n].b = p
			}
		}
	}
	var list []*PairDiff
	for _, n := range slices.Sorted(maps.Keys(pairs)) {
		d, err := diffPair(n, pairs[n].a, pairs[n].b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		list = append(list, d)
	}
	return append(list, diffRows(a.Tokens, b.Tokens)...), nil
}

// diffRows compares rows of tokens, by matrix, where both have the same tokens.
func diffRows(a, b *adapter.Tokens) (list []*PairDiff) {
	rows := func(t *adapter.Tokens) map[string]*adapter.TokenRows {
		all := map[string]*adapter.TokenRows{}
		if t != nil {
			for i := range t.Rows {
				r := &t.Rows[i]
				all[cmp.Or(r.Target, r.Module)] = r
			}
		}
		return all
	}
	x, y := rows(a), rows(b)
	names := slices.Collect(maps.Keys(x))
	for n := range y {
		if x[n] == nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		d := &PairDiff{Name: n + ", rows of tokens", Status: "other tokens"}
		p, q := x[n], y[n]
		if p != nil {
			d.NormA = norm(wide(p.Rows.Data))
		}
		if q != nil {
			d.NormB = norm(wide(q.Rows.Data))
		}
		switch {
		case q == nil:
			d.Status, d.Norm = "only in A", d.NormA
		case p == nil:
			d.Status, d.Norm = "only in B", d.NormB
		case slices.Equal(p.IDs, q.IDs) && len(p.Rows.Data) == len(q.Rows.Data):
			u, v := wide(p.Rows.Data), wide(q.Rows.Data)
			var dot float64
			for i := range u {
				dot += float64(u[i] * v[i])
				u[i] -= v[i]
			}
			if d.NormA > 0 && d.NormB > 0 {
				d.Cosine = max(-1, min(1, dot/(d.NormA*d.NormB)))
			}
			d.Norm = norm(u)
			if d.Status = "differs"; d.Norm <= sameChange*max(d.NormA, d.NormB) {
				d.Status = "same"
			}
		}
		list = append(list, d)
	}
	return list
}

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func diffPair(name string, a, b *adapter.Pair) (*PairDiff, error) {
	d := &PairDiff{Name: name}
	var err error
	if a != nil {
		d.RankA = a.Rank
		if d.NormA, _, err = normOf(a); err != nil {
			return nil, err
		}
	}
	if b != nil {
		d.RankB = b.Rank
		if d.NormB, _, err = normOf(b); err != nil {
			return nil, err
		}
	}
	switch {
	case b == nil:
		d.Status, d.Norm = "only in A", d.NormA
		return d, nil
	case a == nil:
		d.Status, d.Norm = "only in B", d.NormB
		return d, nil
	case a.B.Rows != b.B.Rows || a.A.Cols != b.A.Cols:
		return nil, format.Usagef("it is %d x %d in one and %d x %d in the other: adapters of different models", a.B.Rows, a.A.Cols, b.B.Rows, b.A.Cols)
	}
	if d.Norm, d.Effective, err = normOf(minus(a, b)); err != nil {
		return nil, err
	}
	if d.NormA > 0 && d.NormB > 0 {
		d.Cosine = (float64(d.NormA*d.NormA) + float64(d.NormB*d.NormB) - float64(d.Norm*d.Norm)) / (2 * d.NormA * d.NormB)
		d.Cosine = max(-1, min(1, d.Cosine))
	}
	d.Status = "differs"
	if d.Norm <= sameChange*max(d.NormA, d.NormB) && slices.EqualFunc(a.Magnitude, b.Magnitude, near) && a.Columns == b.Columns {
		d.Status = "same"
	}
	return d, nil
}

func near(x, y float32) bool {
	return math.Abs(float64(x)-float64(y)) <= sameChange*max(math.Abs(float64(x)), math.Abs(float64(y)))
}

// minus is a's change without b's, as a pair of both's factors.
func minus(a, b *adapter.Pair) *adapter.Pair {
	r := a.Rank + b.Rank
	x := adapter.Matrix{Rows: r, Cols: a.A.Cols, Data: append(append(make([]float32, 0, r*a.A.Cols), a.A.Data...), b.A.Data...)}
	y := adapter.Matrix{Rows: a.B.Rows, Cols: r, Data: make([]float32, a.B.Rows*r)}
	for i := range y.Rows {
		row := y.Row(i)
		for k, v := range a.B.Row(i) {
			row[k] = v * a.Scale
		}
		for k, v := range b.B.Row(i) {
			row[a.Rank+k] = -v * b.Scale
		}
	}
	p := &adapter.Pair{Expert: -1}
	p.SetFactors(x, y, 1)
	return p
}

// normOf is the Frobenius norm of a pair's change, and how many directions it uses.
func normOf(p *adapter.Pair) (norm, effective float64, err error) {
	s, err := PairSpectrum(p)
	if err != nil {
		return 0, 0, err
	}
	norm, effective = EffectiveRank(s)
	return norm, effective, nil
}

func sumOfSquares(x []float64) (sum float64) {
	for _, v := range x {
		sum += float64(v * v)
	}
	return sum
}

func norm(x []float64) float64 { return math.Sqrt(sumOfSquares(x)) }

// EffectiveRank gives, of singular values, the root of the sum of squares, and e to the
// entropy of their shares of that sum (Roy and Vetterli 2007, on squares): how many
// directions a matrix really uses.
func EffectiveRank(s []float64) (norm, effective float64) {
	total := sumOfSquares(s)
	if total == 0 {
		return 0, 0
	}
	var h float64
	for _, v := range s {
		if p := float64(v*v) / total; p > 0 {
			h -= float64(p * fmath.Log(p))
		}
	}
	return math.Sqrt(total), math.Exp(h)
}

// Explained says how much of what two models differ by an adapter accounts for.
type Explained struct {
	Name  string  `json:"tensor"`
	Norm  float64 `json:"norm"`      // of the difference
	Left  float64 `json:"norm_left"` // of what is left of it when the adapter is taken off
	Share float64 `json:"explained"` // 1 - (Left/Norm)²; below 0 where the adapter is another one
}

// ExplainedBy compares the differences of a base and a tuned model, and of the base with
// the adapter in it and the tuned model: whole is without, rest with it.
func ExplainedBy(whole, rest *ModelDiff) (list []*Explained, total Explained) {
	left := map[string]*TensorDiff{}
	for _, t := range rest.Tensors {
		left[t.Name] = t
	}
	var all, remain float64
	for _, t := range whole.Tensors {
		l := left[t.Name]
		if l == nil || t.squares == 0 && l.squares == 0 {
			continue
		}
		all += t.squares
		remain += l.squares
		e := &Explained{Name: t.Name, Norm: math.Sqrt(t.squares), Left: math.Sqrt(l.squares)}
		if t.squares > 0 {
			e.Share = 1 - l.squares/t.squares
		}
		list = append(list, e)
	}
	total = Explained{Name: "all", Norm: math.Sqrt(all), Left: math.Sqrt(remain)}
	if all > 0 {
		total.Share = 1 - remain/all
	}
	return list, total
}

// Spectrum fills in how many directions the difference of each matrix of two models uses,
// by its leading singular values, rank of them, and how much of it these hold. a and b are
// the models that d compares; each matrix that differs is read six times.
func (d *ModelDiff) Spectrum(ctx context.Context, a, b *arch.Model, rank, threads int) error {
	pool := kernel.NewPool(threads)
	defer pool.Close()
	a, err := asWeights(a)
	if err != nil {
		return err
	}
	if b, err = asWeights(b); err != nil {
		return err
	}
	for _, t := range d.Tensors {
		if t.Status != "differs" || len(t.ShapeA) != 2 {
			continue
		}
		x, y := a.View(t.Name), b.View(t.Name)
		l, norm, err := TruncatedSVD(ctx, pool, Difference{y.Rows, x.Rows}, Cut{Rank: rank}, 0)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		release(x)
		release(y)
		s := l.Singular[:min(rank, len(l.Singular))]
		held, effective := EffectiveRank(s)
		t.Spectrum = &Spectrum{Rank: len(s), Held: min(held*held/(norm*norm), 1), Effective: effective}
	}
	return nil
}

// Spectrum is what the leading singular values of a difference say.
type Spectrum struct {
	Rank      int     `json:"values"`         // how many were found
	Held      float64 `json:"held"`           // share of the squared norm that they hold
	Effective float64 `json:"effective_rank"` // of what they hold, see [EffectiveRank]
}
