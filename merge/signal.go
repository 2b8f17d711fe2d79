package merge

import "math"

// edge is how far above the largest singular value of noise a value must stand to count as
// signal: the edge fluctuates, and quantization noise is not quite white.
const edge = 1.1

// signalRank counts the singular values of an m x n matrix that stand out of noise. s are
// the leading ones, descending, of a matrix of Frobenius norm f. White noise of variance v
// has its largest at √v (√m + √n) (Marchenko and Pastur 1967; Bai and Yin 1988); v is taken
// from what is left without the values that stand out.
func signalRank(s []float64, f float64, m, n int) int {
	left := f * f
	for j, x := range s {
		rest := float64(m-j) * float64(n-j)
		if rest <= 0 {
			return j
		}
		// The value itself belongs to what is left: where nothing else is, it is all signal.
		if v := (left - float64(x*x)) / rest; x <= edge*math.Sqrt(max(v, 0))*(math.Sqrt(float64(m-j))+math.Sqrt(float64(n-j))) {
			return j
		}
		left -= float64(x * x)
		if left <= 1e-12*f*f {
			return j + 1
		}
	}
	return len(s)
}

// shareOut spreads a budget of parameters over matrices: the singular values that hold most
// for the parameters they cost come first, each matrix' in their order. costs are rows +
// columns. It gives the rank of each matrix.
func shareOut(spectra [][]float64, costs []int64, budget int64) []int {
	ranks := make([]int, len(spectra))
	full := make([]bool, len(spectra))
	for {
		best, worth := -1, 0.0
		for i, s := range spectra {
			if full[i] || ranks[i] >= len(s) {
				continue
			}
			if costs[i] > budget {
				full[i] = true
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
