package merge

import "github.com/graft-lora/graft/format"

// difference is a visit to the differences of one model from the base.
func (j *blendJob) difference(model int) values {
	one := *j
	one.models = j.models[model : model+1]
	return func(f func(d []float32, at int)) error {
		return one.pass(func(row int64, x [][]float32, base []float32) {
			one.subtractBase(x, base)
			f(x[0], int(row*j.cols))
		})
	}
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
	s, err := newSpan(j.difference(model), j.rows*j.cols, from, to)
	if err != nil {
		return nil, err
	}
	return func(keep []bool, d []float32, row int64) {
		at := int(row * j.cols)
		for i, v := range d {
			keep[i] = s.has(magnitude(v), at+i)
		}
	}, nil
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
		order := newMagnitudeOrder(n)
		for r := 0; r*n < len(d); r++ {
			at := j.element(row + int64(r))
			for place, i := range order.of(d[r*n : (r+1)*n]) {
				p := density - epsilon + 2*epsilon*float64(place)/float64(max(n-1, 1))
				keep[r*n+int(i)] = dice.Float64(uint64(at+int64(i))) < p
			}
		}
	}, nil
}
