//go:build !(amd64 || arm64) || noasm

package kernel

// Without assembly the vector kernels do no elements, and the loops of the exported
// functions all of them.

func dotVec(l *lanes, x, y []float32) int                                { return 0 }
func dot3Vec(l *lanes, x, y, z []float32) int                            { return 0 }
func sumVec(l *lanes, x []float32) int                                   { return 0 }
func sumSquares64Vec(l *[16]float64, x []float32) int                    { return 0 }
func dot64Vec(l *[16]float64, x, y []float32) int                        { return 0 }
func maxVec(l *lanes, x []float32) int                                   { return 0 }
func addVec(dst, x []float32) int                                        { return 0 }
func subVec(dst, x, y []float32) int                                     { return 0 }
func mulVec(dst, x, y []float32) int                                     { return 0 }
func scaleVec(dst []float32, a float32, x []float32) int                 { return 0 }
func axpyVec(dst []float32, a float32, x []float32) int                  { return 0 }
func expVec(dst, x []float32, shift float32) int                         { return 0 }
func sigmoidVec(dst, x []float32) int                                    { return 0 }
func softmaxBackwardVec(dx, p, dp []float32, d float32) int              { return 0 }
func normVec(y, x, w []float32, r float32) int                           { return 0 }
func normBackwardVec(dx, dy, x, w []float32, r, c float32, acc bool) int { return 0 }
func siluMulVec(y, gate, up []float32) int                               { return 0 }
func siluMulBackwardVec(dgate, dup, dy, gate, up []float32) int          { return 0 }
func geluMulVec(y, gate, up []float32) int                               { return 0 }
func geluMulBackwardVec(dgate, dup, dy, gate, up []float32) int          { return 0 }
func softcapVec(y, x []float32, cap float32) int                         { return 0 }
func softcapBackwardVec(dx, dy, y []float32, cap float32) int            { return 0 }
func ropeVec(x, cos, sin []float32, neox, back bool) int                 { return 0 }
func f16ToF32Vec(dst []float32, src []byte) int                          { return 0 }
func f32ToF16Vec(dst []byte, src []float32) int                          { return 0 }
func bf16ToF32Vec(dst []float32, src []byte) int                         { return 0 }
func f32ToBF16Vec(dst []byte, src []float32) int                         { return 0 }
func adamWVec(p, m, v, g []float32, s *AdamWStep) int                    { return 0 }
