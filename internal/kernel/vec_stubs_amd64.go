//go:build amd64 && !noasm

package kernel

import "math"

// vecConst are the constants of the vector kernels, in the order that vec_amd64.h
// names them, each once for every lane.
//
//lint:ignore U1000 the assembly reads it
var vecConst = splat(
	log2e, roundMagic, ln2Hi, ln2Lo, exp2, exp3, exp4, exp5, exp6, expLow, expHigh,
	1, 2, math.Float32frombits(1<<31), tanhSmall, tanh1, tanh2, tanh3, tanh4, tanh5,
	geluLinear, geluCubic, geluCubic3,
	math.Float32frombits(127), math.Float32frombits(1), math.Float32frombits(0x7fff),
	math.Float32frombits(0x40), math.Float32frombits(0x7f800000), math.Float32frombits(1<<31-1),
)

func splat(values ...float32) (t [30]lanes) {
	for i, v := range values {
		for j := range t[i] {
			t[i][j] = v
		}
	}
	// The last is -0 in even lanes and +0 in odd ones.
	for j := 0; j < len(lanes{}); j += 2 {
		t[29][j] = math.Float32frombits(1 << 31)
	}
	return t
}

//go:noescape
func dotAVX2(l *lanes, x, y *float32, n int)

//go:noescape
func dotAVX512(l *lanes, x, y *float32, n int)

//go:noescape
func dot3AVX2(l *lanes, x, y, z *float32, n int)

//go:noescape
func dot3AVX512(l *lanes, x, y, z *float32, n int)

//go:noescape
func sumAVX2(l *lanes, x *float32, n int)

//go:noescape
func sumAVX512(l *lanes, x *float32, n int)

//go:noescape
func sumSquares64AVX2(l *[16]float64, x *float32, n int)

//go:noescape
func sumSquares64AVX512(l *[16]float64, x *float32, n int)

//go:noescape
func dot64AVX2(l *[16]float64, x, y *float32, n int)

//go:noescape
func dot64AVX512(l *[16]float64, x, y *float32, n int)

//go:noescape
func maxAVX2(l *lanes, x *float32, n int)

//go:noescape
func maxAVX512(l *lanes, x *float32, n int)

//go:noescape
func addAVX2(dst, x *float32, n int)

//go:noescape
func addAVX512(dst, x *float32, n int)

//go:noescape
func subAVX2(dst, x, y *float32, n int)

//go:noescape
func subAVX512(dst, x, y *float32, n int)

//go:noescape
func mulAVX2(dst, x, y *float32, n int)

//go:noescape
func mulAVX512(dst, x, y *float32, n int)

//go:noescape
func scaleAVX2(dst, x *float32, n int, a float32)

//go:noescape
func scaleAVX512(dst, x *float32, n int, a float32)

//go:noescape
func axpyAVX2(dst, x *float32, n int, a float32)

//go:noescape
func axpyAVX512(dst, x *float32, n int, a float32)

//go:noescape
func softmaxBackwardAVX2(dx, p, dp *float32, n int, d float32)

//go:noescape
func softmaxBackwardAVX512(dx, p, dp *float32, n int, d float32)

//go:noescape
func normAVX2(y, x, w *float32, n int, r float32)

//go:noescape
func normAVX512(y, x, w *float32, n int, r float32)

//go:noescape
func softcapBackwardAVX2(dx, dy, y *float32, n int, cap float32)

//go:noescape
func softcapBackwardAVX512(dx, dy, y *float32, n int, cap float32)

//go:noescape
func f16ToF32AVX2(dst *float32, src *byte, n int)

//go:noescape
func f16ToF32AVX512(dst *float32, src *byte, n int)

//go:noescape
func f32ToF16AVX2(dst *byte, src *float32, n int)

//go:noescape
func f32ToF16AVX512(dst *byte, src *float32, n int)

//go:noescape
func bf16ToF32AVX2(dst *float32, src *byte, n int)

//go:noescape
func bf16ToF32AVX512(dst *float32, src *byte, n int)

//go:noescape
func f32ToBF16AVX2(dst *byte, src *float32, n int)

//go:noescape
func f32ToBF16AVX512(dst *byte, src *float32, n int)

//go:noescape
func adamWAVX2(p, m, v, g *float32, n int, s *AdamWStep)

//go:noescape
func adamWAVX512(p, m, v, g *float32, n int, s *AdamWStep)

//go:noescape
func expAVX2(dst, x *float32, n int, shift float32)

//go:noescape
func expAVX512(dst, x *float32, n int, shift float32)

//go:noescape
func sigmoidAVX2(dst, x *float32, n int)

//go:noescape
func sigmoidAVX512(dst, x *float32, n int)

//go:noescape
func softcapAVX2(y, x *float32, n int, cap float32)

//go:noescape
func softcapAVX512(y, x *float32, n int, cap float32)

//go:noescape
func siluMulAVX2(y, gate, up *float32, n int)

//go:noescape
func siluMulAVX512(y, gate, up *float32, n int)

//go:noescape
func geluMulAVX2(y, gate, up *float32, n int)

//go:noescape
func geluMulAVX512(y, gate, up *float32, n int)

//go:noescape
func siluMulBackwardAVX2(dgate, dup, dy, gate, up *float32, n int)

//go:noescape
func siluMulBackwardAVX512(dgate, dup, dy, gate, up *float32, n int)

//go:noescape
func geluMulBackwardAVX2(dgate, dup, dy, gate, up *float32, n int)

//go:noescape
func geluMulBackwardAVX512(dgate, dup, dy, gate, up *float32, n int)

//go:noescape
func normBackwardAVX2(dx, dy, x, w *float32, n int, r, c float32, acc bool)

//go:noescape
func normBackwardAVX512(dx, dy, x, w *float32, n int, r, c float32, acc bool)

//go:noescape
func ropeHalvesAVX2(a, b, cos, sin *float32, n int, sign uint32)

//go:noescape
func ropeHalvesAVX512(a, b, cos, sin *float32, n int, sign uint32)

//go:noescape
func ropePairsAVX2(x, cos, sin *float32, n int, sign uint32)

//go:noescape
func ropePairsAVX512(x, cos, sin *float32, n int, sign uint32)
