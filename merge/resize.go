package merge

import (
	"fmt"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
)

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
	if err := a.Complete(); err != nil {
		return nil, nil, err
	}
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
