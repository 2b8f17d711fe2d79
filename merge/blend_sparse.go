package merge

import (
	"math"
	"sort"

	"github.com/graft-lora/graft/format"
)

// difference is a visit to the differences of one model from the base.
func (j *blendJob) difference(model int, f func(row int64, d []float32)) error {
	one := *j
	one.models = j.models[model : model+1]
	return one.pass(func(row int64, x [][]float32, base []float32) {
		one.subtractBase(x, base)
		f(row, x[0])
	})
}

// magnitudes finds the magnitudes at ranks of a model's difference.
func (j *blendJob) magnitudes(model int, ranks ...int64) ([]found, error) {
	s := newOrderStats(ranks...)
	if err := j.difference(model, func(_ int64, d []float32) { s.first(d) }); err != nil {
		return nil, err
	}
	s.endFirst()
	if err := j.difference(model, func(_ int64, d []float32) { s.second(d) }); err != nil {
		return nil, err
	}
	return s.end(), nil
}

// keepLargest keeps the max(1, int(density*n)) largest, of equal ones at the edge
// the first in the layout of the blend.
func keepLargest(j *blendJob, model int, density float64) (blendMask, error) {
	n := j.rows * j.cols
	k := max(1, int64(density*float64(n)))
	return j.keepRange(model, n-k, n)
}

// keepMiddle drops the int(gamma*n) largest, and of the smallest as many as leave
// int(density*n).
func keepMiddle(j *blendJob, model int, density float64) (blendMask, error) {
	gamma, err := j.models[model].param("gamma", 0.01)
	if err != nil {
		return nil, err
	}
	n := j.rows * j.cols
	keep := int64(density * float64(n))
	from := max(0, n-keep-int64(gamma*float64(n)))
	return j.keepRange(model, from, min(from+keep, n))
}

// keepRange keeps the elements whose ranks by magnitude are from to (excluded) to;
// equal ones rank from the last to the first.
func (j *blendJob) keepRange(model int, from, to int64) (blendMask, error) {
	if from >= to {
		return func([]bool, []float32, int64) {}, nil
	}
	at, err := j.magnitudes(model, from, to-1)
	if err != nil {
		return nil, err
	}
	lo, hi := at[0].bits, at[1].bits
	// Of the elements of magnitude lo the first ones are inside, of those of magnitude
	// hi the last ones.
	edge := [2]int64{math.MaxInt64, -1}
	if at[0].rest > 0 || at[1].rest+1 < at[1].equal {
		edge, err = j.edges(model, lo, hi, at[0].equal-at[0].rest, at[1].equal-at[1].rest-1)
		if err != nil {
			return nil, err
		}
	}
	return func(keep []bool, d []float32, row int64) {
		pos := row * j.cols
		for i, v := range d {
			m := magnitude(v)
			in := m > lo && m < hi
			if m == lo {
				in = pos+int64(i) <= edge[0] && (lo != hi || pos+int64(i) > edge[1])
			} else if m == hi {
				in = pos+int64(i) > edge[1]
			}
			keep[i] = in
		}
	}, nil
}

// edges gives the positions of the n-th element of magnitude lo and of the m-th of
// magnitude hi, counted from 1; -1 for n = 0.
func (j *blendJob) edges(model int, lo, hi uint32, n, m int64) (at [2]int64, err error) {
	at = [2]int64{-1, -1}
	var seenLo, seenHi int64
	err = j.difference(model, func(row int64, d []float32) {
		pos := row * j.cols
		for i, v := range d {
			b := magnitude(v)
			if b == lo {
				if seenLo++; seenLo == n {
					at[0] = pos + int64(i)
				}
			}
			if b == hi {
				if seenHi++; seenHi == m {
					at[1] = pos + int64(i)
				}
			}
		}
	})
	return at, err
}

// keepRandom keeps each element with probability density.
func keepRandom(j *blendJob, model int, density float64) (blendMask, error) {
	dice := j.dice(model)
	return func(keep []bool, _ []float32, row int64) {
		for r := int64(0); r*j.cols < int64(len(keep)); r++ {
			at := j.element(row + r)
			for c := range j.cols {
				keep[r*j.cols+c] = dice.Float64(uint64(at+c)) < density
			}
		}
	}, nil
}

// keepLikely keeps elements with a probability that grows with their rank in their
// row, from density - epsilon to density + epsilon.
func keepLikely(j *blendJob, model int, density float64) (blendMask, error) {
	epsilon, err := j.models[model].param("epsilon", 0.15)
	if err != nil {
		return nil, err
	}
	if density <= 0 {
		return func([]bool, []float32, int64) {}, nil
	}
	if density-epsilon <= 0 || density+epsilon >= 1 {
		return nil, format.Usagef("density %v with epsilon %v gives probabilities that are not between 0 and 1", density, epsilon)
	}
	dice := j.dice(model)
	n := int(j.cols)
	return func(keep []bool, d []float32, row int64) {
		rank := make([]int, n)
		for r := 0; r*n < len(d); r++ {
			line := d[r*n : (r+1)*n]
			for i := range rank {
				rank[i] = i
			}
			sort.SliceStable(rank, func(a, b int) bool { return magnitude(line[rank[a]]) < magnitude(line[rank[b]]) })
			at := j.element(row + int64(r))
			for place, i := range rank {
				p := density - epsilon + 2*epsilon*float64(place)/float64(max(n-1, 1))
				keep[r*n+i] = dice.Float64(uint64(at+int64(i))) < p
			}
		}
	}, nil
}
