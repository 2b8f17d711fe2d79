//go:build !noasm

package kernel

//go:noescape
func dotNEON(l *lanes, x, y *float32, n int)

//go:noescape
func dot3NEON(l *lanes, x, y, z *float32, n int)

//go:noescape
func sumNEON(l *lanes, x *float32, n int)

//go:noescape
func sumSquares64NEON(l *[16]float64, x *float32, n int)

//go:noescape
func dot64NEON(l *[16]float64, x, y *float32, n int)

//go:noescape
func maxNEON(l *lanes, x *float32, n int)

//go:noescape
func addNEON(dst, x *float32, n int)

//go:noescape
func subNEON(dst, x, y *float32, n int)

//go:noescape
func mulNEON(dst, x, y *float32, n int)

//go:noescape
func scaleNEON(dst, x *float32, n int, a float32)

//go:noescape
func axpyNEON(dst, x *float32, n int, a float32)

//go:noescape
func softmaxBackwardNEON(dx, p, dp *float32, n int, d float32)

//go:noescape
func normNEON(y, x, w *float32, n int, r float32)

//go:noescape
func softcapBackwardNEON(dx, dy, y *float32, n int, cap float32)

//go:noescape
func f16ToF32NEON(dst *float32, src *byte, n int)

//go:noescape
func f32ToF16NEON(dst *byte, src *float32, n int)

//go:noescape
func bf16ToF32NEON(dst *float32, src *byte, n int)

//go:noescape
func f32ToBF16NEON(dst *byte, src *float32, n int)

//go:noescape
func adamWNEON(p, m, v, grad *float32, n int, s *AdamWStep)

//go:noescape
func normBackwardNEON(dx, dy, x, w *float32, n int, r, c float32, acc bool)

//go:noescape
func ropeHalvesNEON(a, b, cos, sin *float32, n int, sign uint32)

//go:noescape
func ropePairsNEON(x, cos, sin *float32, n int, sign uint32)

//go:noescape
func expNEON(dst, x *float32, n int, shift float32)

//go:noescape
func sigmoidNEON(dst, x *float32, n int)

//go:noescape
func softcapNEON(y, x *float32, n int, cap float32)

//go:noescape
func siluMulNEON(y, gate, up *float32, n int)

//go:noescape
func geluMulNEON(y, gate, up *float32, n int)

//go:noescape
func siluMulBackwardNEON(dgate, dup, dy, gate, up *float32, n int)

//go:noescape
func geluMulBackwardNEON(dgate, dup, dy, gate, up *float32, n int)
