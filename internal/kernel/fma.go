package kernel

import "math"

// FMA is a*b + c rounded once, as the processor's fused multiply-add gives it, from
// operations that every machine has. The product of two float32 is exact in float64,
// so only the sum is rounded before the result is; that first rounding does harm
// only when it lands half-way between two float32, and then the 28 lowest bits of
// the float64 are zero (for results below the smallest normal float32 too, whose
// half-way points have even fewer bits). Those cases take the slow path.
func FMA(a, b, c float32) float32 {
	p, d := float64(a)*float64(b), float64(c)
	s := p + d // exact: a*b is
	if math.Float64bits(s)<<36 == 0 {
		return addOdd(p, d)
	}
	return float32(s)
}

// addOdd rounds p + d to odd before it rounds to float32 (Boldo and Melquiond,
// "Emulation of FMA and correctly rounded sums", 2008): the error of the sum is
// found exactly, and where there is one the last bit is made odd, which no half-way
// point has.
func addOdd(p, d float64) float32 {
	s := p + d                   // exact
	t := s - p                   // exact
	e := (p - (s - t)) + (d - t) // exact
	if u := math.Float64bits(s); e != 0 && u&1 == 0 && s-s == 0 {
		if (e > 0) == (s > 0) {
			u++
		} else {
			u--
		}
		s = math.Float64frombits(u)
	}
	return float32(s)
}
