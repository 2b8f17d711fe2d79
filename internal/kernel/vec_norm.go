package kernel

import "math"

// RMSNorm normalizes one row and returns r, which the backward needs. w is the
// weight of each column, or nil for ones. y may be x.
//
//	r = 1 / sqrt(SumSquares(x)/len(x) + eps); y[i] = x[i] * r * w[i]
func RMSNorm(y, x, w []float32, eps float32) (r float32) {
	sameLen(len(y), len(x))
	if len(x) == 0 {
		return 0
	}
	mean := SumSquares(x) / float32(len(x))
	r = 1 / float32(math.Sqrt(float64(mean+eps)))
	if w == nil {
		Scale(y, r, x)
		return r
	}
	sameLen(len(y), len(w))
	n := normVec(y, x, w, r)
	y, x, w = y[n:], x[n:], w[n:]
	for i, v := range x {
		y[i] = float32(v*r) * w[i]
	}
	return r
}

// RMSNormBackward takes the gradient dy of y = x·r·w to that of x; w is frozen. With
// acc it adds to dx, otherwise it overwrites. dx may be dy when acc is not set.
//
//	t[i] = dy[i] * w[i]
//	c = r * r * (Dot(t, x) / len(x))
//	dx[i] = r * (t[i] - x[i]*c)
func RMSNormBackward(dx, dy, x, w []float32, r float32, acc bool) {
	sameLen(len(dx), len(dy))
	sameLen(len(dx), len(x))
	if len(x) == 0 {
		return
	}
	var d float32
	if w == nil {
		d = Dot(dy, x)
	} else {
		sameLen(len(dx), len(w))
		var l lanes
		var t lanes
		for i := dot3Vec(&l, dy, w, x); i < len(x); i += len(t) {
			k := min(len(t), len(x)-i)
			for j := range k {
				t[j] = dy[i+j] * w[i+j]
			}
			l.dot(t[:k], x[i:i+k])
		}
		d = l.sum()
	}
	c := float32(r*r) * (d / float32(len(x)))
	n := normBackwardVec(dx, dy, x, w, r, c, acc)
	for i := n; i < len(x); i++ {
		t := dy[i]
		if w != nil {
			t = float32(t * w[i])
		}
		t = float32(r * (t - float32(x[i]*c)))
		if acc {
			t += dx[i]
		}
		dx[i] = t
	}
}
