package merge

import (
	"context"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

const (
	// largestFullSVD is the smaller dimension up to which a matrix that is cut to a rank is
	// decomposed as a whole rather than by random directions.
	largestFullSVD = 768
	// largestWhole is the number of elements up to which a matrix is decomposed as a
	// whole: about 40 bytes for each.
	largestWhole = 1 << 22
	// largestSketch is the number of values in the factors beyond which no more
	// directions are looked for.
	largestSketch = 8 << 20
)

// changes are the combined changes of several terms: rows are made when they are read.
type changes struct {
	t     tasks
	c     *combination
	terms []Term
	prune []prune
	tmp   []changeBuffers // of each worker
}

// changeBuffers are the rows of each term's change.
type changeBuffers []kernel.Mat

// changesOf reads what the method must know of the terms' changes as a whole.
func (t tasks) changesOf(c *combination, ts []Term) (*changes, error) {
	m := &changes{t: t, c: c, terms: ts, tmp: make([]changeBuffers, c.pool.Threads())}
	vs := make([]values, len(ts))
	for k := range ts {
		vs[k] = func(f func(x []float32, at int)) error { return m.visit(k, f) }
	}
	rows, cols := m.Dims()
	var err error
	m.prune, err = t.pruners(vs, int(rows*cols), c.CombineOptions, c.masksOf("delta"))
	return m, err
}

// Dims is the size of the matrix.
func (m *changes) Dims() (rows, cols int64) {
	return int64(m.terms[0].B.Rows), int64(m.terms[0].A.Cols)
}

// rowsOf are rows of a term's change, s*B*A.
func rowsOf(pool *kernel.Pool, dst kernel.Mat, t Term, row int) {
	kernel.GemmNN(pool, dst, t.B.Sub(row, row+dst.Rows, 0, t.B.Cols), t.A, false)
	for i := range dst.Data[:dst.Rows*dst.Cols] {
		dst.Data[i] *= t.Scale
	}
}

// visit shows the change of one term, in blocks of rows.
func (m *changes) visit(term int, f func(x []float32, at int)) error {
	rows64, cols64 := m.Dims()
	rows, cols := int(rows64), int(cols64)
	n := min(max(blockFloats/cols, 1), rows)
	buf := kernel.NewMat(n, cols)
	for row := 0; row < rows; row += n {
		if err := m.c.ctx.Err(); err != nil {
			return err
		}
		b := buf.Sub(0, min(n, rows-row), 0, cols)
		rowsOf(m.c.pool, b, m.terms[term], row)
		f(b.Data[:b.Rows*cols], row*cols)
	}
	return nil
}

// ReadRows makes rows of the combined change.
func (m *changes) ReadRows(dst []float32, row int64) error {
	_, cols64 := m.Dims()
	cols := int(cols64)
	n := len(dst) / cols
	step := min(max(blockFloats/16/cols, 1), n)
	m.c.pool.For((n+step-1)/step, func(i, worker int) {
		at := i * step
		k := min(step, n-at)
		if len(m.tmp[worker]) == 0 || m.tmp[worker][0].Rows < k {
			m.tmp[worker] = nil
			for range m.terms {
				m.tmp[worker] = append(m.tmp[worker], kernel.NewMat(k, cols))
			}
		}
		xs := make([][]float32, len(m.terms))
		for j, b := range m.tmp[worker] {
			b = b.Sub(0, k, 0, cols)
			rowsOf(nil, b, m.terms[j], int(row)+at)
			xs[j] = b.Data[:k*cols]
		}
		m.t.combine(dst[at*cols:(at+k)*cols], xs, (int(row)+at)*cols, m.prune, m.c.weights, m.c.frequency())
	})
	return nil
}

// onDeltas combines the changes themselves and brings the result to singular form.
func (t tasks) onDeltas(c *combination, ts []Term) (Term, error) {
	cut := c.Cut
	if cut.Rank == 0 && !c.TrueDelta {
		cut.Rank = c.rank
	}
	m, err := t.changesOf(c, ts)
	if err != nil {
		return Term{}, err
	}
	l, err := singularForm(c.ctx, c.pool, m, cut, c.Seed)
	if err != nil {
		return Term{}, err
	}
	return l.withoutNoise().clamped(c.Clamp).term(), nil
}

// singularForm is the singular form of a matrix, exact where it is small, and of a larger
// one the leading part that is asked for.
func singularForm(ctx context.Context, pool *kernel.Pool, m format.RowReader, cut Cut, seed uint64) (LowRank, error) {
	rows, cols := m.Dims()
	if rows*cols <= largestWhole && (min(rows, cols) <= largestFullSVD || cut.Rank == 0) {
		whole := kernel.NewMat(int(rows), int(cols))
		if err := m.ReadRows(whole.Data, 0); err != nil {
			return LowRank{}, err
		}
		return denseSVD(whole, cut)
	}
	if cut.Rank > 0 {
		l, _, err := TruncatedSVD(ctx, pool, m, cut, seed)
		return l, err
	}
	most := min(largestSketch/int(rows+cols), int(min(rows, cols)))
	if cut.Energy <= 0 || cut.Energy >= 1 || most < 1 {
		return LowRank{}, format.Usagef("what is left of the changes of a %dx%d matrix has any rank: give --svd-rank, or --energy below 1", rows, cols)
	}
	for rank := min(64, most); ; rank = min(2*rank, most) {
		l, norm, err := TruncatedSVD(ctx, pool, m, Cut{Rank: rank}, seed)
		if err != nil {
			return LowRank{}, err
		}
		if r := l.holding(cut.Energy * norm * norm); r > 0 {
			return l.first(r), nil
		}
		if rank == most {
			return LowRank{}, format.Usagef("%d directions of a %dx%d matrix hold less than the energy %v of its change: give --svd-rank", rank, rows, cols, cut.Energy)
		}
	}
}

// holding is the number of leading values that hold a sum of squares, 0 if all do not.
func (l LowRank) holding(squares float64) int {
	var sum float64
	for r, s := range l.Singular[:l.A.Rows] {
		if sum += float64(s * s); sum >= squares {
			return r + 1
		}
	}
	return 0
}
