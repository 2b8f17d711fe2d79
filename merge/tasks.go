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

// pruner sets values of x to zero and rescales the others, in place. mask tells
// random ones what to keep.
type pruner func(x []float32, density float64, mask func(i int) bool)

// pruneSmall keeps the int(density*n) largest magnitudes.
func pruneSmall(x []float32, density float64, _ func(int) bool) {
	for i, keep := range largest(x, int(density*float64(len(x)))) {
		if !keep {
			x[i] = 0
		}
	}
}

// pruneRandom keeps what mask keeps and divides it by the density, so that the
// expected value stays.
func pruneRandom(x []float32, density float64, mask func(int) bool) {
	d := float32(density)
	for i := range x {
		if mask(i) {
			x[i] /= d
		} else {
			x[i] = 0
		}
	}
}

// combine returns the combination of xs, which it prunes in place.
func (t tasks) combine(xs [][]float32, weights []float32, o *CombineOptions, masks []func(int) bool) []float32 {
	if t.prune != nil && o.density() < 1 {
		for k, x := range xs {
			t.prune(x, o.density(), masks[k])
		}
	}
	out := make([]float32, len(xs[0]))
	for i := range out {
		if t.elect {
			out[i] = electedMean(xs, weights, i, o.MajoritySign == "frequency")
			continue
		}
		for k, x := range xs {
			out[i] += float32(weights[k] * x[i])
		}
	}
	return out
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

	// mask, if not nil, replaces the random masks: part is "A", "B" or "delta".
	mask func(matrix, part string, adapter int) func(i int) bool
}

func (o *CombineOptions) density() float64 {
	if o.Density == 0 {
		return 1
	}
	return o.Density
}

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
