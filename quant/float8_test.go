package quant

import (
	"math"
	"testing"

	"github.com/graft-lora/graft/format"
)

// TestFloat8 compares the tables with known values, and the encoder with a search for the
// nearest value of even mantissa.
func TestFloat8(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ         format.Type
		code        uint8
		want        float64
		levels      int
		top, beyond float32
		least       float64
	}{
		{typ: format.F8_E4M3, code: 0x38, want: 1, levels: 253, top: 448, beyond: 464, least: 0x1p-9},
		{typ: format.F8_E5M2, code: 0x3c, want: 1, levels: 247, top: 57344, beyond: 61440, least: 0x1p-16},
	} {
		f, ok := Float8Of(c.typ)
		if !ok {
			t.Fatal(c.typ)
		}
		if len(f.Levels) != c.levels || f.top != c.top || f.beyond != c.beyond || float64(f.Values[1]) != c.least || float64(f.Values[c.code]) != c.want {
			t.Errorf("%v: %d levels, %g at most, %g beyond, %g at least, code %#x is %g", c.typ, len(f.Levels), f.top, f.beyond, f.Values[1], c.code, f.Values[c.code])
		}
		codec, err := format.EncoderOf(c.typ)
		if err != nil {
			t.Fatal(err)
		}
		var x []float32
		for i, v := range f.Levels { // every value, what is just beside, and halves between
			x = append(x, v, math.Nextafter32(v, 0), v*1.01)
			if i > 0 {
				half := v/2 + f.Levels[i-1]/2
				x = append(x, half, math.Nextafter32(half, 1e9), math.Nextafter32(half, -1e9))
			}
		}
		x = append(x, 1e-30, -1e-30, math.Nextafter32(c.beyond, 0), -math.Nextafter32(c.beyond, 0))
		for _, v := range x {
			if float32(math.Abs(float64(v))) >= c.beyond {
				continue
			}
			var out [1]byte
			if err := codec.Encode(out[:], []float32{v}, 1, nil); err != nil {
				t.Fatal(err)
			}
			best, least := -1, math.Inf(1)
			for i, l := range f.Levels {
				d := math.Abs(float64(l) - float64(v))
				if d < least || d == least && f.Codes[i]&1 == 0 {
					best, least = i, d
				}
			}
			if got := f.Values[out[0]]; got != f.Levels[best] || math.Signbit(float64(got)) != math.Signbit(float64(v)) {
				t.Errorf("%v: %g is coded as %g, want %g", c.typ, v, got, f.Levels[best])
			}
		}
		for _, v := range []float32{c.beyond, -c.beyond, float32(math.Inf(1)), float32(math.NaN())} {
			if err := codec.Encode(make([]byte, 2), []float32{1, v}, 1, nil); err == nil {
				t.Errorf("%v holds %g", c.typ, v)
			}
		}
	}
	if e4m3, _ := Float8Of(format.F8_E4M3); !math.IsNaN(float64(e4m3.Values[0xff])) {
		t.Error("0xff is a number")
	}
	if e5m2, _ := Float8Of(format.F8_E5M2); !math.IsInf(float64(e5m2.Values[0xfc]), -1) || !math.IsNaN(float64(e5m2.Values[0x7f])) {
		t.Error("0xfc is no infinity, or 0x7f a number")
	}
}
