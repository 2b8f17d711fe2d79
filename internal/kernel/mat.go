package kernel

// Mat is a row-major view of float32s: element (i, j) is Data[i*Stride+j]. Copying a
// Mat copies the view. Data may end right after the last element of the last row.
type Mat struct {
	Data               []float32
	Rows, Cols, Stride int
}

// NewMat makes a matrix of zeros whose rows touch.
func NewMat(rows, cols int) Mat {
	return Mat{Data: make([]float32, rows*cols), Rows: rows, Cols: cols, Stride: cols}
}

// Row is row i, as a slice of the matrix's own memory.
func (m Mat) Row(i int) []float32 {
	o := i * m.Stride
	return m.Data[o : o+m.Cols : o+m.Cols]
}

// Sub is the view of rows r0 to r1 and columns c0 to c1, the ends excluded.
func (m Mat) Sub(r0, r1, c0, c1 int) Mat {
	if r0 < 0 || r1 < r0 || r1 > m.Rows || c0 < 0 || c1 < c0 || c1 > m.Cols {
		panic("kernel: Mat.Sub: out of range")
	}
	s := Mat{Rows: r1 - r0, Cols: c1 - c0, Stride: m.Stride}
	if s.Rows > 0 && s.Cols > 0 {
		s.Data = m.Data[r0*m.Stride+c0 : (r1-1)*m.Stride+c1]
	}
	return s
}

// Zero clears the matrix, and nothing between its rows.
func (m Mat) Zero() {
	for i := range m.Rows {
		clear(m.Row(i))
	}
}

// Dims and DecodeRows make a Mat a Weights: a frozen matrix that is held as float32.
func (m Mat) Dims() (rows, cols int) { return m.Rows, m.Cols }

// DecodeRows copies rows.
func (m Mat) DecodeRows(dst []float32, row int) {
	for len(dst) > 0 {
		copy(dst, m.Row(row))
		dst, row = dst[m.Cols:], row+1
	}
}

// check panics unless the view's memory is there.
func (m Mat) check() {
	if m.Rows < 0 || m.Cols < 0 || m.Rows > 0 && m.Cols > 0 &&
		(m.Rows > 1 && m.Stride < m.Cols || len(m.Data) < (m.Rows-1)*m.Stride+m.Cols) {
		panic("kernel: a matrix is larger than its memory")
	}
}
