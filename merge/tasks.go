package merge

import (
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/rng"
)

// tasks combines tensors of one shape (task tensors: what fine-tuning changed) by an
// arithmetic of the field: each is pruned, then they are added with weights, all of
// them or, where they disagree about the sign, those of the majority. The formulas
// are those of PEFT's add_weighted_adapter, whose sign election, unlike that of
// whole-model merges, does not see the weights (Yadav et al. 2023, Yu et al. 2024).
type tasks struct {
	prune pruner // nil: nothing is pruned
	elect bool   // sign election and a mean over those that agree
}

// pruner reads what it must know of a tensor of n values, and returns what sets those of a
// block to zero that are not kept and rescales the others, in place; nil keeps all.
// mask tells random ones what to keep.
type pruner func(v values, n int, density float64, mask func(i int) bool) (prune, error)

type prune func(x []float32, at int)

// pruneSmall keeps the int(density*n) largest magnitudes, of equal ones at the edge the
// first.
func pruneSmall(v values, n int, density float64, _ func(int) bool) (prune, error) {
	return keepFirstLargest(v, n, int(density*float64(n)))
}

func keepFirstLargest(v values, n, k int) (prune, error) {
	switch {
	case k >= n:
		return nil, nil
	case k <= 0:
		return func(x []float32, _ int) { clear(x) }, nil
	}
	s, err := newSpan(v, int64(n), int64(n-k), int64(n))
	if err != nil {
		return nil, err
	}
	return func(x []float32, at int) {
		for i, a := range x {
			if !s.has(magnitude(a), at+i) {
				x[i] = 0
			}
		}
	}, nil
}

// pruneRandom keeps what mask keeps and divides it by the density, so that the
// expected value stays.
func pruneRandom(_ values, _ int, density float64, mask func(int) bool) (prune, error) {
	d := float32(density)
	return func(x []float32, at int) {
		for i := range x {
			if mask(at + i) {
				x[i] /= d
			} else {
				x[i] = 0
			}
		}
	}, nil
}

// pruners makes ready what prunes each of several tensors of n values.
func (t tasks) pruners(vs []values, n int, o *CombineOptions, masks []func(int) bool) ([]prune, error) {
	out := make([]prune, len(vs))
	if t.prune == nil || o.density() >= 1 {
		return out, nil
	}
	for k, v := range vs {
		var err error
		if out[k], err = t.prune(v, n, o.density(), masks[k]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// combine combines blocks xs of tensors, which it prunes in place, into dst.
func (t tasks) combine(dst []float32, xs [][]float32, at int, ps []prune, weights []float32, frequency bool) {
	for k, p := range ps {
		if p != nil {
			p(xs[k], at)
		}
	}
	for i := range dst {
		if t.elect {
			dst[i] = electedMean(xs, weights, i, frequency)
			continue
		}
		var sum float32
		for k, x := range xs {
			sum += float32(weights[k] * x[i])
		}
		dst[i] = sum
	}
}

// combineAll combines tensors that are there as a whole, and prunes them in place.
func (t tasks) combineAll(xs [][]float32, weights []float32, o *CombineOptions, masks []func(int) bool) ([]float32, error) {
	vs := make([]values, len(xs))
	for k, x := range xs {
		vs[k] = func(f func([]float32, int)) error { f(x, 0); return nil }
	}
	ps, err := t.pruners(vs, len(xs[0]), o, masks)
	if err != nil {
		return nil, err
	}
	out := make([]float32, len(xs[0]))
	t.combine(out, xs, 0, ps, weights, o.frequency())
	return out, nil
}

// electedMean is the mean of those of the weighted i-th values whose sign is the
// majority's: that of the sum or, by frequency, of most of them. A tie is +.
func electedMean(xs [][]float32, weights []float32, i int, frequency bool) float32 {
	var vote float32
	for _, x := range xs {
		if frequency {
			vote += sign(x[i])
		} else {
			vote += x[i]
		}
	}
	majority := float32(1)
	if !(vote >= 0) {
		majority = -1
	}
	var sum, n float32
	for k, x := range xs {
		if sign(x[i]) == majority {
			sum += float32(weights[k] * x[i])
			n++
		}
	}
	return sum / max(n, 1)
}

func sign(v float32) float32 {
	switch {
	case v > 0:
		return 1
	case v < 0:
		return -1
	}
	return 0
}

// CombineOptions says how adapters are combined. The zero value is the exact sum
// of method "cat".
type CombineOptions struct {
	Method string // "" means "cat"
	// Density is the share of values that the pruning methods keep; 0 means 1, all.
	Density float64
	// MajoritySign is "total" (the default) or "frequency".
	MajoritySign string
	// Cut is what the forms through singular values keep. Without a rank the methods
	// that end in _svd keep the largest rank among the adapters, and svd what holds
	// the sum exactly.
	Cut Cut
	// Clamp, between 0 and 1, limits the values of the factors of singular forms to
	// the quantile of their joint values; 0: no limit.
	Clamp float64
	// TrueDelta does the algebra of a method on the changes themselves, and keeps
	// them exactly unless Cut says otherwise.
	TrueDelta bool
	Seed      uint64 // of random masks
	Threads   int    // 0 means 1; the result does not depend on it

	// mask, if not nil, replaces the random masks: part is "A", "B" or "delta".
	mask func(matrix, part string, adapter int) func(i int) bool
}

func (o *CombineOptions) density() float64 {
	if o.Density == 0 {
		return 1
	}
	return o.Density
}

func (o *CombineOptions) frequency() bool { return o.MajoritySign == "frequency" }

func (o *CombineOptions) check() error {
	if o.Density < 0 || o.Density > 1 || math.IsNaN(o.Density) {
		return format.Usagef("density %v is not between 0 and 1", o.Density)
	}
	if o.Clamp < 0 || o.Clamp > 1 || math.IsNaN(o.Clamp) {
		return format.Usagef("the clamp %v is no quantile between 0 and 1", o.Clamp)
	}
	switch o.MajoritySign {
	case "", "total", "frequency":
	default:
		return format.Usagef("the majority sign is elected by total or frequency, not %q", o.MajoritySign)
	}
	if err := o.Cut.Check(); err != nil {
		return format.Usagef("%v", err)
	}
	return nil
}

// masks are the masks of a part of a matrix, one for each adapter.
func (o *CombineOptions) masks(matrix, part string, n int) []func(int) bool {
	out := make([]func(int) bool, n)
	for k := range out {
		if o.mask != nil {
			out[k] = o.mask(matrix, part, k)
			continue
		}
		dice := rng.New(o.Seed, "dare", matrix, part).At(uint64(k))
		out[k] = func(i int) bool { return dice.Float64(uint64(i)) < o.density() }
	}
	return out
}
