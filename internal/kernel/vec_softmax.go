package kernel

import "math"

// SumExp does dst[i] = Exp(x[i] - max) and returns the [Sum] of dst. dst may be x.
func SumExp(dst, x []float32, max float32) float32 {
	expShifted(dst, x, max)
	return Sum(dst)
}

// Softmax makes dst the softmax of the row x. Elements that are -Inf (masked) get
// exactly 0; a row of nothing else, or with a NaN or +Inf in it, becomes NaN. dst may be x.
//
//	m = MaxVal(x); dst[i] = Exp(x[i] - m); dst[i] = (1/Sum(dst)) * dst[i]
func Softmax(dst, x []float32) {
	s := SumExp(dst, x, MaxVal(x))
	Scale(dst, 1/s, dst)
}

// SoftmaxBackward takes the gradient dp of a softmax p to that of what the softmax
// was taken of. dx may be dp or p.
//
//	d = Dot(p, dp); dx[i] = p[i] * (dp[i] - d)
func SoftmaxBackward(dx, p, dp []float32) {
	d := Dot(p, dp)
	sameLen(len(dx), len(p))
	n := softmaxBackwardVec(dx, p, dp, d)
	dx, p, dp = dx[n:], p[n:], dp[n:]
	for i, v := range p {
		dx[i] = v * (dp[i] - d)
	}
}

// LogSumExp is log Σ e^x[i] over a row, computed relative to the largest element.
// -Inf for an empty row or one of -Inf only.
func LogSumExp(x []float32) float32 {
	m := MaxVal(x)
	if math.IsInf(float64(m), 0) {
		if m < 0 {
			return Sum(x) + m // -Inf, or NaN if all there is are NaN
		}
		return m
	}
	var l lanes
	var buf [256]float32
	for rest := x; len(rest) > 0; {
		k := min(len(rest), len(buf))
		e := buf[:k]
		expShifted(e, rest[:k], m)
		for i := sumVec(&l, e); i < k; i++ { // 256 is a multiple of 16, so the lanes continue
			l[i&15] += e[i]
		}
		rest = rest[k:]
	}
	return Log(l.sum()) + m
}

// CrossEntropy returns the loss -log softmax(x)[target] of one row of logits, and
// makes dx the gradient of scale times it. dx may be x, or nil if the gradient is
// not wanted.
//
//	dx[i] = scale * (softmax(x)[i] - (1 if i == target else 0))
func CrossEntropy(dx, x []float32, target int, scale float32) float32 {
	at := x[target]
	if dx == nil {
		return LogSumExp(x) - at
	}
	m := MaxVal(x)
	s := SumExp(dx, x, m)
	e := dx[target]
	Scale(dx, scale/s, dx)
	dx[target] = scale * (e/s - 1)
	return Log(s) + m - at
}
