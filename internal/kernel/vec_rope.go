package kernel

// Rope rotates, in place, the first 2·len(cos) elements of one head's row x by
// the angles whose cosines and sines are given; the rest stays. With neox the
// pairs are x[i], x[i+len(cos)], otherwise they are neighbours.
//
//	a, b = a*cos - b*sin, b*cos + a*sin
func Rope(x, cos, sin []float32, neox bool) { rope(x, cos, sin, neox, false) }

// RopeBackward rotates back: it is the inverse of [Rope], and takes the gradient of
// its result to that of its input.
//
//	a, b = a*cos + b*sin, b*cos - a*sin
func RopeBackward(x, cos, sin []float32, neox bool) { rope(x, cos, sin, neox, true) }

func rope(x, cos, sin []float32, neox, back bool) {
	h := len(cos)
	sameLen(h, len(sin))
	if 2*h > len(x) {
		panic("kernel: rope of more elements than the row has")
	}
	next, at := 1, 2 // where in x a pair's second element and the next pair are
	if neox {
		next, at = h, 1
	}
	for i := ropeVec(x, cos, sin, neox, back); i < h; i++ {
		c, s := cos[i], sin[i]
		if back {
			s = -s
		}
		a, b := x[at*i], x[at*i+next]
		x[at*i] = float32(a*c) - float32(b*s)
		x[at*i+next] = float32(b*c) + float32(a*s)
	}
}
