package kernel

// A panel is width columns of the right-hand matrix, held as k rows of width
// elements that touch, so that the innermost kernel reads it from end to end.
// Columns past the matrix are zero. The left matrix is packed in the same way, height
// rows at a time, as k columns of height elements that touch.

// packRows copies k rows of at most width columns to a panel.
func (ts *tiles) packRows(dst, src []float32, stride, k, n int) {
	if n == ts.width && ts.copy != nil && k > 0 {
		ts.copy(dst, src, stride, k)
		return
	}
	for q := range k {
		d := dst[q*ts.width : (q+1)*ts.width]
		clear(d[copy(d, src[q*stride:q*stride+n]):])
	}
}

// packCols writes the transpose of n rows of k elements to the columns of a panel from
// j0 on.
func (ts *tiles) packCols(dst []float32, j0 int, src []float32, stride, k, n int) {
	width, done := ts.width, 0
	if ts.turn != nil && k >= 4 {
		for ; n-done >= ts.group; done += ts.group {
			ts.turn(dst[j0+done:], src[done*stride:], stride, k/4)
		}
	}
	for j := range n {
		q := 0
		if j < done {
			q = k &^ 3
		}
		for ; q < k; q++ {
			dst[q*width+j0+j] = src[j*stride+q]
		}
	}
}

// zeroCols clears the columns of a panel from j on.
func (ts *tiles) zeroCols(dst []float32, k, j int) {
	if j < ts.width {
		for q := range k {
			clear(dst[q*ts.width+j : (q+1)*ts.width])
		}
	}
}

// packLeft packs k elements of height rows, element (i, q) of src being at i·ai + q·ak
// where one of the strides is 1.
func (ts *tiles) packLeft(dst, src []float32, ai, ak, k int) {
	if ak != 1 {
		ts.copyLeft(dst, src, ak, k)
		return
	}
	if k >= 4 {
		ts.turnLeft(dst, src, ai, k/4)
	}
	for q := k &^ 3; q < k; q++ {
		for i := range ts.height {
			dst[q*ts.height+i] = src[i*ai+q]
		}
	}
}
