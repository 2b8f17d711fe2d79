package quant

import (
	"math"
	"testing"
)

// TestScaleBytes checks the 8-bit scales against their definition, computed in
// float64.
func TestScaleBytes(t *testing.T) {
	t.Parallel()
	for b := range 256 {
		want := math.Ldexp(1, b-128)
		if got := halfE8M0(uint8(b)); float64(got) != want {
			t.Errorf("half of E8M0 %#x is %v, want %v", b, got, want)
		}
		exp, man := b>>3&15, float64(b&7)
		want = math.Ldexp(1+man/8, exp-7) / 2
		if exp == 0 {
			want = math.Ldexp(man, -9) / 2
		}
		if b == 0x7f {
			want = 0
		}
		if got := halfUE4M3(uint8(b)); float64(got) != want {
			t.Errorf("half of UE4M3 %#x is %v, want %v", b, got, want)
		}
	}
}
