package merge

import (
	"context"
	"math"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

// edge is how far above the largest singular value of noise a value must stand to count as
// signal: the bound holds up to fluctuations.
const edge = 1.05

// flipEdge is the same beside the largest value of the matrix with other signs, which fluctuates as well.
const flipEdge = 1.1

// signalRank counts the singular values of a matrix that stand out of noise. l holds the leading ones with their
// vectors, s the sums of squares of rows and columns. Two bounds that need no more than these say how
// many do at least and at most. Where they differ, signs decide (Hong, Sheng and Dobriban 2020): noise
// is as large with random signs, of whatever variance each of its elements is, and a direction of the matrix is not. A
// value counts if it is beyond the largest one that what the values before leave has with random signs; the matrix is read six
// times for that.
func signalRank(ctx context.Context, pool *kernel.Pool, m format.RowReader, l LowRank, s *sketch, seed uint64) (int, error) {
	least, most := signalBounds(l, s.rowSquares, s.colSquares)
	for least < most {
		noise, _, err := truncatedSVD(ctx, pool, &flipped{m, l, least, rng.New(seed, "signs")}, Cut{Rank: 1}, seed)
		if err != nil {
			return 0, err
		}
		k := least
		for k < most && l.Singular[k] > flipEdge*noise.Singular[0] {
			k++
		}
		if k == least {
			break
		}
		least = k
	}
	return least, nil
}

// flipped is what the first values of a matrix leave, with random signs.
type flipped struct {
	format.RowReader
	l     LowRank
	first int
	signs rng.Stream
}

func (f *flipped) ReadRows(dst []float32, row int64) error {
	if err := f.RowReader.ReadRows(dst, row); err != nil {
		return err
	}
	_, c := f.Dims()
	cols := int(c)
	rows := len(dst) / cols
	if f.first > 0 {
		held := kernel.NewMat(rows, cols)
		kernel.GemmNN(nil, held, f.l.B.Sub(int(row), int(row)+rows, 0, f.first), f.l.A.Sub(0, f.first, 0, cols), false)
		kernel.Sub(dst, dst, held.Data)
	}
	for i := range dst {
		if f.signs.Uint64(uint64(row)*uint64(cols)+uint64(i))>>63 == 1 {
			dst[i] = -dst[i]
		}
	}
	return nil
}

// signalBounds are how many singular values stand out of noise at least and at most. Independent noise, of whatever
// variance in each element, has no singular value much beyond the largest norm of a row plus the largest of a column
// (Bandeira and van Handel 2016); for white noise that is √v (√m + √n), Marchenko and Pastur's edge. What a matrix is is no
// less than its noise, so a value beyond the norms that the values before it leave stands out. Of noise whose variance
// is all alike, k values leave no less than (m - k)(n - k) / mn of the squares, so that no more than the largest
// k can stand out whose value is beyond what it leaves. Where values leave next to nothing, less
// than the last of them holds, there is no noise to speak of, and they count.
func signalBounds(l LowRank, rows, cols []float64) (least, most int) {
	var total float64
	for _, x := range rows {
		total += x
	}
	r, left := l.A.Rows, total
	for k := range r {
		held := float64(l.Singular[k] * l.Singular[k])
		if left -= held; left <= 1e-6*total && k+1 < min(len(rows), len(cols)) {
			if held > left {
				return k + 1, k + 1
			}
			break // rounding of 16-bit floats, of a change that is large against it
		}
	}
	rows, cols = append([]float64{}, rows...), append([]float64{}, cols...)
	m, n := float64(len(rows)), float64(len(cols))
	norms := func() float64 { return edge * (math.Sqrt(slices.Max(rows)) + math.Sqrt(slices.Max(cols))) }
	for k := range r {
		s := l.Singular[k]
		if least == k && s > norms() {
			least = k + 1
		}
		for i := range rows { // B[i,k]² is s u², so s B[i,k]² is what the direction has in row i
			x := float64(l.B.Data[i*r+k])
			rows[i] = max(rows[i]-float64(s*x*x), 0)
		}
		for j, a := range l.A.Row(k) {
			x := float64(a)
			cols[j] = max(cols[j]-float64(s*x*x), 0)
		}
		taken := float64(k + 1)
		if taken < min(m, n) && s > norms()*math.Sqrt(m*n/((m-taken)*(n-taken))) {
			most = k + 1
		}
	}
	return least, max(least, most)
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
