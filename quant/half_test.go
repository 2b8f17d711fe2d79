package quant

import (
	"math"
	"testing"

	"github.com/x448/float16"
)

// TestHalf compares with an independent implementation: all halves, and the
// floats at and around every midpoint between two halves.
func TestHalf(t *testing.T) {
	t.Parallel()
	for h := range 1 << 16 {
		want := float16.Frombits(uint16(h)).Float32()
		got := halfToFloat(uint16(h))
		if math.Float32bits(got) != math.Float32bits(want) {
			t.Fatalf("half %#x is %v, want %v", h, got, want)
		}
		if got != got {
			continue
		}
		if back := floatToHalf(got); back != uint16(h) {
			t.Fatalf("half %#x comes back as %#x", h, back)
		}
		mid := math.Float32frombits(math.Float32bits(got) + 0x1000)
		for _, f := range []float32{math.Nextafter32(mid, 0), mid, math.Nextafter32(mid, float32(math.Inf(1))), got * 0x1p-14, got * 0x1p9} {
			if want := float16.Fromfloat32(f).Bits(); f == f && floatToHalf(f) != want {
				t.Fatalf("%v (%#x) rounds to half %#x, want %#x", f, math.Float32bits(f), floatToHalf(f), want)
			}
		}
	}
}

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
