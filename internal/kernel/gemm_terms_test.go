package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/graft-lora/graft/internal/cpu"
)

// TestTerms compares products made of one left matrix, with and without a low-rank
// part, with the same made one after another, bit for bit.
func TestTerms(t *testing.T) {
	pools := []*Pool{nil, NewPool(1), NewPool(2), NewPool(3)}
	defer func() {
		for _, p := range pools {
			p.Close()
		}
	}()
	eachCompute(t, func(t *testing.T, how Compute) {
		r := rand.New(rand.NewPCG(7, 8))
		for _, s := range []struct{ m, k, rank int }{
			{1, 70, 3}, {1, 64, 16}, {5, 33, 4}, {40, 50, 1}, {97, 130, 16}, {130, 0, 2}, {0, 9, 2},
			{300, 1400, 9}, // a left side for shared panels
		} {
			if cpu.Current() == cpu.Generic && s.m*s.k > 1e5 {
				continue // slow, and the same code
			}
			for _, p := range pools {
				x, _ := randMat(r, s.m, s.k, 3)
				var terms []Term
				var wants, wholes, olds [][]float32
				for i, out := range []int{96, 33, 7, 130} {
					w, _ := randMat(r, out, s.k, 1)
					y, whole := randMat(r, s.m, out, 2)
					term := Term{Y: y, W: w, Acc: i%2 == 0}
					if i != 1 {
						term.U, _ = randMat(r, s.m, s.rank, i)
						term.B, _ = randMat(r, out, s.rank, 0)
					}
					old := append([]float32(nil), whole...)
					how.MulNTs(p, x, Term{Y: y, W: w, Acc: term.Acc})
					if i != 1 {
						GemmNT(p, y, term.U, term.B, true)
					}
					wants = append(wants, append([]float32(nil), whole...))
					wholes, olds = append(wholes, whole), append(olds, old)
					terms = append(terms, term)
				}
				for i := range wholes {
					copy(wholes[i], olds[i])
				}
				how.MulNTs(p, x, terms...)
				for i := range wholes {
					for j, v := range wholes[i] {
						if math.Float32bits(v) != math.Float32bits(wants[i][j]) && !(v != v && wants[i][j] != wants[i][j]) {
							t.Fatalf("%dx%d, rank %d, threads %d: element %d of term %d is %x, want %x", s.m, s.k, s.rank, p.Threads(), j, i, v, wants[i][j])
						}
					}
				}
			}
		}
	})
}
