package merge

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

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
// SVD of their core. ranks, which may be nil, gives some pairs a largest rank of their own: by a regular expression for the
// whole name of a module or tensor, or its end after a dot or an underscore. An expression that means nothing, and two that
// disagree about a pair, are errors.
func Resize(a *adapter.Adapter, cut Cut, ranks map[string]int) (*adapter.Adapter, []Resized, error) {
	patterns, err := rankPatterns(ranks)
	if err != nil {
		return nil, nil, err
	}
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
		t, cut := termOf(p), cut
		if cut.Rank, err = rankOf(patterns, p, cut.Rank); err != nil {
			return nil, nil, err
		}
		l, err := Recompress(t.B, t.A, float64(t.Scale), cut)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", key(p), err)
		}
		out.Pairs = append(out.Pairs, withTerm(p, l.term()))
		report = append(report, Resized{Name: key(p), Rank: [2]int{p.Rank, l.A.Rows}, Kept: l.Kept, Singular: l.Singular})
	}
	for _, q := range patterns {
		if !q.used {
			return nil, nil, format.Usagef("the rank for %q is of no matrix that %s changes", q.text, a.Path)
		}
	}
	return &out, report, nil
}

// rankPattern is a rank for the pairs that an expression matches.
type rankPattern struct {
	text string
	re   *regexp.Regexp
	rank int
	used bool
}

func rankPatterns(ranks map[string]int) (list []*rankPattern, err error) {
	for _, text := range slices.Sorted(maps.Keys(ranks)) {
		re, err := regexp.Compile(`^(?:.*[._])?(?:` + text + `)$`)
		if err != nil || ranks[text] < 1 {
			return nil, format.Usagef("a rank of %d for %q: it wants a positive number, and a word or a regular expression", ranks[text], text)
		}
		list = append(list, &rankPattern{text: text, re: re, rank: ranks[text]})
	}
	return list, nil
}

// rankOf is the rank that patterns give a pair, or else rank.
func rankOf(patterns []*rankPattern, p *adapter.Pair, rank int) (int, error) {
	by := ""
	for _, q := range patterns {
		if !q.re.MatchString(p.Module) && !q.re.MatchString(strings.TrimSuffix(p.Target, ".weight")) {
			continue
		}
		if by != "" && q.rank != rank {
			return 0, format.Usagef("%s has two ranks: of %q and of %q", nameOf(p), by, q.text)
		}
		rank, by, q.used = q.rank, q.text, true
	}
	return rank, nil
}

// KeptOfAll is the share of the squared norm of all pairs together that a resizing kept.
func KeptOfAll(list []Resized) float64 {
	var kept, of float64
	for _, r := range list {
		norm := 0.0
		for _, s := range r.Singular {
			norm += float64(s * s)
		}
		of += norm
		kept += float64(r.Kept * norm)
	}
	if of == 0 {
		return 1
	}
	return kept / of
}

// PairSpectrum gives the singular values of what a pair adds, descending, from its
// factors alone; of a DoRA pair those of its product, without the magnitudes.
func PairSpectrum(p *adapter.Pair) ([]float64, error) {
	t := termOf(p)
	l, err := Recompress(t.B, t.A, float64(t.Scale), Cut{Rank: 1})
	return l.Singular, err
}
