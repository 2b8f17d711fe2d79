package merge

import (
	"fmt"
	"math"
	"runtime"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/gonum/mat"

	"github.com/graft-lora/graft/internal/kernel"
)

// LowRank is a matrix known as a product, B * A, of singular vectors: the columns
// of B and the rows of A share the square roots of the singular values.
type LowRank struct {
	A        kernel.Mat // rank x cols
	B        kernel.Mat // rows x rank
	Singular []float64  // of the whole matrix, descending, also those cut off
	Kept     float64    // share of the squared Frobenius norm that is kept, 1 if nothing was cut
}

// Cut says how much of a spectrum to keep. With both fields zero everything is kept.
type Cut struct {
	Rank   int     // at most so many singular values; 0: no limit
	Energy float64 // as many as hold this share of the sum of squares; 0: no limit
}

// rank applies the cut to descending singular values. It is at least 1.
func (c Cut) rank(s []float64) int {
	r := len(s)
	if c.Energy > 0 && c.Energy < 1 {
		var total, sum float64
		for _, v := range s {
			total += float64(v * v)
		}
		for r = 0; r < len(s) && sum < c.Energy*total; r++ {
			sum += float64(s[r] * s[r])
		}
	}
	if c.Rank > 0 {
		r = min(r, c.Rank)
	}
	return max(r, 1)
}

// Check says what is wrong with the cut, if anything is.
func (c Cut) Check() error {
	if c.Rank < 0 {
		return fmt.Errorf("rank %d is negative", c.Rank)
	}
	if c.Energy < 0 || c.Energy > 1 || math.IsNaN(c.Energy) {
		return fmt.Errorf("energy %v is not between 0 and 1", c.Energy)
	}
	return nil
}

// Recompress returns the best approximation of scale*b*a (b rows x r, a r x cols)
// that the cut allows, by QR of both factors and an SVD of their small core: the
// product is never formed. Cost O((rows+cols) r² + r³), in float64.
func Recompress(b, a kernel.Mat, scale float64, cut Cut) (LowRank, error) {
	qb, rb := thinQR(toDense(b, false))
	qa, ra := thinQR(toDense(a, true))
	// b*a = qb (rb raᵀ) qaᵀ
	core := blas64.General{Rows: rb.Rows, Cols: ra.Rows, Stride: ra.Rows, Data: make([]float64, rb.Rows*ra.Rows)}
	blas64.Gemm(blas.NoTrans, blas.Trans, scale, rb, ra, 0, core)
	return fromCore(qb, core, qa, cut)
}

// fromCore turns q * core * pᵀ, q and p with orthonormal columns, into singular form.
func fromCore(q, core, p blas64.General, cut Cut) (LowRank, error) {
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(core.Rows, core.Cols, core.Data), mat.SVDThin) {
		return LowRank{}, fmt.Errorf("the singular value decomposition did not converge: are all values finite?")
	}
	s := svd.Values(nil)
	var u, v mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	r := cut.rank(s)
	l := LowRank{Singular: s, A: kernel.NewMat(r, p.Rows), B: kernel.NewMat(q.Rows, r), Kept: kept(s, r)}
	// One side after the other: they are the largest things here.
	left := product(q, columns(u, r))
	for k := range r {
		root := math.Sqrt(s[k])
		for i := range q.Rows {
			l.B.Data[i*r+k] = float32(left.Data[i*left.Stride+k] * root)
		}
	}
	tidy(len(l.B.Data))
	right := product(p, columns(v, r))
	for k := range r {
		root := math.Sqrt(s[k])
		row := l.A.Row(k)
		for j := range row {
			row[j] = float32(right.Data[j*right.Stride+k] * root)
		}
	}
	return l, nil
}

// tidy gives back what is garbage by now before more matrices of n values are made, where
// these are large: the collector would wait until there is as much of it again.
func tidy(n int) {
	if n > 1<<20 {
		runtime.GC()
	}
}

// denseSVD is the singular form of a matrix that is there as a whole, in float64:
// exact, at a cost of O(rows * cols * min(rows, cols)).
func denseSVD(m kernel.Mat, cut Cut) (LowRank, error) {
	if m.Rows >= m.Cols {
		q, r := thinQR(toDense(m, false))
		return fromCore(q, r, identity(m.Cols), cut)
	}
	q, r := thinQR(toDense(m, true)) // m = rᵀ qᵀ
	core := blas64.General{Rows: m.Rows, Cols: m.Rows, Stride: m.Rows, Data: make([]float64, m.Rows*m.Rows)}
	for i := range m.Rows {
		for j := range m.Rows {
			core.Data[i*core.Stride+j] = r.Data[j*r.Stride+i]
		}
	}
	return fromCore(identity(m.Rows), core, q, cut)
}

func identity(n int) blas64.General {
	g := blas64.General{Rows: n, Cols: n, Stride: n, Data: make([]float64, n*n)}
	for i := range n {
		g.Data[i*n+i] = 1
	}
	return g
}

func kept(s []float64, r int) float64 {
	var total, sum float64
	for i, v := range s {
		total += float64(v * v)
		if i < r {
			sum += float64(v * v)
		}
	}
	if total == 0 {
		return 1
	}
	return sum / total
}

// columns are the first n of m, which is shared.
func columns(m mat.Dense, n int) blas64.General {
	g := m.RawMatrix()
	g.Cols = n
	return g
}

func product(a, b blas64.General) blas64.General {
	c := blas64.General{Rows: a.Rows, Cols: b.Cols, Stride: b.Cols, Data: make([]float64, a.Rows*b.Cols)}
	blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, a, b, 0, c)
	return c
}

// toDense copies m, or its transpose, as float64.
func toDense(m kernel.Mat, transpose bool) blas64.General {
	d := blas64.General{Rows: m.Rows, Cols: m.Cols, Stride: m.Cols}
	if transpose {
		d.Rows, d.Cols, d.Stride = m.Cols, m.Rows, m.Rows
	}
	d.Data = make([]float64, d.Rows*d.Cols)
	for i := range m.Rows {
		for j, v := range m.Row(i) {
			if transpose {
				d.Data[j*d.Stride+i] = float64(v)
			} else {
				d.Data[i*d.Stride+j] = float64(v)
			}
		}
	}
	return d
}

// thinQR factors m (n x k) as q (n x p) times r (p x k), p = min(n, k), by
// Householder reflections. m is overwritten.
func thinQR(m blas64.General) (q, r blas64.General) {
	p := min(m.Rows, m.Cols)
	tau := make([]float64, p)
	work := make([]float64, 1)
	lapack64.Geqrf(m, tau, work, -1)
	work = make([]float64, max(int(work[0]), m.Cols, 1))
	lapack64.Geqrf(m, tau, work, len(work))
	r = blas64.General{Rows: p, Cols: m.Cols, Stride: m.Cols, Data: make([]float64, p*m.Cols)}
	for i := range p {
		copy(r.Data[i*r.Stride+i:(i+1)*r.Stride], m.Data[i*m.Stride+i:i*m.Stride+m.Cols])
	}
	q = blas64.General{Rows: m.Rows, Cols: p, Stride: m.Stride, Data: m.Data}
	lapack64.Orgqr(q, tau, work, len(work))
	return q, r
}
