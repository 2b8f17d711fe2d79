package quant

import "math"

// MXFP4 and NVFP4: nibbles that are E2M1 floats. MXFP4 has one power of two for 32
// elements, NVFP4 one UE4M3 float for each 16 of 64. (The per-tensor factor of
// NVFP4 stands in a tensor of its own.)

const (
	mxfp4Bytes = 17 // exponent, nibbles
	nvfp4Block = 64
	nvfp4Bytes = 36 // four scales, nibbles
)

// e2m1Levels are the 16 values of a nibble, doubled so that they are whole; the
// scales below are halved to match.
var e2m1Levels = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// halfE8M0 is half of the power of two that e stands for.
func halfE8M0(e uint8) float32 {
	if e < 2 {
		return math.Float32frombits(0x00200000 << e)
	}
	return math.Float32frombits(uint32(e-1) << 23)
}

// halfUE4M3 is half of the unsigned 8-bit float b (4 bits of exponent, 3 of
// mantissa; the top bit is not looked at). 0x7f is its NaN and reads as zero.
func halfUE4M3(b uint8) float32 {
	if b == 0 || b == 0x7f {
		return 0
	}
	exp, man := int(b>>3&15), float32(b&7)
	if exp == 0 {
		return man * 0x1p-10
	}
	return (1 + man/8) * math.Float32frombits(uint32(exp-8+127)<<23)
}

func decodeMXFP4(dst []float32, src []byte) {
	for ; len(src) >= mxfp4Bytes; src, dst = src[mxfp4Bytes:], dst[legacyBlock:] {
		d := halfE8M0(src[0])
		qs, y := src[1:mxfp4Bytes], dst[:legacyBlock]
		for j, q := range qs {
			y[j] = e2m1Levels[q&15] * d
			y[j+16] = e2m1Levels[q>>4] * d
		}
	}
}

func decodeNVFP4(dst []float32, src []byte) {
	for ; len(src) >= nvfp4Bytes; src, dst = src[nvfp4Bytes:], dst[nvfp4Block:] {
		for s := range 4 {
			d := halfUE4M3(src[s])
			qs, y := src[4+8*s:][:8], dst[16*s:][:16]
			for j, q := range qs {
				y[j] = e2m1Levels[q&15] * d
				y[j+8] = e2m1Levels[q>>4] * d
			}
		}
	}
}
