package kernel

// A panel is width columns of the right-hand matrix, held as k rows of width
// elements that touch, so that the innermost kernel reads it from end to end.
// Columns past the matrix are zero.

// packRows copies rows of at most width columns to a panel.
func packRows(dst []float32, width int, src []float32, stride, k, n int) {
	for q := range k {
		d := dst[q*width : (q+1)*width]
		clear(d[copy(d, src[q*stride:q*stride+n]):])
	}
}

// packCols writes the transpose of n rows of k elements to the columns j0, j0+1, …
// of a panel.
func (ts *tiles) packCols(dst []float32, j0 int, src []float32, stride, k, n int) {
	width, done := ts.width, 0
	if ts.turn != nil {
		if k >= 4 {
			for ; n-done >= ts.group; done += ts.group {
				ts.turn(dst[j0+done:], src[done*stride:], stride, k/4)
				for j := done; j < done+ts.group; j++ {
					for q := k &^ 3; q < k; q++ {
						dst[q*width+j0+j] = src[j*stride+q]
					}
				}
			}
		}
	}
	for j := done; j < n; j++ {
		for q, v := range src[j*stride : j*stride+k] {
			dst[q*width+j0+j] = v
		}
	}
}

// zeroCols clears the columns from j on.
func zeroCols(dst []float32, width, k, j int) {
	if j < width {
		for q := range k {
			clear(dst[q*width+j : (q+1)*width])
		}
	}
}
