package merge

import (
	"math"
	"slices"
)

// edge is how far above the largest singular value of noise a value must stand to count as
// signal: the bound holds up to fluctuations.
const edge = 1.05

// signalRank counts the singular values of a matrix that stand out of noise. l holds the
// leading ones with their vectors, rows and cols the sums of squares of the matrix' rows
// and columns. Independent noise, of whatever variance in each element, has no singular
// value much beyond the largest norm of a row plus the largest of a column (Bandeira and
// van Handel 2016); for white noise that is √v (√m + √n), Marchenko and Pastur's edge. The
// norms are those of what the values before have left. Where values leave next to nothing, less than the last of
// them holds, there is no noise to speak of, and they count.
//
// A change of a single row or column, which no such bound tells from a noisy one, counts
// only if it stands alone.
func signalRank(l LowRank, rows, cols []float64) int {
	var total float64
	for _, x := range rows {
		total += x
	}
	r, left := l.A.Rows, total
	for k := range r {
		held := float64(l.Singular[k] * l.Singular[k])
		if left -= held; left <= 1e-6*total {
			if held > left {
				return k + 1
			}
			break // rounding of 16-bit floats, of a change that is large against it
		}
	}
	rows, cols = append([]float64{}, rows...), append([]float64{}, cols...)
	for k := range r {
		s := l.Singular[k]
		if s <= edge*(math.Sqrt(slices.Max(rows))+math.Sqrt(slices.Max(cols))) {
			return k
		}
		for i := range rows { // B[i,k]² is s u², so s B[i,k]² is what the direction has in row i
			x := float64(l.B.Data[i*r+k])
			rows[i] = max(rows[i]-float64(s*x*x), 0)
		}
		for j, a := range l.A.Row(k) {
			x := float64(a)
			cols[j] = max(cols[j]-float64(s*x*x), 0)
		}
	}
	return r
}

// shareOut spreads a budget of parameters over matrices: the singular values that hold most
// for the parameters they cost come first, each matrix' in their order. costs are rows +
// columns. It gives the rank of each matrix.
func shareOut(spectra [][]float64, costs []int64, budget int64) []int {
	ranks := make([]int, len(spectra))
	for {
		best, worth := -1, 0.0
		for i, s := range spectra {
			if ranks[i] >= len(s) || costs[i] > budget {
				continue
			}
			if w := s[ranks[i]] * s[ranks[i]] / float64(costs[i]); w > worth {
				best, worth = i, w
			}
		}
		if best < 0 {
			return ranks
		}
		ranks[best]++
		budget -= costs[best]
	}
}
