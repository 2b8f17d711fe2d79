package merge

import "github.com/graft-lora/graft/internal/kernel"

const (
	factorBlock = 64  // columns factored between two updates of the rest
	factorRows  = 256 // rows updated at a time
)

// factorise turns the lower part of a symmetric matrix A = L·D·Lᵀ into L below its
// diagonal, whose own diagonal of ones is not stored: what is there means nothing.
// It says whether A was positive definite. Sums in the blocks are in float64, the
// updates of what is right of them are products in float32: A is to be damped.
func factorise(a kernel.Mat) bool {
	n := a.Rows
	minus := kernel.NewMat(n, factorBlock) // -L·D of the rows under a block
	var l [factorBlock][factorBlock]float64
	var d, v [factorBlock]float64
	for k0 := 0; k0 < n; k0 += factorBlock {
		k1 := min(k0+factorBlock, n)
		for i := k0; i < n; i++ {
			row := a.Row(i)[k0:k1]
			end := min(i-k0, len(row))
			for j := range end {
				s := float64(row[j])
				for m := range j {
					s -= float64(v[m] * l[j][m])
				}
				v[j] = s
			}
			if i < k1 {
				s := float64(row[end])
				for j := range end {
					l[end][j] = v[j] / d[j]
					row[j] = float32(l[end][j])
					s -= float64(v[j] * l[end][j])
				}
				if !(s > 0) {
					return false
				}
				d[end] = s
				continue
			}
			out := minus.Row(i)
			for j := range row {
				row[j] = float32(v[j] / d[j])
				out[j] = float32(-v[j])
			}
		}
		for i := k1; i < n; i += factorRows {
			end := min(i+factorRows, n)
			kernel.GemmNT(nil, a.Sub(i, end, k1, end), minus.Sub(i, end, 0, k1-k0), a.Sub(k1, end, k0, k1), true)
		}
	}
	return true
}
