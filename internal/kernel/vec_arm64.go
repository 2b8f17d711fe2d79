//go:build !noasm

package kernel

import (
	"math"

	"github.com/graft-lora/graft/internal/cpu"
)

// The functions ending in Vec do the leading elements of an operation with NEON, and
// return how many they did.

// vecConst are the constants of vec_exp_neon_arm64.s, in its order.
//
//lint:ignore U1000 the assembly reads it
var vecConst = [...]float32{
	log2e, roundMagic, ln2Hi, ln2Lo, exp2, exp3, exp4, exp5, exp6, expLow, expHigh, 1, math.Float32frombits(127),
	geluLinear, geluCubic, geluCubic3,
	tanhSmall, 2, math.Float32frombits(1 << 31), tanh1, tanh2, tanh3, tanh4, tanh5,
}

// whole is the number of elements of n that fill lanes, none of them in the Go tier.
func whole(n int) int {
	if cpu.Current() == cpu.Generic {
		return 0
	}
	return n &^ (len(lanes{}) - 1)
}

func dotVec(l *lanes, x, y []float32) int {
	n := whole(len(x))
	if n > 0 {
		dotNEON(l, &x[0], &y[0], n)
	}
	return n
}

func dot3Vec(l *lanes, x, y, z []float32) int {
	n := whole(len(x))
	if n > 0 {
		dot3NEON(l, &x[0], &y[0], &z[0], n)
	}
	return n
}

func sumVec(l *lanes, x []float32) int {
	n := whole(len(x))
	if n > 0 {
		sumNEON(l, &x[0], n)
	}
	return n
}

func sumSquares64Vec(l *[16]float64, x []float32) int {
	n := whole(len(x))
	if n > 0 {
		sumSquares64NEON(l, &x[0], n)
	}
	return n
}

func dot64Vec(l *[16]float64, x, y []float32) int {
	n := whole(len(x))
	if n > 0 {
		dot64NEON(l, &x[0], &y[0], n)
	}
	return n
}

func maxVec(l *lanes, x []float32) int {
	n := whole(len(x))
	if n > 0 {
		maxNEON(l, &x[0], n)
	}
	return n
}

func addVec(dst, x []float32) int {
	n := whole(len(x))
	if n > 0 {
		addNEON(&dst[0], &x[0], n)
	}
	return n
}

func subVec(dst, x, y []float32) int {
	n := whole(len(x))
	if n > 0 {
		subNEON(&dst[0], &x[0], &y[0], n)
	}
	return n
}

func mulVec(dst, x, y []float32) int {
	n := whole(len(x))
	if n > 0 {
		mulNEON(&dst[0], &x[0], &y[0], n)
	}
	return n
}

func scaleVec(dst []float32, a float32, x []float32) int {
	n := whole(len(x))
	if n > 0 {
		scaleNEON(&dst[0], &x[0], n, a)
	}
	return n
}

func axpyVec(dst []float32, a float32, x []float32) int {
	n := whole(len(x))
	if n > 0 {
		axpyNEON(&dst[0], &x[0], n, a)
	}
	return n
}

func softmaxBackwardVec(dx, p, dp []float32, d float32) int {
	n := whole(len(p))
	if n > 0 {
		softmaxBackwardNEON(&dx[0], &p[0], &dp[0], n, d)
	}
	return n
}

func normVec(y, x, w []float32, r float32) int {
	n := whole(len(x))
	if n > 0 {
		normNEON(&y[0], &x[0], &w[0], n, r)
	}
	return n
}

func softcapBackwardVec(dx, dy, y []float32, cap float32) int {
	n := whole(len(y))
	if n > 0 {
		softcapBackwardNEON(&dx[0], &dy[0], &y[0], n, cap)
	}
	return n
}

func f16ToF32Vec(dst []float32, src []byte) int {
	n := whole(len(dst))
	if n > 0 {
		f16ToF32NEON(&dst[0], &src[0], n)
	}
	return n
}

func f32ToF16Vec(dst []byte, src []float32) int {
	n := whole(len(src))
	if n > 0 {
		f32ToF16NEON(&dst[0], &src[0], n)
	}
	return n
}

func bf16ToF32Vec(dst []float32, src []byte) int {
	n := whole(len(dst))
	if n > 0 {
		bf16ToF32NEON(&dst[0], &src[0], n)
	}
	return n
}

func f32ToBF16Vec(dst []byte, src []float32) int {
	n := whole(len(src))
	if n > 0 {
		f32ToBF16NEON(&dst[0], &src[0], n)
	}
	return n
}

func adamWVec(p, m, v, g []float32, s *AdamWStep) int {
	n := whole(len(p))
	if n > 0 {
		adamWNEON(&p[0], &m[0], &v[0], &g[0], n, s)
	}
	return n
}

func normBackwardVec(dx, dy, x, w []float32, r, c float32, acc bool) int {
	n := whole(len(x))
	if n > 0 {
		var wp *float32
		if w != nil {
			wp = &w[0]
		}
		normBackwardNEON(&dx[0], &dy[0], &x[0], wp, n, r, c, acc)
	}
	return n
}

func ropeVec(x, cos, sin []float32, neox, back bool) int {
	n := whole(len(cos))
	var sign uint32
	if back {
		sign = 1 << 31
	}
	switch {
	case n == 0:
	case neox:
		ropeHalvesNEON(&x[0], &x[len(cos)], &cos[0], &sin[0], n, sign)
	default:
		ropePairsNEON(&x[0], &cos[0], &sin[0], n, sign)
	}
	return n
}

// The operations that take an exponential go on to the last four elements, and do
// those of a row that are left over in a vector of their own.

// fours is the number of elements of n that fill vectors, and whether the rest is to
// be done in one more: neither in the Go tier.
func fours(n int) (whole int, rest bool) {
	if cpu.Current() == cpu.Generic {
		return 0, false
	}
	return n &^ 3, n&3 != 0
}

// padded copies less than a vector's elements, zeros after them.
func padded(x []float32) (t [4]float32) {
	copy(t[:], x)
	return t
}

func expVec(dst, x []float32, shift float32) int {
	n, rest := fours(len(x))
	if n > 0 {
		expNEON(&dst[0], &x[0], n, shift)
	}
	if !rest {
		return n
	}
	var dstT [4]float32
	xT := padded(x[n:])
	expNEON(&dstT[0], &xT[0], 4, shift)
	copy(dst[n:], dstT[:])
	return len(x)
}

func sigmoidVec(dst, x []float32) int {
	n, rest := fours(len(x))
	if n > 0 {
		sigmoidNEON(&dst[0], &x[0], n)
	}
	if !rest {
		return n
	}
	var dstT [4]float32
	xT := padded(x[n:])
	sigmoidNEON(&dstT[0], &xT[0], 4)
	copy(dst[n:], dstT[:])
	return len(x)
}

func softcapVec(y, x []float32, cap float32) int {
	n, rest := fours(len(x))
	if n > 0 {
		softcapNEON(&y[0], &x[0], n, cap)
	}
	if !rest {
		return n
	}
	var yT [4]float32
	xT := padded(x[n:])
	softcapNEON(&yT[0], &xT[0], 4, cap)
	copy(y[n:], yT[:])
	return len(x)
}

func siluMulVec(y, gate, up []float32) int {
	n, rest := fours(len(gate))
	if n > 0 {
		siluMulNEON(&y[0], &gate[0], &up[0], n)
	}
	if !rest {
		return n
	}
	var yT [4]float32
	gateT, upT := padded(gate[n:]), padded(up[n:])
	siluMulNEON(&yT[0], &gateT[0], &upT[0], 4)
	copy(y[n:], yT[:])
	return len(gate)
}

func geluMulVec(y, gate, up []float32) int {
	n, rest := fours(len(gate))
	if n > 0 {
		geluMulNEON(&y[0], &gate[0], &up[0], n)
	}
	if !rest {
		return n
	}
	var yT [4]float32
	gateT, upT := padded(gate[n:]), padded(up[n:])
	geluMulNEON(&yT[0], &gateT[0], &upT[0], 4)
	copy(y[n:], yT[:])
	return len(gate)
}

func siluMulBackwardVec(dgate, dup, dy, gate, up []float32) int {
	n, rest := fours(len(dy))
	if n > 0 {
		siluMulBackwardNEON(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], n)
	}
	if !rest {
		return n
	}
	var dgateT, dupT [4]float32
	dyT, gateT, upT := padded(dy[n:]), padded(gate[n:]), padded(up[n:])
	siluMulBackwardNEON(&dgateT[0], &dupT[0], &dyT[0], &gateT[0], &upT[0], 4)
	copy(dgate[n:], dgateT[:])
	copy(dup[n:], dupT[:])
	return len(dy)
}

func geluMulBackwardVec(dgate, dup, dy, gate, up []float32) int {
	n, rest := fours(len(dy))
	if n > 0 {
		geluMulBackwardNEON(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], n)
	}
	if !rest {
		return n
	}
	var dgateT, dupT [4]float32
	dyT, gateT, upT := padded(dy[n:]), padded(gate[n:]), padded(up[n:])
	geluMulBackwardNEON(&dgateT[0], &dupT[0], &dyT[0], &gateT[0], &upT[0], 4)
	copy(dgate[n:], dgateT[:])
	copy(dup[n:], dupT[:])
	return len(dy)
}
