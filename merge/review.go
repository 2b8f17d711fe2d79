package merge

import (
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
)

// Review is what stands out in an adapter, read as one would read a stranger's change.
type Review struct {
	RankPaid int     `json:"rank_paid"` // of all matrices together
	RankUsed float64 `json:"rank_used"` // their effective ranks together, see [EffectiveRank]
	// Needed is the smallest rank for every matrix that holds 99 % of its squared norm, together.
	Needed     int      `json:"rank_for_99_percent"`
	Dead       []string `json:"dead,omitempty"`       // matrices that change nothing
	Duplicates []string `json:"duplicates,omitempty"` // "b is a": the same factors twice
	Outliers   []string `json:"outliers,omitempty"`   // far from the others of their kind in other layers
	Vectors    []string `json:"vectors,omitempty"`    // norms and biases that it changes
	DoRA       int      `json:"dora,omitempty"`       // matrices whose norms it sets, too
	// Largest is the matrix whose change is largest against its weights, where the base is given.
	Largest      string  `json:"largest,omitempty"`
	LargestRatio float64 `json:"largest_ratio,omitempty"` // of Frobenius norms
	// Ratios are those of all pairs, in their order; nil without a base.
	Ratios []float64 `json:"-"`
}

// far is how many times as large or as small as the median of its kind a change must be
// to stand out, and far over the usual spread, in median deviations of its logarithm.
const (
	farRatio  = 3
	farSpread = 5
)

var anyLayer = regexp.MustCompile(`[._]\d+[._]`)

// ReviewAdapter reads an adapter. base may be nil; else the adapter is resolved against it,
// and each changed matrix is read once.
func ReviewAdapter(a *adapter.Adapter, base *arch.Model) (*Review, error) {
	r := &Review{}
	type member struct {
		name string
		log  float64
	}
	kinds := map[string][]member{}
	seen := map[string]string{}
	for _, p := range a.Pairs {
		name := nameOf(p)
		if p.Expert >= 0 {
			name = fmt.Sprintf("%s, expert %d", name, p.Expert)
		}
		s, err := PairSpectrum(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		norm, effective := EffectiveRank(s)
		r.RankPaid += p.Rank
		r.RankUsed += effective
		r.Needed += neededRank(s, norm, 0.99)
		if p.Vector {
			r.Vectors = append(r.Vectors, name)
		}
		weight := 0.0
		if p.Magnitude != nil {
			r.DoRA++
		}
		if base != nil {
			if norm, weight, err = changeNorms(p, norm, base); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			ratio := 0.0
			if weight > 0 {
				ratio = norm / weight
			}
			r.Ratios = append(r.Ratios, ratio)
		}
		if norm == 0 {
			if p.Magnitude == nil || base != nil { // else the magnitudes may be others than the base's norms
				r.Dead = append(r.Dead, name)
			}
			continue
		}
		key := fmt.Sprint(p.Scale, p.A, p.B, p.Magnitude)
		if other, ok := seen[key]; ok {
			r.Duplicates = append(r.Duplicates, name+" is "+other)
		}
		seen[key] = name
		kind := anyLayer.ReplaceAllString(name, ".*.")
		kinds[kind] = append(kinds[kind], member{name, math.Log(norm)})
		if weight > 0 && norm > r.LargestRatio*weight {
			r.Largest, r.LargestRatio = name, norm/weight
		}
	}
	for _, list := range kinds {
		if len(list) < 4 {
			continue // too few to say what is usual
		}
		logs := make([]float64, len(list))
		for i, m := range list {
			logs[i] = m.log
		}
		middle := median(logs)
		for i, x := range logs {
			logs[i] = math.Abs(x - middle)
		}
		spread := median(logs)
		for _, m := range list {
			if d := math.Abs(m.log - middle); d > math.Log(farRatio) && d > farSpread*spread {
				r.Outliers = append(r.Outliers, fmt.Sprintf("%s: %.3g times the median of its kind", m.name, math.Exp(m.log-middle)))
			}
		}
	}
	slices.Sort(r.Outliers)
	return r, nil
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// neededRank is how many singular values hold a share of the squared norm.
func neededRank(s []float64, norm, share float64) int {
	var sum float64
	for i, x := range s {
		if sum >= share*norm*norm {
			return i
		}
		sum += float64(x * x)
	}
	return len(s)
}

// changeNorms are the Frobenius norms of what a pair does to the weights it changes, and of these. norm
// is that of its product. DoRA does more than add the product: rows, or columns, get norms of their own, so
// that the change is computed by rows. The adapter is resolved against base.
func changeNorms(p *adapter.Pair, norm float64, base *arch.Model) (change, weight float64, err error) {
	v := base.View(p.Target)
	if v == nil {
		return 0, 0, fmt.Errorf("the base has no tensor %s", p.Target)
	}
	defer release(v)
	f, err := factorsOf(base, v)
	if err != nil {
		return 0, 0, err
	}
	stored := f.rows(v.Rows)
	t := termOf(p)
	t.Row = int64(p.Row)
	if p.Expert >= 0 {
		t.Row = int64(p.Expert) * int64(p.B.Rows)
	}
	if p.Magnitude == nil {
		weight, err := squares(stored, t.Row, int64(p.B.Rows))
		return norm, math.Sqrt(weight), err
	}
	if reshaped(v) {
		return 0, 0, format.Unsupported("DoRA of tensor %s, whose rows in the file are not those of its matrix", p.Target)
	}
	if t.Columns {
		if t.norms, err = columnNorms(base, v, t); err != nil {
			return 0, 0, err
		}
	}
	d, err := NewDelta(t.Row+int64(p.B.Rows), int64(p.A.Cols), []Term{t})
	if err != nil {
		return 0, 0, err
	}
	n := max(1, (1<<18)/p.A.Cols)
	w, c := make([]float32, n*p.A.Cols), make([]float32, n*p.A.Cols)
	for row := 0; row < p.B.Rows; row += n {
		w, c := w[:min(n, p.B.Rows-row)*p.A.Cols], c[:min(n, p.B.Rows-row)*p.A.Cols]
		if err := stored.ReadRows(w, t.Row+int64(row)); err != nil {
			return 0, 0, err
		}
		d.Change(c, w, t.Row+int64(row))
		for i, x := range c {
			change += float64(float64(x) * float64(x))
			weight += float64(float64(w[i]) * float64(w[i]))
		}
	}
	return math.Sqrt(change), math.Sqrt(weight), nil
}
