package kernel

// SiLUMul is the gated activation of the llama family. y may be gate or up.
//
//	y[i] = gate[i] * Sigmoid(gate[i]) * up[i]
func SiLUMul(y, gate, up []float32) {
	sameLen(len(y), len(gate))
	sameLen(len(y), len(up))
	n := siluMulVec(y, gate, up)
	y, gate, up = y[n:], gate[n:], up[n:]
	for i, g := range gate {
		y[i] = float32(g*Sigmoid(g)) * up[i]
	}
}

// SiLUMulBackward takes the gradient dy of [SiLUMul] to those of gate and up. dgate
// and dup may be any of the inputs.
//
//	s = Sigmoid(gate[i]); a = gate[i]*s
//	dup[i] = dy[i] * a
//	dgate[i] = dy[i] * up[i] * (a*(1-s) + s)
func SiLUMulBackward(dgate, dup, dy, gate, up []float32) {
	for _, x := range [][]float32{dgate, dup, gate, up} {
		sameLen(len(x), len(dy))
	}
	n := siluMulBackwardVec(dgate, dup, dy, gate, up)
	for i := n; i < len(dy); i++ {
		g, d, u := gate[i], dy[i], up[i]
		s := Sigmoid(g)
		a := float32(g * s)
		dup[i] = float32(d * a)
		dgate[i] = float32(d*u) * (float32(a*(1-s)) + s)
	}
}

// The tanh form of GELU, x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))), is
// x·Sigmoid(x·(geluLinear + geluCubic·x²)), which loses nothing for large negative x.
const (
	geluLinear = 1.5957691216057308 // 2·√(2/π)
	geluCubic  = 0.044715 * geluLinear
	geluCubic3 = 3 * geluCubic
)

// GELUMul is the gated activation of gemma: GELU in its tanh form (torch's
// gelu_pytorch_tanh). y may be gate or up.
//
//	y[i] = gelu(gate[i]) * up[i]
func GELUMul(y, gate, up []float32) {
	sameLen(len(y), len(gate))
	sameLen(len(y), len(up))
	n := geluMulVec(y, gate, up)
	y, gate, up = y[n:], gate[n:], up[n:]
	for i, g := range gate {
		s := Sigmoid(g * (float32(float32(g*g)*geluCubic) + geluLinear))
		y[i] = float32(g*s) * up[i]
	}
}

// GELUMulBackward takes the gradient dy of [GELUMul] to those of gate and up. dgate
// and dup may be any of the inputs.
//
//	s, a as above: gelu(x) = a = x*s
//	dup[i] = dy[i] * a
//	dgate[i] = dy[i] * up[i] * (a*(1-s)*(geluCubic3*x² + geluLinear) + s)
func GELUMulBackward(dgate, dup, dy, gate, up []float32) {
	for _, x := range [][]float32{dgate, dup, gate, up} {
		sameLen(len(x), len(dy))
	}
	n := geluMulBackwardVec(dgate, dup, dy, gate, up)
	for i := n; i < len(dy); i++ {
		g, d, u := gate[i], dy[i], up[i]
		z := float32(g * g)
		s := Sigmoid(g * (float32(z*geluCubic) + geluLinear))
		a := float32(g * s)
		dup[i] = float32(d * a)
		b := float32(float32(a*(1-s)) * (float32(z*geluCubic3) + geluLinear))
		dgate[i] = float32(d*u) * (b + s)
	}
}

// Softcap bounds logits smoothly. y may be x.
//
//	y[i] = Tanh(x[i]/cap) * cap
func Softcap(y, x []float32, cap float32) {
	sameLen(len(y), len(x))
	n := softcapVec(y, x, cap)
	y, x = y[n:], x[n:]
	for i, v := range x {
		y[i] = Tanh(v/cap) * cap
	}
}

// SoftcapBackward takes the gradient dy of y = [Softcap] to that of its input. dx
// may be dy or y.
//
//	t = y[i]/cap; dx[i] = dy[i] * (1 - t*t)
func SoftcapBackward(dx, dy, y []float32, cap float32) {
	sameLen(len(dx), len(dy))
	sameLen(len(dx), len(y))
	n := softcapBackwardVec(dx, dy, y, cap)
	dx, dy, y = dx[n:], dy[n:], y[n:]
	for i, v := range y {
		t := v / cap
		dx[i] = dy[i] * (1 - float32(t*t))
	}
}
