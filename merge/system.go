package merge

import (
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// system is the problem of choosing numbers x_v, each from a set of its own, so that
//
//	xᵀ G x - 2 bᵀ x
//
// is small, for variables that are coupled through few directions:
//
//	G_vw = z_v·z_w + scale2_v if v is w
//
// It never forms G: all is in O(variables · directions). It is used again without allocating.
type system struct {
	n, k   int
	scale2 []float64
	z      []float32 // n x k
	b      []float64
	x      []float64
	fixed  []bool // variables that stay zero

	u      []float32  // k: the sum of x_v z_v
	diag   []float64  // G_vv
	root   kernel.Mat // n x k: z by the root of what is of one variable alone
	half   []float64  // n: of that root
	core   kernel.Mat // k x k
	factor []float64  // k x k
	tmp    []float64  // k
}

func (y *system) resize(n, k int) {
	y.n, y.k = n, k
	if cap(y.b) < n || len(y.u) != k {
		y.z, y.u, y.fixed = make([]float32, n*k), make([]float32, k), make([]bool, n)
		y.root, y.core = kernel.NewMat(n, k), kernel.NewMat(k, k)
		y.factor, y.tmp = make([]float64, k*k), make([]float64, k)
		for _, p := range []*[]float64{&y.scale2, &y.b, &y.x, &y.diag, &y.half} {
			*p = make([]float64, n)
		}
	}
	y.z, y.fixed = y.z[:n*k], y.fixed[:n]
	y.root.Rows, y.root.Data = n, y.root.Data[:n*k]
	for _, p := range []*[]float64{&y.scale2, &y.b, &y.x, &y.diag, &y.half} {
		*p = (*p)[:n]
	}
}

func (y *system) row(v int) []float32 { return y.z[v*y.k : (v+1)*y.k] }

// systemSweeps is how often single numbers are looked at again after all have been rounded once.
const systemSweeps = 1

// solve finds the best x, whatever the sets are. With what is of one variable alone, C, and the
// z as the rows of Z,
//
//	x = C⁻¹b - C⁻¹Z (1 + ZᵀC⁻¹Z)⁻¹ ZᵀC⁻¹b
//
// (Woodbury), in terms of the root of C. Variables that are fixed stay zero; so does one that
// does nothing.
func (y *system) solve() {
	clear(y.root.Data)
	for v, a := range y.scale2 {
		y.fixed[v] = y.fixed[v] || !(a > 0)
		y.half[v] = 0
		if !y.fixed[v] {
			y.half[v] = 1 / math.Sqrt(a)
			kernel.Scale(y.root.Row(v), float32(y.half[v]), y.row(v))
		}
		y.x[v] = y.half[v] * y.b[v]
	}
	kernel.GemmTN(nil, y.core, y.root, y.root, false)
	clear(y.u)
	for v, x := range y.x {
		if x != 0 {
			kernel.Axpy(y.u, float32(x), y.root.Row(v))
		}
	}
	y.throughCore()
	for v, a := range y.scale2 {
		if y.fixed[v] {
			y.x[v] = 0
		} else {
			y.x[v] = y.half[v] * (y.x[v] - float64(kernel.Dot(y.root.Row(v), y.u)))
		}
		y.diag[v] = float64(kernel.Dot(y.row(v), y.row(v))) + a
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
		for v := y.n - 1; v >= 0; v-- {
			if y.fixed[v] {
				continue
			}
			g := y.b[v] - float64(kernel.Dot(y.row(v), y.u)) - float64(y.scale2[v]*y.x[v])
			x := nearest(v, y.x[v]+g/y.diag[v])
			if d := x - y.x[v]; d != 0 && d-d == 0 {
				kernel.Axpy(y.u, float32(d), y.row(v))
				y.x[v] = x
				moved = true
			}
		}
		if sweep > 0 && !moved {
			break
		}
	}
	cost := float64(kernel.Dot(y.u, y.u))
	for v, x := range y.x {
		cost += float64(x * (float64(y.scale2[v]*x) - float64(2*y.b[v])))
	}
	return cost < 0
}
