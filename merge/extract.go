package merge

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas64"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

// Difference is what one matrix has more than another, row by row, in float32.
type Difference struct{ Tuned, Base format.RowReader }

// Dims returns the size of the matrices, which the caller has checked to be equal.
func (d Difference) Dims() (rows, cols int64) { return d.Tuned.Dims() }

// ReadRows reads rows of the difference.
func (d Difference) ReadRows(dst []float32, row int64) error {
	if err := d.Tuned.ReadRows(dst, row); err != nil {
		return err
	}
	base := make([]float32, len(dst))
	if err := d.Base.ReadRows(base, row); err != nil {
		return err
	}
	for i, b := range base {
		dst[i] -= b
	}
	return nil
}

const (
	oversample  = 8 // more directions than asked for, so that the last of them are good
	powerPasses = 2 // times the spectrum's gaps are cubed
	blockFloats = 1 << 20
)

// TruncatedSVD returns the leading singular part of m, at most cut.Rank (which must be
// positive) values, by a randomized range finder with power iterations and QR
// between them (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1). m is
// read row block by row block, 2*powerPasses+2 times; memory is O((rows+cols) *
// (rank+8)) besides. frobenius is the norm of m, from the same reads.
// The result depends on seed, but not on threads.
func TruncatedSVD(ctx context.Context, pool *kernel.Pool, m format.RowReader, cut Cut, seed uint64) (l LowRank, frobenius float64, err error) {
	l, s, err := truncatedSVD(ctx, pool, m, cut, seed)
	if err != nil {
		return l, 0, err
	}
	return l, s.norm(), nil
}

// truncatedSVD is TruncatedSVD with the sketch, which has the norms of rows and columns.
func truncatedSVD(ctx context.Context, pool *kernel.Pool, m format.RowReader, cut Cut, seed uint64) (l LowRank, s *sketch, err error) {
	rows64, cols64 := m.Dims()
	rows, cols := int(rows64), int(cols64)
	k := min(cut.Rank+oversample, rows, cols)
	if cut.Rank <= 0 || k <= 0 {
		return LowRank{}, nil, fmt.Errorf("rank %d of a %dx%d matrix", cut.Rank, rows, cols)
	}
	s = &sketch{ctx: ctx, pool: pool, m: m, rows: rows, cols: cols, rowSquares: make([]float64, rows), colSquares: make([]float64, cols)}

	// omega: cols x k, uniform in [-1, 1): any full-dimensional distribution does.
	omega := kernel.NewMat(cols, k)
	dice := rng.New(seed, "svd")
	for i := range omega.Data {
		omega.Data[i] = 2*dice.Uniform(uint64(i)) - 1
	}
	for range powerPasses {
		y, err := s.times(omega)
		if err != nil {
			return LowRank{}, nil, err
		}
		q, _ := thinQR(toDense(y, false))
		tidy(len(y.Data))
		z, err := s.transposeTimes(toMat(q))
		if err != nil {
			return LowRank{}, nil, err
		}
		p, _ := thinQR(toDense(z, false))
		omega = toMat(p)
		tidy(len(z.Data))
	}
	y, err := s.times(omega)
	if err != nil {
		return LowRank{}, nil, err
	}
	q, _ := thinQR(toDense(y, false))
	tidy(len(y.Data))
	// m ≈ q (mᵀ q)ᵀ; mᵀ q = p r, so m ≈ q rᵀ pᵀ.
	z, err := s.transposeTimes(toMat(q))
	if err != nil {
		return LowRank{}, nil, err
	}
	p, r := thinQR(toDense(z, false))
	tidy(len(z.Data))
	core := blas64.General{Rows: r.Cols, Cols: r.Rows, Stride: r.Rows, Data: make([]float64, r.Rows*r.Cols)}
	for i := range r.Rows {
		for j := range r.Cols {
			core.Data[j*core.Stride+i] = r.Data[i*r.Stride+j]
		}
	}
	l, err = fromCore(q, core, p, cut)
	return l, s, err
}

// sketch multiplies a matrix that can only be read by rows.
type sketch struct {
	ctx        context.Context
	pool       *kernel.Pool
	m          format.RowReader
	rows, cols int
	// Sums of squares, of the first whole read.
	rowSquares, colSquares []float64
	counted                bool
}

// norm is the Frobenius norm of the matrix.
func (s *sketch) norm() float64 {
	var sum float64
	for _, x := range s.rowSquares {
		sum += x
	}
	return math.Sqrt(sum)
}

// blocks calls f with consecutive row blocks of the matrix.
func (s *sketch) blocks(f func(block kernel.Mat, row int)) error {
	n := max(blockFloats/s.cols, 1)
	buf := make([]float32, n*s.cols)
	for row := 0; row < s.rows; row += n {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		k := min(n, s.rows-row)
		b := buf[:k*s.cols]
		if err := s.m.ReadRows(b, int64(row)); err != nil {
			return err
		}
		if !s.counted {
			for i := range k {
				for j, v := range b[i*s.cols : (i+1)*s.cols] {
					x := float64(float64(v) * float64(v))
					s.rowSquares[row+i] += x
					s.colSquares[j] += x
				}
			}
		}
		f(kernel.Mat{Data: b, Rows: k, Cols: s.cols, Stride: s.cols}, row)
	}
	s.counted = true
	return nil
}

func (s *sketch) times(x kernel.Mat) (kernel.Mat, error) {
	y := kernel.NewMat(s.rows, x.Cols)
	err := s.blocks(func(b kernel.Mat, row int) {
		kernel.GemmNN(s.pool, y.Sub(row, row+b.Rows, 0, x.Cols), b, x, false)
	})
	return y, err
}

func (s *sketch) transposeTimes(x kernel.Mat) (kernel.Mat, error) {
	y := kernel.NewMat(s.cols, x.Cols)
	err := s.blocks(func(b kernel.Mat, row int) {
		kernel.GemmTN(s.pool, y, b, x.Sub(row, row+b.Rows, 0, x.Cols), true)
	})
	return y, err
}

func toMat(d blas64.General) kernel.Mat {
	m := kernel.NewMat(d.Rows, d.Cols)
	for i := range d.Rows {
		for j := range d.Cols {
			m.Data[i*d.Cols+j] = float32(d.Data[i*d.Stride+j])
		}
	}
	return m
}
