package kernel

// Operations on vectors that lie side by side, as the columns of a matrix: what would be a sum
// along a row is one down a column, of all columns at once and in the order of the rows.
// Nothing here adds up lanes. Slices have as many elements as matrices have columns
// (anything else panics), and belong to the caller.

// MulAdd does dst[i] = fma(x[i], y[i], dst[i]).
func MulAdd(dst, x, y []float32) {
	sameLen(len(dst), len(x))
	sameLen(len(dst), len(y))
	n := mulAddVec(dst, x, y)
	mulAdd(dst[n:], x[n:], y[n:])
}

func mulAdd(dst, x, y []float32) {
	for ; len(x) >= 4; x, y, dst = x[4:], y[4:], dst[4:] {
		fma4((*[4]float32)(dst), (*[4]float32)(x), (*[4]float32)(y))
	}
	for i, v := range x {
		dst[i] = FMA(v, y[i], dst[i])
	}
}

func sameShape(a, b Mat) {
	if a.Rows != b.Rows || a.Cols != b.Cols {
		panic("kernel: matrices of different shapes")
	}
	a.check()
	b.check()
}

// DotColumns adds the products of the columns of a and b.
//
//	for j := range a.Rows { dst[i] = fma(a(j, i), b(j, i), dst[i]) }
func DotColumns(dst []float32, a, b Mat) {
	sameShape(a, b)
	sameLen(len(dst), a.Cols)
	n := 0
	if a.Rows > 0 {
		n = dotColumnsVec(dst, a, b)
	}
	for j := 0; n < a.Cols && j < a.Rows; j++ {
		mulAdd(dst[n:], a.Row(j)[n:], b.Row(j)[n:])
	}
}

// AxpyColumns adds a multiple of each column of a to that of dst.
//
//	dst(j, i) = fma(f[i], a(j, i), dst(j, i))
func AxpyColumns(dst Mat, f []float32, a Mat) {
	sameShape(a, dst)
	sameLen(len(f), a.Cols)
	n := 0
	if a.Rows > 0 {
		n = axpyColumnsVec(dst, f, a)
	}
	for j := 0; n < a.Cols && j < a.Rows; j++ {
		mulAdd(dst.Row(j)[n:], f[n:], a.Row(j)[n:])
	}
}

// MixRows adds multiples of the rows of x to dst.
//
//	for j := range f { dst[i] = fma(f[j], x(j, i), dst[i]) }
func MixRows(dst, f []float32, x Mat) {
	sameLen(len(f), x.Rows)
	sameLen(len(dst), x.Cols)
	x.check()
	n := 0
	if len(f) > 0 {
		n = mixRowsVec(dst, f, x)
	}
	for j := 0; n < len(dst) && j < len(f); j++ {
		dst, x := dst[n:], x.Row(j)[n:]
		for i, v := range x {
			dst[i] = FMA(f[j], v, dst[i])
		}
	}
}

// SquareColumns adds to dst, of k·k rows, the products of the elements of each column of z, of
// k rows, times f, on the diagonal and below it:
//
//	dst(j*k+q, i) = fma(f[i] z(j, i), z(q, i), dst(j*k+q, i))    q <= j
//
// f z being rounded.
func SquareColumns(dst Mat, f []float32, z Mat) {
	k := z.Rows
	z.check()
	dst.check()
	sameLen(len(f), z.Cols)
	if dst.Rows != k*k || dst.Cols != z.Cols {
		panic("kernel: matrices of different shapes")
	}
	n := 0
	if k > 0 {
		n = squareColumnsVec(dst, f, z)
	}
	for i := n; i < z.Cols; i++ {
		for j := range k {
			fz := float32(f[i] * z.Row(j)[i])
			for q := range j + 1 {
				d := &dst.Row(j*k + q)[i]
				*d = FMA(fz, z.Row(q)[i], *d)
			}
		}
	}
}

// ProductColumns adds to the five rows of dst what the columns x and y have of
//
//	sum of f x x, f x y, f y y, f x, f y
//
// with a weight f for each row, f x and f y being rounded.
func ProductColumns(dst Mat, f []float32, x, y Mat) {
	sameShape(x, y)
	dst.check()
	if dst.Rows != 5 || dst.Cols != x.Cols {
		panic("kernel: matrices of different shapes")
	}
	sameLen(len(f), x.Rows)
	if len(f) == 0 {
		return
	}
	n := productColumnsVec(dst, f, x, y)
	for i := n; i < x.Cols; i++ {
		var s [5]float32
		for q := range s {
			s[q] = dst.Row(q)[i]
		}
		for j, f := range f {
			x, y := x.Row(j)[i], y.Row(j)[i]
			fx, fy := float32(f*x), float32(f*y)
			s[0], s[1], s[2] = FMA(fx, x, s[0]), FMA(fx, y, s[1]), FMA(fy, y, s[2])
			s[3] += fx
			s[4] += fy
		}
		for q := range s {
			dst.Row(q)[i] = s[q]
		}
	}
}

// RangeColumns makes of least and most the least and the most of what they are and of
//
//	fma(f[i], a(j, i), b(j, i))
//
// over the rows j, passing over NaN.
func RangeColumns(least, most, f []float32, a, b Mat) {
	sameShape(a, b)
	sameLen(len(least), a.Cols)
	sameLen(len(most), a.Cols)
	sameLen(len(f), a.Cols)
	if a.Rows == 0 {
		return
	}
	for i := rangeColumnsVec(least, most, f, a, b); i < len(f); i++ {
		for j := range a.Rows {
			v := FMA(f[i], a.Row(j)[i], b.Row(j)[i])
			if v < least[i] {
				least[i] = v
			}
			if v > most[i] {
				most[i] = v
			}
		}
	}
}

// Outside does dst[i] = fma(a, x[i], y[i]) for at most 64 elements and returns a word whose
// bit i is set unless the magnitude of that is at most f*limit[i].
func Outside(dst []float32, a float32, x, y []float32, f float32, limit []float32) uint64 {
	sameLen(len(dst), len(x))
	sameLen(len(dst), len(y))
	sameLen(len(dst), len(limit))
	if len(dst) > 64 {
		panic("kernel: Outside: more than 64 elements")
	}
	n, bits := outsideVec(dst, a, x, y, f, limit)
	for i := n; i < len(dst); i++ {
		v, l := FMA(a, x[i], y[i]), float32(f*limit[i])
		dst[i] = v
		if !(v <= l && -v <= l) {
			bits |= 1 << i
		}
	}
	return bits
}
