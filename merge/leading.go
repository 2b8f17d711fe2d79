package merge

import (
	"math"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

// leadingSteps is how often leading multiplies by zᵀz.
const leadingSteps = 4

// leading returns z·q, n x rank, for orthonormal q that take the directions in which z is
// largest: z·zᵀ as far as a matrix of that rank has it, nearly (subspace iteration). z itself if
// it has no more columns.
func leading(z kernel.Mat, rank int) kernel.Mat {
	k := z.Cols
	if k <= rank {
		return z
	}
	square := kernel.NewMat(k, k)
	kernel.GemmTN(nil, square, z, z, false)
	q, next := kernel.NewMat(rank, k), kernel.NewMat(rank, k) // qᵀ
	dice := rng.New(0, "leading")
	for i := range q.Data {
		q.Data[i] = 2*dice.Uniform(uint64(i)) - 1
	}
	for range leadingSteps {
		kernel.GemmNN(nil, next, q, square, false)
		q, next = next, q
		orthonormalise(q)
	}
	out := kernel.NewMat(z.Rows, rank)
	kernel.GemmNT(nil, out, z, q, false)
	return out
}

// orthonormalise makes the rows of q orthonormal, one after the other (Gram and Schmidt, twice
// each, which is enough). A row that the ones before it have all of becomes zero.
func orthonormalise(q kernel.Mat) {
	for i := range q.Rows {
		row := q.Row(i)
		before := kernel.SumSquares64(row)
		for range 2 {
			for j := range i {
				kernel.Axpy(row, -kernel.Dot(row, q.Row(j)), q.Row(j))
			}
		}
		norm := kernel.SumSquares64(row)
		if !(norm > 1e-12*before) {
			clear(row)
			continue
		}
		kernel.Scale(row, float32(1/math.Sqrt(norm)), row)
	}
}
