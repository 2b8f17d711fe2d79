package merge

import (
	"math"

	"github.com/graft-lora/graft/internal/fmath"
)

func init() {
	registerBlend(&blendMethod{name: "slerp", help: "along the arc from the base to the model, by t",
		params: []string{"t"}, base: baseNeeded, min: 1, max: 1, open: openSlerp})
	registerBlend(&blendMethod{name: "nuslerp", help: "along the arc between two models, or their differences from a base, by their weights",
		params: []string{"weight", "nuslerp_flatten", "nuslerp_row_wise"}, base: baseOptional, min: 2, max: 2, open: openNuslerp})
	registerBlend(&blendMethod{name: "multislerp", help: "the weighted mean direction of the models, or of their differences from a base, at their mean length",
		params: []string{"weight", "normalize_weights"}, base: baseOptional, min: 1, open: openMultislerp})
	registerBlend(&blendMethod{name: "karcher", help: "the mean of the models on the sphere of their directions, at their mean length",
		params: []string{"max_iter", "tol"}, min: 1, open: openKarcher})
}

// gram holds the products of all pairs of models, or of their differences from the
// base, over the whole matrix.
func (j *blendJob) gram() ([][]float64, error) {
	n := len(j.models)
	g := make([][]float64, n)
	for i := range g {
		g[i] = make([]float64, n)
	}
	err := j.pass(func(_ int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		for a := range n {
			for b := range a + 1 {
				g[a][b] += dot64(x[a], x[b])
			}
		}
	})
	for a := range n {
		for b := range a {
			g[b][a] = g[a][b]
		}
	}
	return g, err
}

// dot64 is a sum of products in float64, in order.
func dot64(x, y []float32) float64 {
	var s float64
	for i, v := range x {
		s += float64(float64(v) * float64(y[i]))
	}
	return s
}

// arc gives the shares of two vectors at t of the way on the arc between them: the
// directions, not their lengths, say how far they are apart. aa, bb and ab are
// their products; from cosine limit on the way is straight.
func arc(t, aa, bb, ab, limit float64) (a, b float64) {
	cos := 0.0
	if aa > 0 && bb > 0 {
		cos = min(max(ab/math.Sqrt(aa)/math.Sqrt(bb), -1), 1)
	}
	theta := fmath.Acos(cos)
	sin := fmath.Sin(theta)
	if math.Abs(cos) > limit || sin < 1e-8 {
		return 1 - t, t
	}
	return fmath.Sin((1-t)*theta) / sin, fmath.Sin(t*theta) / sin
}

// openSlerp follows Shoemake 1985 on the flattened matrix.
func openSlerp(j *blendJob) (blendBlock, error) {
	t, err := j.models[0].param("t", required)
	if err != nil {
		return nil, err
	}
	var aa, bb, ab float64
	if err := j.pass(func(_ int64, x [][]float32, base []float32) {
		aa += dot64(base, base)
		bb += dot64(x[0], x[0])
		ab += dot64(base, x[0])
	}); err != nil {
		return nil, err
	}
	a, b := arc(t, aa, bb, ab, 0.9995)
	return func(dst []float32, _ int64, x [][]float32, base []float32) {
		mix(dst, base, x[0], a, b)
		j.round(dst)
	}, nil
}

// mix is a*x + b*y, in float64 and rounded once.
func mix(dst, x, y []float32, a, b float64) {
	for i, v := range x {
		dst[i] = float32(float64(a*float64(v)) + float64(b*float64(y[i])))
	}
}

func openNuslerp(j *blendJob) (blendBlock, error) {
	w, err := j.params("weight", required)
	if err != nil {
		return nil, err
	}
	t := 0.5
	if s := w[0] + w[1]; math.Abs(s) > 1e-6 {
		t = w[1] / s
	}
	finish := func(dst, base []float32) {
		for i, b := range base {
			dst[i] += b
		}
		j.round(dst)
	}
	whole := j.global("nuslerp_flatten", 1) != 0 || j.rows == 1
	switch {
	case whole:
		g, err := j.gram()
		if err != nil {
			return nil, err
		}
		a, b := arc(t, g[0][0], g[1][1], g[0][1], 2)
		return func(dst []float32, _ int64, x [][]float32, base []float32) {
			j.subtractBase(x, base)
			mix(dst, x[0], x[1], a, b)
			finish(dst, base)
		}, nil
	case j.global("nuslerp_row_wise", 0) != 0:
		a, b, err := j.columnArcs(t)
		if err != nil {
			return nil, err
		}
		return func(dst []float32, _ int64, x [][]float32, base []float32) {
			j.subtractBase(x, base)
			for i := range dst {
				c := i % len(a)
				dst[i] = float32(float64(a[c]*float64(x[0][i])) + float64(b[c]*float64(x[1][i])))
			}
			finish(dst, base)
		}, nil
	}
	return func(dst []float32, _ int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		n := int(j.cols)
		for at := 0; at < len(dst); at += n {
			v, u := x[0][at:at+n], x[1][at:at+n]
			a, b := arc(t, dot64(v, v), dot64(u, u), dot64(v, u), 2)
			mix(dst[at:at+n], v, u, a, b)
		}
		finish(dst, base)
	}, nil
}

// columnArcs gives the shares of the two models for each column.
func (j *blendJob) columnArcs(t float64) (a, b []float64, err error) {
	aa, bb, ab := make([]float64, j.cols), make([]float64, j.cols), make([]float64, j.cols)
	err = j.pass(func(_ int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		for i, v := range x[0] {
			c, p, q := i%len(aa), float64(v), float64(x[1][i])
			aa[c] += float64(p * p)
			bb[c] += float64(q * q)
			ab[c] += float64(p * q)
		}
	})
	a, b = make([]float64, j.cols), make([]float64, j.cols)
	for c := range a {
		a[c], b[c] = arc(t, aa[c], bb[c], ab[c], 2)
	}
	return a, b, err
}

// openMultislerp: unit vectors u_i, their weighted mean m = sum w_i u_i, and one step
// from m/|m| along the weighted sum of the tangents u_i - (u_i·m)m. The sum is zero,
// since m is their mean; so the result is m/|m| times the weighted mean length.
func openMultislerp(j *blendJob) (blendBlock, error) {
	w, err := j.params("weight", required)
	if err != nil {
		return nil, err
	}
	if j.global("normalize_weights", 1) != 0 {
		var sum float64
		for _, v := range w {
			sum += v
		}
		for i := range w {
			w[i] /= sum
		}
	}
	g, err := j.gram()
	if err != nil {
		return nil, err
	}
	c := make([]float64, len(w)) // the mean direction in terms of the models
	var length float64
	for i := range w {
		norm := math.Sqrt(g[i][i])
		c[i] = w[i] / (norm + 1e-8)
		length += float64(w[i] * norm)
	}
	if norm := math.Sqrt(quadratic(g, c)); norm >= 1e-8 {
		for i := range c {
			c[i] *= length / norm
		}
	} else { // no direction: the plain weighted sum
		copy(c, w)
	}
	return j.span(c), nil
}

// quadratic is cᵀ g c, never negative.
func quadratic(g [][]float64, c []float64) float64 {
	var s float64
	for i, a := range c {
		for k, b := range c {
			s += float64(a * b * g[i][k])
		}
	}
	return max(s, 0)
}

// span makes sum c_i x_i, of differences where there is a base, which is added then.
func (j *blendJob) span(c []float64) blendBlock {
	return func(dst []float32, _ int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		for i := range dst {
			var s float64
			for k, v := range x {
				s += float64(c[k] * float64(v[i]))
			}
			dst[i] = float32(s)
			if base != nil {
				dst[i] += base[i]
			}
		}
		j.round(dst)
	}
}

// openKarcher seeks the Karcher mean by fixed-point steps: from u along the mean of
// the logarithms of the unit vectors at u. All of it happens in their span, so that the
// products of the models are all it needs.
func openKarcher(j *blendJob) (blendBlock, error) {
	tol := j.global("tol", 1e-5)
	g, err := j.gram()
	if err != nil {
		return nil, err
	}
	n := len(g)
	norm := make([]float64, n)
	var length float64
	valid := 0
	for i := range g {
		norm[i] = math.Sqrt(g[i][i])
		length += norm[i] / float64(n)
		if norm[i] > tol {
			valid++
		}
	}
	u, unit := make([]float64, n), make([][]float64, n) // in terms of the unit vectors
	for i := range g {
		unit[i] = make([]float64, n)
		for k := range g {
			if norm[i] > tol && norm[k] > tol {
				unit[i][k] = g[i][k] / norm[i] / norm[k]
			}
		}
		if norm[i] > tol {
			u[i] = 1 / float64(valid)
		}
	}
	normalize := func() {
		if l := math.Sqrt(quadratic(unit, u)); l > tol {
			for i := range u {
				u[i] /= l
			}
		}
	}
	normalize()
	for range int(j.global("max_iter", 10)) {
		step := make([]float64, n)
		for i := range u {
			if norm[i] <= tol {
				continue
			}
			var cos float64
			for k, c := range u {
				cos += float64(c * unit[i][k])
			}
			cos = min(max(cos, -1), 1)
			theta := fmath.Acos(cos)
			if theta < tol {
				continue
			}
			f := theta / fmath.Sin(theta) / float64(valid)
			step[i] += f
			for k, c := range u {
				step[k] -= float64(f * cos * c)
			}
		}
		l := math.Sqrt(quadratic(unit, step))
		if l < tol {
			break
		}
		for i := range u {
			u[i] = float64(fmath.Cos(l)*u[i]) + float64(fmath.Sin(l)/l*step[i])
		}
		normalize()
	}
	for i := range u {
		if norm[i] > tol {
			u[i] *= length / norm[i]
		} else {
			u[i] = 0
		}
	}
	return j.span(u), nil
}
