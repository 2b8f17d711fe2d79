package merge

import (
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

// ldlqBlock is how many columns are rounded between two products that carry errors
// over.
const ldlqBlock = 32

// roundCompensated moves the codes of rows towards a wanted change of the values so
// that the error is small where inputs are (LDLQ: Chee et al. 2023, the form that
// GPTQ has, too). With h = L·D·Lᵀ the error e of a row costs
//
//	e·h·eᵀ = sum over k of D_k (e_k + sum over j>k of e_j L_jk)²
//
// so columns are rounded from the last to the first, each with the carried errors
// of those before it added to what is wanted of it. codes is rows x n; step
// has a number for every sub-block of g. change receives the change of the values.
func roundCompensated(in *inputs, g *quant.Grid, codes []uint8, step []float32, want, change kernel.Mat) {
	rows, n := want.Rows, in.n
	carried := kernel.NewMat(rows, ldlqBlock)
	errs := kernel.NewMat(rows, n)
	subs := n / g.Sub
	for hi := n; hi > 0; hi -= ldlqBlock {
		lo := max(hi-ldlqBlock, 0)
		carry := carried.Sub(0, rows, 0, hi-lo)
		carry.Zero()
		if hi < n {
			kernel.GemmNN(nil, carry, errs.Sub(0, rows, hi, n), in.unit.Sub(hi, n, lo, hi), false)
		}
		for r := range rows {
			w, c, e, out := want.Row(r), carry.Row(r), errs.Row(r), change.Row(r)
			for k := hi - 1; k >= lo; k-- {
				s := step[r*subs+k/g.Sub]
				code := &codes[r*n+k]
				var moved float32
				if s != 0 {
					from := g.Levels[*code]
					*code = nearestLevel(g.Levels, *code, from+(w[k]+c[k-lo])/s)
					moved = float32(s * (g.Levels[*code] - from))
				}
				out[k] = moved
				e[k] = w[k] - moved
				if e[k] != 0 {
					kernel.Axpy(c[:k-lo], e[k], in.unit.Row(k)[lo:k])
				}
			}
		}
	}
}

// nearestLevel is the level next to y, found from where the code is now; halfway it
// stays where it came from. A y that is not a number changes nothing.
func nearestLevel(levels []float32, from uint8, y float32) uint8 {
	c := int(from)
	for c+1 < len(levels) && y-levels[c] > levels[c+1]-y {
		c++
	}
	for c > 0 && levels[c]-y > y-levels[c-1] {
		c--
	}
	return uint8(c)
}

// polishSweeps is how often single codes are looked at again.
const polishSweeps = 4

// polish moves single codes by one level where that makes the error of outputs
// smaller, given all others. left is what is wanted and not there yet, push is
// left·h; both follow the moves.
func polish(in *inputs, g *quant.Grid, codes []uint8, step []float32, left, push kernel.Mat) {
	n := in.n
	subs := n / g.Sub
	for r := range left.Rows {
		row, toward := left.Row(r), push.Row(r)
		for range polishSweeps {
			moves := 0
			for k := range n {
				s := step[r*subs+k/g.Sub]
				code := codes[r*n+k]
				// Towards the gradient: the error changes by d²h - 2dp for a move by d.
				p := toward[k]
				if s < 0 {
					p = -p
				}
				to := int(code) + 1
				if p < 0 {
					to = int(code) - 1
				}
				if s == 0 || to < 0 || to >= len(g.Levels) {
					continue
				}
				h := in.h.Row(k)
				d := float32(s * (g.Levels[to] - g.Levels[code]))
				if d*h[k] >= 2*toward[k] == (d > 0) {
					continue
				}
				codes[r*n+k] = uint8(to)
				row[k] -= d
				kernel.Axpy(toward, -d, h)
				moves++
			}
			if moves == 0 {
				break
			}
		}
	}
}
