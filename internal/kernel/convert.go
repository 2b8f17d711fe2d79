package kernel

import (
	"encoding/binary"
	"math"
)

// Conversions between float32 and the two 16-bit floats, little endian bytes on the
// 16-bit side. Towards 16 bits they round to the nearest, ties to even; what is too
// large becomes an infinity, subnormals are kept. A NaN keeps its sign and the upper
// bits of its payload; a signalling one becomes quiet, except from bfloat16 to
// float32, which copies the bits.

// F16ToF32 decodes len(dst) float16.
func F16ToF32(dst []float32, src []byte) {
	sameLen(2*len(dst), len(src))
	n := f16ToF32Vec(dst, src)
	dst, src = dst[n:], src[2*n:]
	for i := range dst {
		dst[i] = F16Value(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// F32ToF16 encodes len(src) float16.
func F32ToF16(dst []byte, src []float32) {
	sameLen(2*len(src), len(dst))
	n := f32ToF16Vec(dst, src)
	dst, src = dst[2*n:], src[n:]
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F16Bits(v))
	}
}

// BF16ToF32 decodes len(dst) bfloat16.
func BF16ToF32(dst []float32, src []byte) {
	sameLen(2*len(dst), len(src))
	n := bf16ToF32Vec(dst, src)
	dst, src = dst[n:], src[2*n:]
	for i := range dst {
		dst[i] = BF16Value(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// F32ToBF16 encodes len(src) bfloat16.
func F32ToBF16(dst []byte, src []float32) {
	sameLen(2*len(src), len(dst))
	n := f32ToBF16Vec(dst, src)
	dst, src = dst[2*n:], src[n:]
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], BF16Bits(v))
	}
}

// F16Value is the float32 that the float16 h stands for.
func F16Value(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	u := uint32(h&0x7fff) << 13 // exponent and fraction where float32 has them
	switch {
	case u >= 0x1f<<23: // infinity and NaN
		u += (255 - 31) << 23
		if u > 0xff<<23 {
			u |= 1 << 22
		}
	case u >= 1<<23:
		u += (127 - 15) << 23
	default: // subnormal: a multiple of 2^-24
		u = math.Float32bits(float32(h&0x3ff) * 0x1p-24)
	}
	return math.Float32frombits(sign | u)
}

// F16Bits is the float16 nearest to f.
func F16Bits(f float32) uint16 {
	u := math.Float32bits(f)
	sign := uint16(u>>16) & 0x8000
	u &= 0x7fffffff
	switch {
	case u > 0xff<<23:
		return sign | 0x7e00 | uint16(u>>13)&0x3ff
	case u >= (127+16)<<23: // 65536 and more
		return sign | 0x7c00
	case u < (127-14)<<23:
		// Subnormal in float16. Adding 0.5 puts the unit in the last place of the sum at
		// 2^-24, so the addition itself does the rounding.
		const half = 126 << 23
		return sign | uint16(math.Float32bits(math.Float32frombits(u)+0.5)-half)
	}
	u += 0xfff + u>>13&1 // may carry into the exponent, up to infinity
	return sign | uint16((u-(127-15)<<23)>>13)
}

// BF16Value is the float32 that the bfloat16 h stands for.
func BF16Value(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// BF16Bits is the bfloat16 nearest to f.
func BF16Bits(f float32) uint16 {
	u := math.Float32bits(f)
	if u&0x7fffffff > 0xff<<23 {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}
