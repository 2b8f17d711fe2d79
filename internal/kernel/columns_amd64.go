//go:build amd64 && !noasm

package kernel

func mulAddVec(dst, x, y []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		mulAddAVX512(&dst[0], &x[0], &y[0], n)
	default:
		mulAddAVX2(&dst[0], &x[0], &y[0], n)
	}
	return n
}

func dotColumnsVec(dst []float32, a, b Mat) int {
	n, wide := whole(len(dst))
	switch {
	case n == 0:
	case wide:
		dotColumnsAVX512(&dst[0], &a.Data[0], &b.Data[0], n, a.Rows, a.Stride, b.Stride)
	default:
		dotColumnsAVX2(&dst[0], &a.Data[0], &b.Data[0], n, a.Rows, a.Stride, b.Stride)
	}
	return n
}

func axpyColumnsVec(dst Mat, f []float32, a Mat) int {
	n, wide := whole(len(f))
	switch {
	case n == 0:
	case wide:
		axpyColumnsAVX512(&dst.Data[0], &f[0], &a.Data[0], n, a.Rows, dst.Stride, a.Stride)
	default:
		axpyColumnsAVX2(&dst.Data[0], &f[0], &a.Data[0], n, a.Rows, dst.Stride, a.Stride)
	}
	return n
}

func productColumnsVec(dst Mat, f []float32, x, y Mat) int {
	n, wide := whole(x.Cols)
	switch {
	case n == 0:
	case wide:
		productColumnsAVX512(&dst.Data[0], &f[0], &x.Data[0], &y.Data[0], n, len(f), dst.Stride, x.Stride, y.Stride)
	default:
		productColumnsAVX2(&dst.Data[0], &f[0], &x.Data[0], &y.Data[0], n, len(f), dst.Stride, x.Stride, y.Stride)
	}
	return n
}

func rangeColumnsVec(least, most, f []float32, a, b Mat) int {
	n, wide := whole(len(f))
	switch {
	case n == 0:
	case wide:
		rangeColumnsAVX512(&least[0], &most[0], &f[0], &a.Data[0], &b.Data[0], n, a.Rows, a.Stride, b.Stride)
	default:
		rangeColumnsAVX2(&least[0], &most[0], &f[0], &a.Data[0], &b.Data[0], n, a.Rows, a.Stride, b.Stride)
	}
	return n
}

func mixRowsVec(dst, f []float32, x Mat) int {
	n, wide := whole(len(dst))
	switch {
	case n == 0:
	case wide:
		mixRowsAVX512(&dst[0], &f[0], &x.Data[0], n, len(f), x.Stride)
	default:
		mixRowsAVX2(&dst[0], &f[0], &x.Data[0], n, len(f), x.Stride)
	}
	return n
}

func squareColumnsVec(dst Mat, f []float32, z Mat) int {
	n, wide := whole(len(f))
	switch {
	case n == 0:
	case wide:
		squareColumnsAVX512(&dst.Data[0], &f[0], &z.Data[0], n, z.Rows, dst.Stride, z.Stride)
	default:
		squareColumnsAVX2(&dst.Data[0], &f[0], &z.Data[0], n, z.Rows, dst.Stride, z.Stride)
	}
	return n
}

func outsideVec(dst []float32, a float32, x, y []float32, f float32, limit []float32) (int, uint64) {
	n, wide := whole(len(dst))
	switch {
	case n == 0:
		return 0, 0
	case wide:
		return n, outsideAVX512(&dst[0], &x[0], &y[0], &limit[0], n, a, f)
	}
	return n, outsideAVX2(&dst[0], &x[0], &y[0], &limit[0], n, a, f)
}

//go:noescape
func mulAddAVX2(dst, x, y *float32, n int)

//go:noescape
func mulAddAVX512(dst, x, y *float32, n int)

//go:noescape
func dotColumnsAVX2(dst, a, b *float32, n, rows, strideA, strideB int)

//go:noescape
func dotColumnsAVX512(dst, a, b *float32, n, rows, strideA, strideB int)

//go:noescape
func axpyColumnsAVX2(dst, f, a *float32, n, rows, strideDst, strideA int)

//go:noescape
func axpyColumnsAVX512(dst, f, a *float32, n, rows, strideDst, strideA int)

//go:noescape
func productColumnsAVX2(dst, f, x, y *float32, n, rows, strideDst, strideX, strideY int)

//go:noescape
func productColumnsAVX512(dst, f, x, y *float32, n, rows, strideDst, strideX, strideY int)

//go:noescape
func outsideAVX2(dst, x, y, limit *float32, n int, a, f float32) uint64

//go:noescape
func outsideAVX512(dst, x, y, limit *float32, n int, a, f float32) uint64

//go:noescape
func rangeColumnsAVX2(least, most, f, a, b *float32, n, rows, strideA, strideB int)

//go:noescape
func rangeColumnsAVX512(least, most, f, a, b *float32, n, rows, strideA, strideB int)

//go:noescape
func mixRowsAVX2(dst, f, x *float32, n, rows, stride int)

//go:noescape
func mixRowsAVX512(dst, f, x *float32, n, rows, stride int)

//go:noescape
func squareColumnsAVX2(dst, f, z *float32, n, k, strideDst, strideZ int)

//go:noescape
func squareColumnsAVX512(dst, f, z *float32, n, k, strideDst, strideZ int)
