//go:build amd64 && !noasm

package kernel

import "github.com/graft-lora/graft/internal/cpu"

// The functions ending in Vec do the leading elements of an operation with the
// vectors of the current tier and return how many they did.

// whole is the number of elements of n that fill lanes, none of them in the Go tier,
// and whether the tier is AVX-512.
func whole(n int) (int, bool) {
	t := cpu.Current()
	if t == cpu.Generic {
		return 0, false
	}
	return n &^ (len(lanes{}) - 1), t == cpu.AVX512
}

func dotVec(l *lanes, x, y []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		dotAVX512(l, &x[0], &y[0], n)
	default:
		dotAVX2(l, &x[0], &y[0], n)
	}
	return n
}

func dot3Vec(l *lanes, x, y, z []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		dot3AVX512(l, &x[0], &y[0], &z[0], n)
	default:
		dot3AVX2(l, &x[0], &y[0], &z[0], n)
	}
	return n
}

func sumVec(l *lanes, x []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		sumAVX512(l, &x[0], n)
	default:
		sumAVX2(l, &x[0], n)
	}
	return n
}

func sumSquares64Vec(l *[16]float64, x []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		sumSquares64AVX512(l, &x[0], n)
	default:
		sumSquares64AVX2(l, &x[0], n)
	}
	return n
}

func dot64Vec(l *[16]float64, x, y []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		dot64AVX512(l, &x[0], &y[0], n)
	default:
		dot64AVX2(l, &x[0], &y[0], n)
	}
	return n
}

func maxVec(l *lanes, x []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		maxAVX512(l, &x[0], n)
	default:
		maxAVX2(l, &x[0], n)
	}
	return n
}

func addVec(dst, x []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		addAVX512(&dst[0], &x[0], n)
	default:
		addAVX2(&dst[0], &x[0], n)
	}
	return n
}

func subVec(dst, x, y []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		subAVX512(&dst[0], &x[0], &y[0], n)
	default:
		subAVX2(&dst[0], &x[0], &y[0], n)
	}
	return n
}

func mulVec(dst, x, y []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		mulAVX512(&dst[0], &x[0], &y[0], n)
	default:
		mulAVX2(&dst[0], &x[0], &y[0], n)
	}
	return n
}

func scaleVec(dst []float32, a float32, x []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		scaleAVX512(&dst[0], &x[0], n, a)
	default:
		scaleAVX2(&dst[0], &x[0], n, a)
	}
	return n
}

func axpyVec(dst []float32, a float32, x []float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		axpyAVX512(&dst[0], &x[0], n, a)
	default:
		axpyAVX2(&dst[0], &x[0], n, a)
	}
	return n
}

func softmaxBackwardVec(dx, p, dp []float32, d float32) int {
	n, wide := whole(len(p))
	switch {
	case n == 0:
	case wide:
		softmaxBackwardAVX512(&dx[0], &p[0], &dp[0], n, d)
	default:
		softmaxBackwardAVX2(&dx[0], &p[0], &dp[0], n, d)
	}
	return n
}

func normVec(y, x, w []float32, r float32) int {
	n, wide := whole(len(x))
	switch {
	case n == 0:
	case wide:
		normAVX512(&y[0], &x[0], &w[0], n, r)
	default:
		normAVX2(&y[0], &x[0], &w[0], n, r)
	}
	return n
}

func softcapBackwardVec(dx, dy, y []float32, cap float32) int {
	n, wide := whole(len(y))
	switch {
	case n == 0:
	case wide:
		softcapBackwardAVX512(&dx[0], &dy[0], &y[0], n, cap)
	default:
		softcapBackwardAVX2(&dx[0], &dy[0], &y[0], n, cap)
	}
	return n
}

func f16ToF32Vec(dst []float32, src []byte) int {
	n, wide := whole(len(dst))
	switch {
	case n == 0:
	case wide:
		f16ToF32AVX512(&dst[0], &src[0], n)
	default:
		f16ToF32AVX2(&dst[0], &src[0], n)
	}
	return n
}

func f32ToF16Vec(dst []byte, src []float32) int {
	n, wide := whole(len(src))
	switch {
	case n == 0:
	case wide:
		f32ToF16AVX512(&dst[0], &src[0], n)
	default:
		f32ToF16AVX2(&dst[0], &src[0], n)
	}
	return n
}

func bf16ToF32Vec(dst []float32, src []byte) int {
	n, wide := whole(len(dst))
	switch {
	case n == 0:
	case wide:
		bf16ToF32AVX512(&dst[0], &src[0], n)
	default:
		bf16ToF32AVX2(&dst[0], &src[0], n)
	}
	return n
}

func f32ToBF16Vec(dst []byte, src []float32) int {
	n, wide := whole(len(src))
	switch {
	case n == 0:
	case wide:
		f32ToBF16AVX512(&dst[0], &src[0], n)
	default:
		f32ToBF16AVX2(&dst[0], &src[0], n)
	}
	return n
}

func adamWVec(p, m, v, g []float32, s *AdamWStep) int {
	n, wide := whole(len(p))
	switch {
	case n == 0:
	case wide:
		adamWAVX512(&p[0], &m[0], &v[0], &g[0], n, s)
	default:
		adamWAVX2(&p[0], &m[0], &v[0], &g[0], n, s)
	}
	return n
}

func normBackwardVec(dx, dy, x, w []float32, r, c float32, acc bool) int {
	n, wide := whole(len(x))
	var wp *float32
	if w != nil && n > 0 {
		wp = &w[0]
	}
	switch {
	case n == 0:
	case wide:
		normBackwardAVX512(&dx[0], &dy[0], &x[0], wp, n, r, c, acc)
	default:
		normBackwardAVX2(&dx[0], &dy[0], &x[0], wp, n, r, c, acc)
	}
	return n
}

func ropeVec(x, cos, sin []float32, neox, back bool) int {
	n, wide := whole(len(cos))
	var sign uint32
	if back {
		sign = 1 << 31
	}
	switch {
	case n == 0:
	case wide && neox:
		ropeHalvesAVX512(&x[0], &x[len(cos)], &cos[0], &sin[0], n, sign)
	case wide:
		ropePairsAVX512(&x[0], &cos[0], &sin[0], n, sign)
	case neox:
		ropeHalvesAVX2(&x[0], &x[len(cos)], &cos[0], &sin[0], n, sign)
	default:
		ropePairsAVX2(&x[0], &cos[0], &sin[0], n, sign)
	}
	return n
}
