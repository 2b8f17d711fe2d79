package train

import (
	"math"
	"slices"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

// factors are the leading singular vectors and values of a matrix W (out x in).
type factors struct {
	u, v  kernel.Mat // k x out and k x in, rows of norm 1
	sigma []float64  // k of them, descending
}

// principal finds the k leading singular vectors of W by subspace iteration from a
// random start (Halko, Martinsson, Tropp 2011, algorithm 4.4): times gives x·Wᵀ for
// x of some rows, and back y·W. All arithmetic is in an order of its own, so that
// the numbers are the same on any machine.
func principal(out, in, k int, s rng.Stream, times, back func(kernel.Mat) kernel.Mat) factors {
	n := min(k+8, out, in)
	k = min(k, n)
	x := kernel.NewMat(n, in)
	for i := range x.Data {
		// A sum of four uniform numbers is normal enough for a direction.
		sum := s.Uniform(uint64(4*i)) + s.Uniform(uint64(4*i+1)) + s.Uniform(uint64(4*i+2)) + s.Uniform(uint64(4*i+3))
		x.Data[i] = sum - 2
	}
	const rounds = 5
	var y kernel.Mat
	for range rounds {
		orthonormalise(x)
		y = times(x)
		orthonormalise(y)
		x = back(y) // its rows: W's, seen from the basis y of W's columns
	}
	g := make([]float64, n*n)
	for i := range n {
		for j := range i + 1 {
			d := dot64(x.Row(i), x.Row(j))
			g[i*n+j], g[j*n+i] = d, d
		}
	}
	values, vectors := symmetricEigen(g, n)
	f := factors{u: kernel.NewMat(k, out), v: kernel.NewMat(k, in), sigma: make([]float64, k)}
	for c := range k {
		f.sigma[c] = math.Sqrt(max(values[c], 0))
		combine(f.u.Row(c), y, vectors[c*n:(c+1)*n], 1)
		if f.sigma[c] > 0 {
			combine(f.v.Row(c), x, vectors[c*n:(c+1)*n], 1/f.sigma[c])
		}
	}
	return f
}

// combine makes dst the sum of m's rows times w and factor.
func combine(dst []float32, m kernel.Mat, w []float64, factor float64) {
	sum := make([]float64, len(dst))
	for i, x := range w {
		f := float64(x * factor)
		for j, v := range m.Row(i) {
			sum[j] += float64(f * float64(v))
		}
	}
	for j, v := range sum {
		dst[j] = float32(v)
	}
}

func dot64(x, y []float32) (sum float64) {
	for i, v := range x {
		sum += float64(float64(v) * float64(y[i]))
	}
	return sum
}

// orthonormalise makes m's rows orthonormal by Gram and Schmidt, twice. A row that
// depends on those before it becomes zero.
func orthonormalise(m kernel.Mat) {
	for i := range m.Rows {
		row := m.Row(i)
		was := math.Sqrt(dot64(row, row))
		for range 2 {
			for j := range i {
				kernel.Axpy(row, float32(-dot64(row, m.Row(j))), m.Row(j))
			}
		}
		norm := math.Sqrt(dot64(row, row))
		if norm <= 1e-6*was || norm == 0 {
			clear(row)
			continue
		}
		kernel.Scale(row, float32(1/norm), row)
	}
}

// symmetricEigen gives the eigenvalues of the symmetric g (n x n, destroyed),
// descending, and the eigenvectors as rows, by Jacobi's cyclic rotations.
func symmetricEigen(g []float64, n int) (values, vectors []float64) {
	v := make([]float64, n*n)
	for i := range n {
		v[i*n+i] = 1
	}
	for range 60 {
		var off, all float64
		for i := range n {
			for j := range n {
				x := float64(g[i*n+j] * g[i*n+j])
				if all += x; i != j {
					off += x
				}
			}
		}
		if off <= 1e-26*all {
			break
		}
		for p := range n {
			for q := p + 1; q < n; q++ {
				if g[p*n+q] == 0 {
					continue
				}
				theta := (g[q*n+q] - g[p*n+p]) / (2 * g[p*n+q])
				t := 1 / (math.Abs(theta) + math.Sqrt(1+float64(theta*theta)))
				if theta < 0 {
					t = -t
				}
				c := 1 / math.Sqrt(1+float64(t*t))
				s := float64(t * c)
				for i := range n { // columns p and q
					x, y := g[i*n+p], g[i*n+q]
					g[i*n+p], g[i*n+q] = float64(c*x)-float64(s*y), float64(s*x)+float64(c*y)
				}
				for i := range n { // rows p and q
					x, y := g[p*n+i], g[q*n+i]
					g[p*n+i], g[q*n+i] = float64(c*x)-float64(s*y), float64(s*x)+float64(c*y)
					x, y = v[p*n+i], v[q*n+i]
					v[p*n+i], v[q*n+i] = float64(c*x)-float64(s*y), float64(s*x)+float64(c*y)
				}
			}
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch x, y := g[i*n+i], g[j*n+j]; {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	vectors = make([]float64, n*n)
	for k, i := range order {
		values = append(values, g[i*n+i])
		copy(vectors[k*n:(k+1)*n], v[i*n:(i+1)*n])
	}
	return values, vectors
}
