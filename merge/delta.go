package merge

import (
	"fmt"
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// Term is what one adapter does to a matrix W (rows x cols), or to one of a stack of
// matrices: it adds
//
//	D = Scale * B * A
//
// or, with Magnitude m (DoRA, Liu et al. 2024), replaces W by diag(m/n) (W + D),
// where n holds the row norms of W + D.
type Term struct {
	A         kernel.Mat // rank x cols
	B         kernel.Mat // rows x rank
	Scale     float32
	Magnitude []float32 // len rows, or nil
	Row       int64     // the row of the stack at which the matrix begins
	// Columns says that Magnitude (len cols) and n are of columns: W becomes (W + D) diag(m/n).
	Columns     bool
	NormEpsilon float32 // added to each norm that is divided by

	full  kernel.Mat // B*A where it is stored whole
	norms []float32  // of the columns of W + D
}

// Delta is the change that one or several adapters make to one tensor, the sum of
// what its terms do to the base. It is never formed as a whole: rows of it are, as they are
// needed. It is read-only and safe for concurrent use.
type Delta struct {
	Rows, Cols int64
	Terms      []Term
	// matrix, if not nil, has the terms instead: the same numbers in the same order, in rows of
	// another length. It has no magnitudes.
	matrix *Delta
	// factors, if not nil, multiply what is stored: changes are of stored values then.
	factors *factors
}

// NewDelta checks that the terms fit a tensor of rows x cols.
func NewDelta(rows, cols int64, terms []Term) (*Delta, error) {
	for _, t := range terms {
		if int64(t.A.Cols) != cols || t.Row < 0 || t.Row+int64(t.B.Rows) > rows || t.A.Rows != t.B.Cols {
			return nil, fmt.Errorf("adapter matrices A %dx%d and B %dx%d do not fit a %dx%d weight", t.A.Rows, t.A.Cols, t.B.Rows, t.B.Cols, rows, cols)
		}
		if n := t.B.Rows; t.Magnitude != nil && !t.Columns && len(t.Magnitude) != n {
			return nil, fmt.Errorf("%d magnitudes do not fit a weight of %d rows", len(t.Magnitude), n)
		}
		if t.Columns && (int64(len(t.Magnitude)) != cols || int64(len(t.norms)) != cols) {
			return nil, fmt.Errorf("%d magnitudes and %d norms do not fit a weight of %d columns", len(t.Magnitude), len(t.norms), cols)
		}
	}
	return &Delta{Rows: rows, Cols: cols, Terms: terms}, nil
}

// Change computes the change of whole rows, beginning with row, whose base values are
// base, into dst (the same length). A product is a chain in the order of the rank,
// scaled afterwards, as llama.cpp and PEFT do.
func (d *Delta) Change(dst, base []float32, row int64) {
	d.change(dst, base, row, new(kernel.Mat))
}

// change is Change with a matrix to work in, which grows as needed. base may hold anything
// unless usesBase.
func (d *Delta) change(dst, base []float32, row int64, tmp *kernel.Mat) {
	if d.factors != nil {
		d.changeStored(dst, base, row, tmp)
		return
	}
	cols := int(d.Cols)
	if m := d.matrix; m != nil {
		first := row * d.Cols
		from, to := first/m.Cols, (first+int64(len(dst))+m.Cols-1)/m.Cols
		rows := make([]float32, (to-from)*m.Cols)
		m.change(rows, rows, from, tmp)
		copy(dst, rows[first-from*m.Cols:])
		return
	}
	filled := false
	for i := range d.Terms {
		t := &d.Terms[i]
		// The rows that the block and the term have in common.
		from := max(row, t.Row)
		to := min(row+int64(len(dst)/cols), t.Row+int64(t.B.Rows))
		if from >= to {
			continue
		}
		n, off := int(to-from), int(from-row)*cols
		first := int(from - t.Row)
		change := dst // of a term that is alone with these rows, or comes first
		alone := !filled && n*cols == len(dst)
		if !alone {
			if !filled {
				clear(dst)
			}
			if len(tmp.Data) < n*cols {
				tmp.Data = make([]float32, n*cols)
			}
			change = tmp.Data[:n*cols]
		}
		filled = true
		if t.full.Data != nil {
			copy(change, t.full.Data[first*cols:])
		} else {
			kernel.GemmNN(nil, kernel.Mat{Data: change, Rows: n, Cols: cols, Stride: cols}, t.B.Sub(first, first+n, 0, t.B.Cols), t.A, false)
		}
		kernel.Scale(change, t.Scale, change)
		if t.Magnitude != nil {
			for k := range n {
				d, w := change[k*cols:(k+1)*cols], base[off+k*cols:off+(k+1)*cols]
				if t.Columns {
					renormColumns(d, w, t.Magnitude, t.norms, t.NormEpsilon)
				} else {
					renorm(d, w, t.Magnitude[first+k], t.NormEpsilon)
				}
			}
		}
		if !alone {
			kernel.Add(dst[off:off+len(change)], change)
		}
	}
	if !filled {
		clear(dst)
	}
}

// usesBase says that the change depends on the base's values.
func (d *Delta) usesBase() bool {
	for i := range d.Terms {
		if d.Terms[i].Magnitude != nil {
			return true
		}
	}
	return false
}

// renorm turns the row d that is added to w into the change that gives w + d the
// norm m. A zero row stays as it is.
func renorm(d, w []float32, m, epsilon float32) {
	var norm float64
	for i, v := range d {
		x := float64(w[i] + v)
		norm += float64(x * x)
	}
	if norm == 0 {
		return
	}
	f := m / (float32(math.Sqrt(norm)) + epsilon)
	for i, v := range d {
		d[i] = float32(f*(w[i]+v)) - w[i]
	}
}

// renormColumns is renorm where the norms are those of columns. A zero column stays.
func renormColumns(d, w, m, norms []float32, epsilon float32) {
	for i, v := range d {
		if norms[i] != 0 {
			f := m[i] / (norms[i] + epsilon)
			d[i] = float32(f*(w[i]+v)) - w[i]
		}
	}
}

// added is a matrix with a delta added to it, in float32.
type added struct {
	base  format.RowReader
	delta *Delta
}

func (a *added) Dims() (rows, cols int64) { return a.base.Dims() }

// Release gives back the base's mapped pages, if it is mapped.
func (a *added) Release() {
	if r, ok := a.base.(interface{ Release() }); ok {
		r.Release()
	}
}

func (a *added) ReadRows(dst []float32, row int64) error {
	if err := a.base.ReadRows(dst, row); err != nil {
		return err
	}
	b := mergeScratch.Get().(*mergeBuffers)
	defer mergeScratch.Put(b)
	b.room(0, len(dst))
	a.delta.change(b.delta, dst, row, &b.term)
	kernel.Add(dst, b.delta)
	return nil
}
