package quant

import "math"

// TQ1_0 and TQ2_0: values -1, 0 and 1 under one half for 256 elements. TQ1_0 packs
// five of them into a byte as a base-3 fraction of 256, TQ2_0 four as 2-bit codes.

const (
	tq1_0Bytes = 54 // 48 bytes of five trits, 4 of four, d
	tq2_0Bytes = 66 // 64 bytes of four codes, d
)

var pow3 = [5]uint8{1, 3, 9, 27, 81}

// trit gives the n-th base-3 digit of q, from the most significant.
func trit(q uint8, n int) uint8 { return uint8(uint16(q*pow3[n]) * 3 >> 8) }

// tq1Groups says how the bytes of a TQ1_0 block are laid out: width bytes from off
// on hold, digit by digit, digits*width consecutive elements.
var tq1Groups = [3]struct{ off, width, digits int }{{0, 32, 5}, {32, 16, 5}, {48, 4, 4}}

func decodeTQ1_0(dst []float32, src []byte) {
	for ; len(src) >= tq1_0Bytes; src, dst = src[tq1_0Bytes:], dst[superBlock:] {
		d := half(src[52:])
		y := dst
		for _, g := range tq1Groups {
			for n := range g.digits {
				for m, q := range src[g.off:][:g.width] {
					y[m] = float32(int(trit(q, n))-1) * d
				}
				y = y[g.width:]
			}
		}
	}
}

func decodeTQ2_0(dst []float32, src []byte) {
	for ; len(src) >= tq2_0Bytes; src, dst = src[tq2_0Bytes:], dst[superBlock:] {
		d := half(src[64:])
		for n := range 2 {
			y := dst[128*n:][:128]
			for m, q := range src[32*n:][:32] {
				y[m] = float32(int(q&3)-1) * d
				y[m+32] = float32(int(q>>2&3)-1) * d
				y[m+64] = float32(int(q>>4&3)-1) * d
				y[m+96] = float32(int(q>>6)-1) * d
			}
		}
	}
}

// ternaryScale is the largest magnitude of a super-block, and its reciprocal.
func ternaryScale(x []float32) (d, id float32) {
	_, d = extreme(x[:superBlock])
	return d, reciprocal(d)
}

// ternaryCode rounds to -1, 0 or 1, and adds one. An infinity (where the largest
// magnitude has no reciprocal) counts as zero, as C's conversion has it.
func ternaryCode(v float32) uint8 {
	if v >= 0.5 && v <= math.MaxFloat32 {
		return 2
	}
	if v <= -0.5 && v >= -math.MaxFloat32 {
		return 0
	}
	return 1
}

// encodeTQ1_0 ignores importance.
func encodeTQ1_0(dst []byte, row, _ []float32) {
	for ; len(row) > 0; row, dst = row[superBlock:], dst[tq1_0Bytes:] {
		d, id := ternaryScale(row)
		putHalf(dst[52:], d)
		x := row
		for _, g := range tq1Groups {
			for m := range g.width {
				var q uint16
				for n := range g.digits {
					q = 3*q + uint16(ternaryCode(x[m+n*g.width]*id))
				}
				if g.digits == 4 {
					q *= 3
				}
				// As a fraction of 256, rounded up, so that digits come back by multiplying.
				dst[g.off+m] = uint8((q*256 + 242) / 243)
			}
			x = x[g.digits*g.width:]
		}
	}
}

// encodeTQ2_0 ignores importance.
func encodeTQ2_0(dst []byte, row, _ []float32) {
	for ; len(row) > 0; row, dst = row[superBlock:], dst[tq2_0Bytes:] {
		d, id := ternaryScale(row)
		putHalf(dst[64:], d)
		for n := range 2 {
			x, y := row[128*n:][:128], dst[32*n:][:32]
			for m := range y {
				y[m] = ternaryCode(x[m]*id) | ternaryCode(x[m+32]*id)<<2 | ternaryCode(x[m+64]*id)<<4 | ternaryCode(x[m+96]*id)<<6
			}
		}
	}
}
