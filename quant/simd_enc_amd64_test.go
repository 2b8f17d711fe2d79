//go:build amd64 && !noasm

package quant

import (
	"math"
	"testing"

	"github.com/graft-lora/graft/internal/cpu"
)

// TestIQ4Codes compares the codes of the vector form with iq4Index beside every level
// and every midpoint, and for what is no number.
func TestIQ4Codes(t *testing.T) {
	t.Parallel()
	var x []float32
	for i, l := range iq4Levels {
		for _, v := range []float32{l, (l + iq4Levels[max(i-1, 0)]) / 2, -l / 2} {
			for ulp := uint32(0); ulp < 9; ulp++ {
				x = append(x, math.Float32frombits(math.Float32bits(v)+ulp-4))
			}
		}
	}
	x = append(x, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), math.MaxFloat32, -math.MaxFloat32, 0, float32(math.Copysign(0, -1)))
	for len(x)%32 != 0 {
		x = append(x, 0)
	}
	groups := len(x) / 32
	ones := make([]float32, groups)
	each(ones, func(int) float32 { return 1 })
	for _, tier := range cpu.Tiers()[1:] {
		codes := make([]byte, len(x))
		encFuncs[tier].codesIQ4(&codes[0], &x[0], &ones[0], &ones[0], groups, 32, 0, 0)
		for i, v := range x {
			if want := iq4Index(v); codes[i] != want {
				t.Errorf("%v: %v has code %d, in Go %d", tier, v, codes[i], want)
			}
		}
	}
}
