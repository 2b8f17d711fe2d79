package quant

import (
	"encoding/binary"
	"math"
)

// halfToFloat widens an IEEE half. NaNs come out quiet, as the hardware does.
func halfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	mag := uint32(h & 0x7fff)
	switch {
	case mag >= 0x7c00:
		if mag > 0x7c00 {
			mag |= 0x200
		}
		return math.Float32frombits(sign | 0x7f800000 | mag<<13)
	case mag >= 0x400:
		return math.Float32frombits(sign | (mag<<13 + 112<<23))
	}
	// A subnormal half is mag units of 2^-24; the product is exact.
	return math.Float32frombits(sign | math.Float32bits(float32(mag)*0x1p-24))
}

// floatToHalf rounds to the nearest half, ties to even; what is too large becomes
// an infinity.
func floatToHalf(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	mag := bits & 0x7fffffff
	switch {
	case mag > 0x7f800000:
		return sign | 0x7e00
	case mag >= 0x477ff000: // 65520 and above round to infinity
		return sign | 0x7c00
	case mag >= 113<<23: // normal halves: round the 13 dropped bits
		mag += 0xfff + mag>>13&1
		return sign | uint16((mag-112<<23)>>13)
	case mag < 102<<23: // below half of the smallest subnormal
		return sign
	}
	// A subnormal: adding 0.5 aligns units of 2^-24 with the last bit of the sum.
	sum := math.Float32frombits(mag) + 0.5
	return sign | uint16(math.Float32bits(sum)-math.Float32bits(0.5))
}

// bfloatToFloat widens a bfloat16.
func bfloatToFloat(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// floatToBfloat rounds to the nearest bfloat16, ties to even. NaNs stay quiet NaNs.
func floatToBfloat(f float32) uint16 {
	bits := math.Float32bits(f)
	if bits&0x7fffffff > 0x7f800000 {
		return uint16(bits>>16) | 64
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// half reads a little-endian half.
func half(b []byte) float32 { return halfToFloat(binary.LittleEndian.Uint16(b)) }

// putHalf writes f as a little-endian half and returns it.
func putHalf(b []byte, f float32) uint16 {
	h := floatToHalf(f)
	binary.LittleEndian.PutUint16(b, h)
	return h
}
