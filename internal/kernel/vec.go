package kernel

import "math"

// Element-wise operations and sums over rows. In all of them dst comes first, the
// slices belong to the caller and have equal lengths (anything else panics), and
// dst may be one of the inputs but must not overlap one otherwise. Products and
// sums are rounded one by one unless fma is written.

// lanes is the accumulator of a sum along a row: element i goes to lane i%16.
type lanes [16]float32

// sum adds the lanes up: l and l+8, then l and l+4, then +2, then +1.
func (l *lanes) sum() float32 {
	for step := 8; step > 0; step /= 2 {
		for i := range step {
			l[i] += l[i+step]
		}
	}
	return l[0]
}

func sameLen(n, m int) {
	if n != m {
		panic("kernel: slices of different lengths")
	}
}

// Dot is the sum of x∘y.
//
//	for i := range x { lane[i%16] = fma(x[i], y[i], lane[i%16]) }
func Dot(x, y []float32) float32 {
	sameLen(len(x), len(y))
	var l lanes
	n := dotVec(&l, x, y) // whole lanes, so that the rest begins with lane 0
	l.dot(x[n:], y[n:])
	return l.sum()
}

// dot adds x∘y to the lanes, from lane 0 on.
func (l *lanes) dot(x, y []float32) {
	for ; len(x) >= len(l); x, y = x[len(l):], y[len(l):] {
		a, b := (*lanes)(x), (*lanes)(y)
		for j := 0; j < len(l); j += 4 {
			fma4((*[4]float32)(l[j:]), (*[4]float32)(a[j:]), (*[4]float32)(b[j:]))
		}
	}
	for j, v := range x {
		l[j] = FMA(v, y[j], l[j])
	}
}

// fma4 does c[i] = FMA(a[i], b[i], c[i]). Four at a time, because the conversion to
// float64 waits for what its register held before, and four have four registers.
func fma4(c, a, b *[4]float32) {
	s0 := float64(a[0])*float64(b[0]) + float64(c[0]) // exact
	s1 := float64(a[1])*float64(b[1]) + float64(c[1]) // exact
	s2 := float64(a[2])*float64(b[2]) + float64(c[2]) // exact
	s3 := float64(a[3])*float64(b[3]) + float64(c[3]) // exact
	if math.Float64bits(s0)<<36 == 0 || math.Float64bits(s1)<<36 == 0 ||
		math.Float64bits(s2)<<36 == 0 || math.Float64bits(s3)<<36 == 0 {
		for i := range c {
			c[i] = FMA(a[i], b[i], c[i])
		}
		return
	}
	c[0], c[1], c[2], c[3] = float32(s0), float32(s1), float32(s2), float32(s3)
}

// SumSquares is Dot(x, x).
func SumSquares(x []float32) float32 { return Dot(x, x) }

// Sum is the sum of x.
//
//	for i := range x { lane[i%16] += x[i] }
func Sum(x []float32) float32 {
	var l lanes
	for i := sumVec(&l, x); i < len(x); i++ {
		l[i&15] += x[i]
	}
	return l.sum()
}

// SumSquares64 is the sum of the squares of x in float64, for norms of gradients.
//
//	for i := range x { lane[i%16] += float64(x[i])*float64(x[i]) }
func SumSquares64(x []float32) float64 {
	var l [16]float64
	squares64(&l, x)
	return sum64(&l)
}

// squares64 adds the squares to the lanes, from lane 0 on.
func squares64(l *[16]float64, x []float32) {
	for i := sumSquares64Vec(l, x); i < len(x); i++ {
		v := float64(x[i])
		l[i&15] += v * v // exact: whether it is fused does not matter
	}
}

// Dot64 is the dot product of x and y, of the same length, in float64.
//
//	for i := range x { lane[i%16] += float64(x[i])*float64(y[i]) }
func Dot64(x, y []float32) float64 {
	y = y[:len(x)]
	var l [16]float64
	dot64(&l, x, y)
	return sum64(&l)
}

// dot64 adds the products to the lanes, from lane 0 on.
func dot64(l *[16]float64, x, y []float32) {
	for i := dot64Vec(l, x, y); i < len(x); i++ {
		l[i&15] += float64(x[i]) * float64(y[i]) // exact
	}
}

func sum64(l *[16]float64) float64 {
	for step := 8; step > 0; step /= 2 {
		for i := range step {
			l[i] += l[i+step]
		}
	}
	return l[0]
}

// MaxVal is the largest element of x, passing over NaN; -Inf if there is none.
func MaxVal(x []float32) float32 {
	inf := float32(math.Inf(-1))
	var l lanes
	for i := range l {
		l[i] = inf
	}
	m := inf
	for i := maxVec(&l, x); i < len(x); i++ {
		if x[i] > m {
			m = x[i]
		}
	}
	for _, v := range l {
		if v > m {
			m = v
		}
	}
	return m + 0 // of -0 and +0, which are equally large, +0
}

// ArgMax is the index of the first of the largest elements of x, passing over NaN;
// -1 if there is none.
func ArgMax(x []float32) int {
	m := MaxVal(x)
	for i, v := range x {
		if v == m {
			return i
		}
	}
	return -1
}

// Add does dst[i] += x[i].
func Add(dst, x []float32) {
	sameLen(len(dst), len(x))
	n := addVec(dst, x)
	dst, x = dst[n:], x[n:]
	for i, v := range x {
		dst[i] += v
	}
}

// Sub does dst[i] = x[i] - y[i].
func Sub(dst, x, y []float32) {
	sameLen(len(dst), len(x))
	sameLen(len(dst), len(y))
	n := subVec(dst, x, y)
	dst, x, y = dst[n:], x[n:], y[n:]
	for i, v := range x {
		dst[i] = v - y[i]
	}
}

// Mul does dst[i] = x[i] * y[i].
func Mul(dst, x, y []float32) {
	sameLen(len(dst), len(x))
	sameLen(len(dst), len(y))
	n := mulVec(dst, x, y)
	dst, x, y = dst[n:], x[n:], y[n:]
	for i, v := range x {
		dst[i] = v * y[i]
	}
}

// Scale does dst[i] = a * x[i].
func Scale(dst []float32, a float32, x []float32) {
	sameLen(len(dst), len(x))
	n := scaleVec(dst, a, x)
	dst, x = dst[n:], x[n:]
	for i, v := range x {
		dst[i] = a * v
	}
}

// Axpy does dst[i] = fma(a, x[i], dst[i]).
func Axpy(dst []float32, a float32, x []float32) {
	sameLen(len(dst), len(x))
	n := axpyVec(dst, a, x)
	dst, x = dst[n:], x[n:]
	f := [4]float32{a, a, a, a}
	for ; len(x) >= 4; x, dst = x[4:], dst[4:] {
		fma4((*[4]float32)(dst), &f, (*[4]float32)(x))
	}
	for i, v := range x {
		dst[i] = FMA(a, v, dst[i])
	}
}
