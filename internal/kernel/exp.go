package kernel

import "math"

// The exponential and its family in float32. Every operation is rounded on its own
// (none is fused), in the same order in every tier, so that a processor without
// fused multiply-add is not at a disadvantage and all give the same bytes. The
// polynomials are minimax fits to this file's intervals, their coefficients rounded
// one after the other to float32 with the rest fitted again.

const (
	expLow  = -104 // e^x rounds to zero below
	expHigh = 89   // and overflows above
	log2e   = 1.4426950408889634
	// ln 2 in two parts; the first has nine bits, so that its product with an exponent is exact.
	ln2Hi = 0.693359375
	ln2Lo = -2.12194440054690583e-4
	// Adding roundMagic to a small number rounds it to an integer, which then stands
	// in the low bits of the sum.
	roundMagic     = 3 << 22
	roundMagicBits = 0x4b400000

	// e^r = 1 + r + r²·(exp2 + exp3·r + … + exp6·r⁴) for |r| ≤ ln2/2, relative error 2^-28.
	exp2 = 0.4999999403953552
	exp3 = 0.1666652113199234
	exp4 = 0.04166825860738754
	exp5 = 0.00836866907775402
	exp6 = 0.0013821362517774105

	// tanh x = x + x·z·(tanh1 + tanh2·z + … + tanh5·z⁴), z = x², for |x| < tanhSmall.
	tanhSmall = 0.625
	tanh1     = -0.3333328366279602
	tanh2     = 0.13331486284732819
	tanh3     = -0.05374317243695259
	tanh4     = 0.020649708807468414
	tanh5     = -0.0057162027806043625
)

// logPoly are the coefficients of log(1+f) = f - f²/2 + f³·(l0 + l1·f + …) for
// 1+f between √½ and √2.
var logPoly = [...]float32{0.3333331048488617, -0.24999986588954926, 0.20002223551273346,
	-0.16669249534606934, 0.14218716323375702, -0.12384402006864548, 0.11872619390487671,
	-0.11789370328187943, 0.06915612518787384}

// Exp is e^x. It is within one unit in the last place everywhere, subnormal results
// included; Exp(-Inf) is 0, Exp(+Inf) is +Inf and Exp(NaN) is NaN.
func Exp(x float32) float32 {
	if x < expLow {
		x = expLow
	}
	if x > expHigh {
		x = expHigh
	}
	t := float32(x*log2e) + roundMagic
	n := t - roundMagic
	r := x - float32(n*ln2Hi)
	r -= float32(n * ln2Lo)
	q := float32(r*exp6) + exp5
	q = float32(q*r) + exp4
	q = float32(q*r) + exp3
	q = float32(q*r) + exp2
	q = float32(float32(r*r)*q) + r
	q++
	// The power of two goes on in two steps, of which only the second can round.
	k := int32(math.Float32bits(t)) - roundMagicBits
	k1 := k >> 1
	q *= math.Float32frombits(uint32(k1+127) << 23)
	return q * math.Float32frombits(uint32(k-k1+127)<<23)
}

// Sigmoid is 1/(1+e^-x), within 2.3 units in the last place for every x, subnormal
// results included. Sigmoid(NaN) is NaN.
func Sigmoid(x float32) float32 {
	e := Exp(-abs(x))
	if x < 0 {
		return e / (e + 1)
	}
	return 1 / (e + 1)
}

// Tanh is the hyperbolic tangent, within 1.3 units in the last place. Tanh(±0) is
// ±0, Tanh(±Inf) is ±1 and Tanh(NaN) is NaN.
func Tanh(x float32) float32 {
	a := abs(x)
	var y float32
	if a < tanhSmall {
		z := float32(a * a)
		q := float32(z*tanh5) + tanh4
		q = float32(q*z) + tanh3
		q = float32(q*z) + tanh2
		q = float32(q*z) + tanh1
		y = float32(float32(q*z)*a) + a
	} else {
		y = 1 - 2/(Exp(a+a)+1)
	}
	return math.Float32frombits(math.Float32bits(y) | math.Float32bits(x)&(1<<31))
}

// Log is the natural logarithm, within one unit in the last place. Log(0) is -Inf,
// Log(+Inf) is +Inf, and of a negative number or NaN it is NaN.
func Log(x float32) float32 {
	switch {
	case !(x >= 0):
		return float32(math.NaN())
	case x == 0:
		return float32(math.Inf(-1))
	case x > math.MaxFloat32:
		return x
	}
	var e int32
	if x < 0x1p-126 {
		x *= 0x1p24
		e = -24
	}
	const sqrtHalf = 0x3f3504f3
	u := math.Float32bits(x)
	k := int32(u-sqrtHalf) >> 23
	f := math.Float32frombits(u-uint32(k)<<23) - 1
	n := float32(e + k)
	var q float32
	for i := len(logPoly) - 1; i >= 0; i-- {
		q = float32(q*f) + logPoly[i]
	}
	z := float32(f * f)
	q = float32(float32(z*f) * q)
	q += float32(n * ln2Lo)
	q -= float32(z / 2)
	q += f
	return q + float32(n*ln2Hi)
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// VecExp does dst[i] = Exp(x[i]).
func VecExp(dst, x []float32) { expShifted(dst, x, 0) }

// expShifted does dst[i] = Exp(x[i] - shift).
func expShifted(dst, x []float32, shift float32) {
	sameLen(len(dst), len(x))
	n := expVec(dst, x, shift)
	dst, x = dst[n:], x[n:]
	for i, v := range x {
		dst[i] = Exp(v - shift)
	}
}

// VecSigmoid does dst[i] = Sigmoid(x[i]).
func VecSigmoid(dst, x []float32) {
	sameLen(len(dst), len(x))
	n := sigmoidVec(dst, x)
	dst, x = dst[n:], x[n:]
	for i, v := range x {
		dst[i] = Sigmoid(v)
	}
}

// VecTanh does dst[i] = Tanh(x[i]).
func VecTanh(dst, x []float32) { Softcap(dst, x, 1) }
