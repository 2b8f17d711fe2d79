package merge

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

// TestMagnitudeOrder: the radix sort is the stable order by magnitude, of rows with many equal
// values, none, and only one.
func TestMagnitudeOrder(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 1))
	for _, n := range []int{0, 1, 2, 17, 1000} {
		o := newMagnitudeOrder(n)
		for _, few := range []int{1, 3, 1 << 20} {
			row := make([]float32, n)
			for i := range row {
				row[i] = float32(rng.NormFloat64()) / 1000
				if few < 1<<20 {
					row[i] = float32(rng.IntN(few)) * float32(math.Copysign(1e-3, rng.NormFloat64()))
				}
			}
			want := make([]uint32, n)
			for i := range want {
				want[i] = uint32(i)
			}
			sort.SliceStable(want, func(a, b int) bool { return magnitude(row[want[a]]) < magnitude(row[want[b]]) })
			if got := o.of(row); !slices.Equal(got, want) {
				t.Errorf("%d values, %d of them different: another order", n, few)
			}
		}
	}
}

func BenchmarkMagnitudeOrder(b *testing.B) {
	row := randomMat("row", 1, 4096).Data
	o := newMagnitudeOrder(len(row))
	b.SetBytes(4 * 4096)
	for b.Loop() {
		o.of(row)
	}
}
