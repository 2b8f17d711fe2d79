//go:build !noasm

package kernel

func mulAddVec(dst, x, y []float32) int {
	n := whole(len(x))
	if n > 0 {
		mulAddNEON(&dst[0], &x[0], &y[0], n)
	}
	return n
}

func dotColumnsVec(dst []float32, a, b Mat) int {
	n := whole(len(dst))
	if n > 0 {
		dotColumnsNEON(&dst[0], &a.Data[0], &b.Data[0], n, a.Rows, a.Stride, b.Stride)
	}
	return n
}

func axpyColumnsVec(dst Mat, f []float32, a Mat) int {
	n := whole(len(f))
	if n > 0 {
		axpyColumnsNEON(&dst.Data[0], &f[0], &a.Data[0], n, a.Rows, dst.Stride, a.Stride)
	}
	return n
}

func productColumnsVec(dst Mat, f []float32, x, y Mat) int {
	n := whole(x.Cols)
	if n > 0 {
		productColumnsNEON(&dst.Data[0], &f[0], &x.Data[0], &y.Data[0], n, len(f), dst.Stride, x.Stride, y.Stride)
	}
	return n
}

func rangeColumnsVec(least, most, f []float32, a, b Mat) int {
	n := whole(len(f))
	if n > 0 {
		rangeColumnsNEON(&least[0], &most[0], &f[0], &a.Data[0], &b.Data[0], n, a.Rows, a.Stride, b.Stride)
	}
	return n
}

func mixRowsVec(dst, f []float32, x Mat) int {
	n := whole(len(dst))
	if n > 0 {
		mixRowsNEON(&dst[0], &f[0], &x.Data[0], n, len(f), x.Stride)
	}
	return n
}

func squareColumnsVec(dst Mat, f []float32, z Mat) int {
	n := whole(len(f))
	if n > 0 {
		squareColumnsNEON(&dst.Data[0], &f[0], &z.Data[0], n, z.Rows, dst.Stride, z.Stride)
	}
	return n
}

func outsideVec(dst []float32, a float32, x, y []float32, f float32, limit []float32) (int, uint64) {
	n := whole(len(dst))
	if n == 0 {
		return 0, 0
	}
	return n, outsideNEON(&dst[0], &x[0], &y[0], &limit[0], n, a, f)
}

//go:noescape
func mulAddNEON(dst, x, y *float32, n int)

//go:noescape
func dotColumnsNEON(dst, a, b *float32, n, rows, strideA, strideB int)

//go:noescape
func axpyColumnsNEON(dst, f, a *float32, n, rows, strideDst, strideA int)

//go:noescape
func productColumnsNEON(dst, f, x, y *float32, n, rows, strideDst, strideX, strideY int)

//go:noescape
func outsideNEON(dst, x, y, limit *float32, n int, a, f float32) uint64

//go:noescape
func rangeColumnsNEON(least, most, f, a, b *float32, n, rows, strideA, strideB int)

//go:noescape
func mixRowsNEON(dst, f, x *float32, n, rows, stride int)

//go:noescape
func squareColumnsNEON(dst, f, z *float32, n, k, strideDst, strideZ int)
