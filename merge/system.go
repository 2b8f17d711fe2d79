package merge

import (
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// system is the problem of choosing numbers x_v, each from a set of its own, so that
//
//	xᵀ G x - 2 bᵀ x
//
// is small, for variables that are coupled through few directions: the first half of them are
// scales, the other, if there is one, the minimums of the same places, and
//
//	G_vw = z_v·z_w + what v and w have in common if they are of one place
//
// It never forms G: all is in O(variables · directions). It is used again without allocating.
type system struct {
	places, k int
	n         int // variables: places, or twice that
	scale2    []float64
	both      []float64 // of a scale and its minimum
	min2      []float64
	z         []float32 // n x k
	b         []float64
	x         []float64
	fixed     []bool // variables that stay zero

	u      []float32  // k: the sum of x_v z_v
	diag   []float64  // G_vv
	root   kernel.Mat // n x k: z by the root of what is of one place alone
	half   []float64  // n: of that root
	slope  []float64  // of each place, how much of a scale does what one of its minimum does
	core   kernel.Mat // k x k
	factor []float64  // k x k
	tmp    []float64  // k
}

func (y *system) resize(places, k int, min bool) {
	y.places, y.k, y.n = places, k, places
	if min {
		y.n = 2 * places
	}
	if cap(y.b) < y.n || len(y.u) != k {
		y.z, y.u, y.fixed = make([]float32, y.n*k), make([]float32, k), make([]bool, y.n)
		y.root, y.core = kernel.NewMat(y.n, k), kernel.NewMat(k, k)
		y.factor, y.tmp = make([]float64, k*k), make([]float64, k)
		for _, p := range []*[]float64{&y.scale2, &y.both, &y.min2, &y.b, &y.x, &y.diag, &y.half, &y.slope} {
			*p = make([]float64, y.n)
		}
	}
	y.z, y.fixed = y.z[:y.n*k], y.fixed[:y.n]
	y.root.Rows, y.root.Data = y.n, y.root.Data[:y.n*k]
	for _, p := range []*[]float64{&y.b, &y.x, &y.diag, &y.half, &y.slope} {
		*p = (*p)[:y.n]
	}
	for _, p := range []*[]float64{&y.scale2, &y.both, &y.min2} {
		*p = (*p)[:places]
	}
}

func (y *system) row(v int) []float32 { return y.z[v*y.k : (v+1)*y.k] }

// systemSweeps is how often single numbers are looked at again after all have been rounded once.
const systemSweeps = 1

// solve finds the best x, whatever the sets are. With what is of one place alone, C, and the
// z as the rows of Z,
//
//	x = C⁻¹b - C⁻¹Z (1 + ZᵀC⁻¹Z)⁻¹ ZᵀC⁻¹b
//
// (Woodbury), in terms of the root of C. Variables that are fixed stay zero; so does a scale that
// does what its minimum does, or nothing.
func (y *system) solve() {
	min := y.n > y.places
	clear(y.root.Data)
	for p := range y.places {
		a, c := y.scale2[p], 0.0
		if min {
			c = y.both[p]
			y.fixed[p] = y.fixed[p] || !(float64(a*y.min2[p])*(1-1e-6) > float64(c*c))
		}
		y.fixed[p] = y.fixed[p] || !(a > 0)
		y.half[p], y.slope[p] = 0, 0
		if !y.fixed[p] {
			y.half[p], y.slope[p] = 1/math.Sqrt(a), c/a
			kernel.Scale(y.root.Row(p), float32(y.half[p]), y.row(p))
		}
		if !min {
			continue
		}
		m := y.places + p
		d := y.min2[p] - float64(c*y.slope[p]) // what is left of it without what the scale does
		y.half[m] = 0
		if y.fixed[m] = y.fixed[m] || !(d > 0); !y.fixed[m] {
			y.half[m] = 1 / math.Sqrt(d)
			kernel.Scale(y.root.Row(m), float32(y.half[m]), y.row(m))
			kernel.Axpy(y.root.Row(m), float32(-y.half[m]*y.slope[p]), y.row(p))
		}
	}
	for p := range y.places {
		y.x[p] = y.half[p] * y.b[p]
		if m := y.places + p; min {
			y.x[m] = y.half[m] * (y.b[m] - float64(y.slope[p]*y.b[p]))
		}
	}
	kernel.GemmTN(nil, y.core, y.root, y.root, false)
	clear(y.u)
	for v, x := range y.x {
		if x != 0 {
			kernel.Axpy(y.u, float32(x), y.root.Row(v))
		}
	}
	y.throughCore()
	for v := range y.x {
		if !y.fixed[v] {
			y.x[v] = y.half[v] * (y.x[v] - float64(kernel.Dot(y.root.Row(v), y.u)))
		}
	}
	for p := range y.places {
		if min {
			y.x[p] -= float64(y.slope[p] * y.x[y.places+p])
		}
	}
	for v := range y.x {
		if y.fixed[v] {
			y.x[v] = 0
		}
		z := y.row(v)
		y.diag[v] = float64(kernel.Dot(z, z))
		if v < y.places {
			y.diag[v] += y.scale2[v]
		} else {
			y.diag[v] += y.min2[v-y.places]
		}
	}
}

// throughCore solves (1 + core) u' = u in place.
func (y *system) throughCore() {
	k := y.k
	l := y.factor
	for i := range k {
		row := y.core.Row(i)
		li := l[i*k : i*k+k]
		for j := range i {
			lj := l[j*k : j*k+j]
			s := float64(row[j])
			for m, v := range lj {
				s -= float64(li[m] * v)
			}
			li[j] = s * l[j*k+j]
		}
		s := 1 + float64(row[i])
		for _, v := range li[:i] {
			s -= float64(v * v)
		}
		li[i] = 1 / math.Sqrt(max(s, 1e-3)) // 1 and more, but for rounding
	}
	t := y.tmp
	for i := range k {
		s := float64(y.u[i])
		for m, v := range l[i*k : i*k+i] {
			s -= float64(v * t[m])
		}
		t[i] = s * l[i*k+i]
	}
	for i := k - 1; i >= 0; i-- {
		s := t[i]
		for m := i + 1; m < k; m++ {
			s -= float64(l[m*k+i] * t[m])
		}
		t[i] = s * l[i*k+i]
		y.u[i] = float32(t[i])
	}
}

// own is the part of (G x)_v that is of v's place alone.
func (y *system) own(v int, x []float64) float64 {
	if v < y.places {
		g := float64(y.scale2[v] * x[v])
		if y.n > y.places {
			g += float64(y.both[v] * x[y.places+v])
		}
		return g
	}
	p := v - y.places
	return float64(y.min2[p]*x[v]) + float64(y.both[p]*x[p])
}

// round moves every x to what nearest gives for its best value, given all others; those that
// come later make up for the rounding of those before. It says whether the x are better than
// zeros.
func (y *system) round(nearest func(v int, x float64) float64) (better bool) {
	clear(y.u)
	for v, x := range y.x {
		if x != 0 {
			kernel.Axpy(y.u, float32(x), y.row(v))
		}
	}
	for sweep := range 1 + systemSweeps {
		moved := false
		for p := y.places - 1; p >= 0; p-- {
			for v := p; v < y.n; v += y.places {
				if y.fixed[v] {
					continue
				}
				g := y.b[v] - float64(kernel.Dot(y.row(v), y.u)) - y.own(v, y.x)
				x := nearest(v, y.x[v]+g/y.diag[v])
				if d := x - y.x[v]; d != 0 && d-d == 0 {
					kernel.Axpy(y.u, float32(d), y.row(v))
					y.x[v] = x
					moved = true
				}
			}
		}
		if sweep > 0 && !moved {
			break
		}
	}
	cost := float64(kernel.Dot(y.u, y.u))
	for v, x := range y.x {
		cost += float64(x * (y.own(v, y.x) - float64(2*y.b[v])))
	}
	return cost < 0
}
