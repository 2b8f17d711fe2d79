package merge

import "math"

// lattice is the problem of choosing numbers x_v, each from a set of its own, so that
//
//	(x - y)ᵀ G (x - y)    with G y = b
//
// is small. It is solved in place, without allocating for the same size twice.
type lattice struct {
	p int
	g []float64 // p x p, symmetric; of it the lower part is used, and overwritten
	b []float64
	y []float64
}

func (l *lattice) resize(p int) {
	if cap(l.b) < p {
		l.g, l.b, l.y = make([]float64, p*p), make([]float64, p), make([]float64, p)
	}
	l.p, l.g, l.b, l.y = p, l.g[:p*p], l.b[:p], l.y[:p]
}

// fix takes a variable out of the problem: its x is zero.
func (l *lattice) fix(v int) {
	for i := range v + 1 {
		l.g[v*l.p+i] = 0
	}
	for i := v; i < l.p; i++ {
		l.g[i*l.p+v] = 0
	}
	l.b[v] = 0
}

// solve factors G = L·D·Lᵀ (L with a unit diagonal) and finds y. Variables that change
// nothing, or nothing that others do not, are left at zero.
func (l *lattice) solve() {
	p, g := l.p, l.g
	for j := range p {
		row := g[j*p : j*p+p]
		was := row[j]
		// L_ji·D_i is in row j until here.
		for i := range j {
			u := row[i]
			row[i] = u * reciprocal(g[i*p+i])
			row[j] -= float64(u * row[i])
		}
		if row[j] <= 1e-7*was {
			row[j] = 0
		}
		for k := j + 1; k < p; k++ {
			other := g[k*p : k*p+p]
			s := other[j]
			for i := range j {
				s -= float64(other[i] * row[i])
			}
			other[j] = s
		}
	}
	y := l.y
	copy(y, l.b)
	for j := range p {
		for i := range j {
			y[j] -= float64(g[j*p+i] * y[i])
		}
	}
	for j := range p {
		y[j] *= reciprocal(g[j*p+j])
	}
	for j := p - 1; j >= 0; j-- {
		for k := j + 1; k < p; k++ {
			y[j] -= float64(g[k*p+j] * y[k])
		}
	}
}

func reciprocal(x float64) float64 {
	if x == 0 {
		return 0
	}
	return 1 / x
}

// round finds the x: from the last to the first each is what choose gives for its
// best value, given those before it. It says whether the x are better than zeros,
// which compensated rounding of small numbers need not be.
func (l *lattice) round(choose func(v int, best float64) float64) (better bool) {
	p, g := l.p, l.g
	errs := l.b
	var cost, before float64 // sum over k of D_k (Lᵀ e)_k², with the errors of x and of zeros
	for v := p - 1; v >= 0; v-- {
		best, all := l.y[v], l.y[v]
		for k := v + 1; k < p; k++ {
			best += float64(g[k*p+v] * errs[k])
			all += float64(g[k*p+v] * l.y[k])
		}
		x := 0.0
		if g[v*p+v] != 0 && !math.IsNaN(best) {
			x = choose(v, best)
		}
		errs[v] = l.y[v] - x
		cost += float64(g[v*p+v] * (best - x) * (best - x))
		before += float64(g[v*p+v] * all * all)
	}
	return cost < before
}
