// Package fmath has elementary functions of float64 that give the same bits on every
// machine. Those of package math do not: on some machines they are assembly, and on
// others the compiler fuses products with sums. Here every operation is rounded on its
// own. They are within some units in the last place, and treat NaN and infinities as
// package math does. All may be called from several goroutines at once.
package fmath

import "math"

const (
	ln2Head = 0x1.62e42fefp-1 // the first 33 bits of ln 2: products with exponents are exact
	ln2Tail = 0x1.473de6af278edp-34
)

// Exp is e^x.
func Exp(x float64) float64 {
	switch {
	case x != x:
		return x
	case x > 709.8:
		return math.Inf(1)
	case x < -745.2:
		return 0
	}
	n := math.Floor(float64(x*math.Log2E) + 0.5)
	hi, lo := x-float64(n*ln2Head), float64(n*ln2Tail)
	r := hi - lo
	rest := (hi - r) - lo // what rounding took from r
	return math.Ldexp(1+(r+(rest+excess(r))), int(n))
}

// excess is e^r - 1 - r for |r| < 0.36, by Taylor's series.
func excess(r float64) float64 {
	s := 1.0
	for k := 14.0; k > 2; k-- {
		s = 1 + float64(s*r)/k
	}
	return float64(float64(float64(r*r)/2) * s)
}

// Expm1 is e^x - 1, close to 0 too.
func Expm1(x float64) float64 {
	if math.Abs(x) < 0.35 {
		return x + excess(x)
	}
	return Exp(x) - 1
}

// Log is the natural logarithm.
func Log(x float64) float64 {
	switch {
	case !(x >= 0):
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case x > math.MaxFloat64:
		return x
	}
	f, e := math.Frexp(x)
	if f < math.Sqrt2/2 {
		f *= 2
		e--
	}
	// With d = f-1 and s = d/(2+d) the logarithm of f is 2·(s + s³/3 + s⁵/5 + …), which
	// is d less d²/2 and the rest; d is exact.
	d := f - 1
	s := d / (2 + d)
	z := float64(s * s)
	rest := 0.0
	for k := 25.0; k > 1; k -= 2 {
		rest = float64((2/k + rest) * z)
	}
	half := float64(float64(d*d) / 2)
	k := float64(e)
	return float64(k*ln2Head) + (d - (half - (float64(s*(half+rest)) + float64(k*ln2Tail))))
}

// Log1p is the logarithm of 1+x, close to 0 too.
func Log1p(x float64) float64 {
	u := 1 + x
	if u == 1 || math.IsInf(u, 1) {
		return x
	}
	return Log(u) + (x-(u-1))/u
}

// Pow is x^y for x >= 0. Whole powers up to 2^20 are products.
func Pow(x, y float64) float64 {
	n, part := math.Modf(math.Abs(y))
	if x == 0 || !(n < 1<<20) || math.IsInf(x, 0) {
		return math.Pow(x, y) // 0, 1, infinite or NaN
	}
	p := 1.0
	if part != 0 {
		if part > 0.5 {
			part--
			n++
		}
		p = Exp(part * Log(x))
	}
	for i := int64(n); i > 0; i >>= 1 {
		if i&1 != 0 {
			p = float64(p * x)
		}
		x = float64(x * x)
	}
	if y < 0 {
		return 1 / p
	}
	return p
}

// Sincos is sine and cosine for |x| < 2^20: what is left of x after multiples of π/2 (in
// three parts, of which the first two have room for the multiple) goes through Taylor's
// series.
func Sincos(x float64) (sin, cos float64) {
	const (
		part1 = 1.5707963267341256     // the first 33 bits of π/2
		part2 = 6.077100506303966e-11  // the next 33
		part3 = 2.0222662487959506e-21 // the rest
	)
	n := math.Floor(float64(x*(2/math.Pi)) + 0.5)
	r := x - float64(n*part1)
	r -= float64(n * part2)
	r -= float64(n * part3)
	z := float64(r * r)
	// Horner's scheme from the far end: each factor is one minus the rest of the series.
	s, c := 1.0, 1.0
	for k := 16.0; k > 0; k -= 2 {
		s = 1 - float64(s*(z/float64(k*(k+1))))
		c = 1 - float64(c*(z/float64(k*(k-1))))
	}
	s *= r
	switch int64(n) & 3 {
	case 0:
		return s, c
	case 1:
		return c, -s
	case 2:
		return -s, -c
	}
	return -c, s
}

// Sin is the sine, in the range of [Sincos].
func Sin(x float64) float64 {
	s, _ := Sincos(x)
	return s
}

// Cos is the cosine, in the range of [Sincos].
func Cos(x float64) float64 {
	_, c := Sincos(x)
	return c
}

// Acos is the angle from 0 to π whose cosine is x, NaN outside of [-1, 1].
func Acos(x float64) float64 {
	if !(x >= -1 && x <= 1) {
		return math.NaN()
	}
	// Half the angle has the sine √((1-|x|)/2), at most √½: Newton's steps find it, each
	// with twice the digits of the one before.
	s := math.Sqrt((1 - math.Abs(x)) / 2)
	a := s + float64(s*s*s)/6
	for range 5 {
		sin, cos := Sincos(a)
		a -= (sin - s) / cos
	}
	if x < 0 {
		return math.Pi - 2*a
	}
	return 2 * a
}
