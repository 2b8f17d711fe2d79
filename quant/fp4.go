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
	return (1 + float32(man/8)) * math.Float32frombits(uint32(exp-8+127)<<23)
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

// toUE4M3 rounds to an unsigned 8-bit float, at most 448, with ties upward.
func toUE4M3(x float32) uint8 {
	if !(x > 0) {
		return 0
	}
	bits := math.Float32bits(min(x, 448))
	exp := int(bits>>23&255) - 127 + 7
	if exp <= 0 {
		return uint8(min(7, truncInt(float32(x*512)+0.5)))
	}
	// The mantissa may carry into the exponent.
	code := exp<<3 + int(bits>>20&7) + int(bits>>19&1)
	if exp >= 15 || code >= 15<<3 {
		return 0x7e
	}
	return uint8(code)
}

// nearestE2M1 gives the nibble whose value times the scale lies nearest to v, the
// first such. levels are the products of the eight values that are not negative;
// the others are never nearer to a positive v than zero is, and zero comes first.
func nearestE2M1(levels *[8]float32, v float32) uint8 {
	a := abs32(v)
	best, least := 0, a
	for i := 1; i < len(levels); i++ {
		if err := abs32(levels[i] - a); err < least {
			best, least = i, err
		}
	}
	if v < 0 && best > 0 {
		best += 8
	}
	return uint8(best)
}

// encodeE2M1 packs x as nibbles under the scale d.
func encodeE2M1(dst []byte, x []float32, d float32) {
	var levels [8]float32
	for i := range levels {
		levels[i] = e2m1Levels[i] * d
	}
	n := len(x) / 2
	for j := range n {
		dst[j] = nearestE2M1(&levels, x[j]) | nearestE2M1(&levels, x[j+n])<<4
	}
}

// floorLog2 is floor(log2f(a)) of the C library, a above zero: the logarithm is
// rounded to float32 before the floor, so that the last floats below a power of
// two count as that power.
func floorLog2(a float32) int {
	// Away from the power of two above, and for numbers that are not subnormal, it is the
	// exponent.
	if bits := math.Float32bits(a); bits >= 1<<23 && bits&0x7fff00 != 0x7fff00 {
		return int(bits>>23) - 127
	}
	return int(math.Floor(float64(float32(math.Log2(float64(a))))))
}

// encodeMXFP4 ignores importance.
func encodeMXFP4(dst []byte, row, _ []float32) {
	for ; len(row) > 0; row, dst = row[legacyBlock:], dst[mxfp4Bytes:] {
		x := row[:legacyBlock]
		dst[0] = 0
		if _, amax := extreme(x); amax > 0 {
			dst[0] = uint8(floorLog2(amax) - 2 + 127)
		}
		encodeE2M1(dst[1:], x, halfE8M0(dst[0]))
	}
}

// encodeNVFP4 ignores importance.
func encodeNVFP4(dst []byte, row, _ []float32) {
	for ; len(row) > 0; row, dst = row[nvfp4Block:], dst[nvfp4Bytes:] {
		for s := range 4 {
			x := row[16*s:][:16]
			_, amax := extreme(x)
			dst[s] = toUE4M3(amax / 6)
			encodeE2M1(dst[4+8*s:], x, halfUE4M3(dst[s]))
		}
	}
}
