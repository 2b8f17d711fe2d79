package kernel

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/x448/float16"
)

// TestF16Values compares all 65536 with an independent implementation, bit for bit.
func TestF16Values(t *testing.T) {
	t.Parallel()
	src, dst := make([]byte, 2<<16), make([]float32, 1<<16)
	for h := range 1 << 16 {
		binary.LittleEndian.PutUint16(src[2*h:], uint16(h))
	}
	F16ToF32(dst, src)
	for h := range 1 << 16 {
		want := math.Float32bits(float16.Frombits(uint16(h)).Float32())
		if got := math.Float32bits(F16Value(uint16(h))); got != want {
			t.Fatalf("%#04x is %#x, want %#x", h, got, want)
		}
		if got := math.Float32bits(dst[h]); got != want {
			t.Fatalf("%#04x in a row is %#x, want %#x", h, got, want)
		}
	}
}

// TestF16Bits rounds every float16, every half-way point between two and the
// float32s next to those, besides a sample of all patterns.
func TestF16Bits(t *testing.T) {
	t.Parallel()
	var src []float32
	for h := range uint32(0x7c00) {
		a, b := F16Value(uint16(h)), F16Value(uint16(h+1))
		if h == 0x7bff {
			b = 65536
		}
		mid := a + (b-a)/2
		for _, v := range []float32{a, mid, math.Nextafter32(mid, 0), math.Nextafter32(mid, b)} {
			src = append(src, v, -v)
		}
	}
	for u := uint64(0); u < 1<<32; u += 30011 {
		src = append(src, math.Float32frombits(uint32(u)))
	}
	dst := make([]byte, 2*len(src))
	F32ToF16(dst, src)
	for i, v := range src {
		want := float16.Fromfloat32(v).Bits()
		if got := F16Bits(v); got != want {
			t.Fatalf("%v (%#x) is %#04x, want %#04x", v, math.Float32bits(v), got, want)
		}
		if got := binary.LittleEndian.Uint16(dst[2*i:]); got != want {
			t.Fatalf("%v (%#x) in a row is %#04x, want %#04x", v, math.Float32bits(v), got, want)
		}
	}
}

// TestBF16 checks that rounding takes the nearest of the two neighbours, and the
// even one of two that are as near.
func TestBF16(t *testing.T) {
	t.Parallel()
	var src []float32
	for u := uint64(0); u < 1<<32; u += 30011 {
		src = append(src, math.Float32frombits(uint32(u)))
	}
	for h := range uint32(0x7f80) {
		src = append(src, math.Float32frombits(h<<16), math.Float32frombits(h<<16|0x8000), math.Float32frombits(h<<16|0x7fff), math.Float32frombits(h<<16|0x8001))
	}
	dst, back := make([]byte, 2*len(src)), make([]float32, len(src))
	F32ToBF16(dst, src)
	BF16ToF32(back, dst)
	for i, v := range src {
		h := BF16Bits(v)
		if got := binary.LittleEndian.Uint16(dst[2*i:]); got != h {
			t.Fatalf("%v in a row is %#04x, alone %#04x", v, got, h)
		}
		if math.Float32bits(back[i]) != uint32(h)<<16 || math.Float32bits(BF16Value(h)) != uint32(h)<<16 {
			t.Fatalf("%#04x comes back as %v", h, back[i])
		}
		u := math.Float32bits(v)
		if v != v {
			if want := uint16(u>>16) | 0x40; h != want {
				t.Fatalf("NaN %#x is %#04x, want %#04x", u, h, want)
			}
			continue
		}
		low := uint16(u >> 16) // truncated; one more is the neighbour away from zero
		rest := u & 0xffff
		want := low
		if rest > 0x8000 || rest == 0x8000 && low&1 == 1 {
			want++
		}
		if h != want {
			t.Fatalf("%#x is %#04x, want %#04x", u, h, want)
		}
	}
}
