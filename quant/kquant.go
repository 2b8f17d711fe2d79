package quant

// The K types: super-blocks of 256 in sub-blocks of 16 or 32, whose scales (and
// minimums) are small integers under one or two halves.

const (
	superBlock = 256

	q2KBytes = 84  // 16 scale and minimum nibbles, 64 codes, d, dmin
	q3KBytes = 110 // 32 high bits, 64 low codes, 12 scales, d
	q4KBytes = 144 // d, dmin, 12 scales and minimums, 128 codes
	q5KBytes = 176 // d, dmin, 12 scales and minimums, 32 high bits, 128 low codes
	q6KBytes = 210 // 128 low codes, 64 high codes, 16 scales, d
)

// q3KScales unpacks the sixteen 6-bit scales of a Q3_K block, with their offset of
// 32 taken off: low nibbles in bytes 0 to 7, high pairs in bytes 8 to 11.
func q3KScales(sc *[16]int8, packed []byte) {
	for j := range sc {
		low := packed[j&7] >> (j >> 3 * 4) & 15
		high := packed[8+j&3] >> (j >> 2 * 2) & 3
		sc[j] = int8(low|high<<4) - 32
	}
}

func decodeQ2K(dst []float32, src []byte) {
	for ; len(src) >= q2KBytes; src, dst = src[q2KBytes:], dst[superBlock:] {
		d, dmin := half(src[80:]), half(src[82:])
		for sub := range 16 {
			sc := src[sub]
			dl, ml := d*float32(sc&15), float32(dmin*float32(sc>>4))
			// Two sub-blocks share 32 bytes at one shift; eight make half a block.
			qs := src[16+sub>>3<<5+sub&1<<4:][:16]
			shift := sub >> 1 & 3 * 2
			y := dst[16*sub:][:16]
			for l, q := range qs {
				y[l] = float32(dl*float32(q>>shift&3)) - ml
			}
		}
	}
}

func decodeQ3K(dst []float32, src []byte) {
	var scales [16]int8
	for ; len(src) >= q3KBytes; src, dst = src[q3KBytes:], dst[superBlock:] {
		d := half(src[108:])
		q3KScales(&scales, src[96:108])
		for sub := range 16 {
			dl := d * float32(scales[sub])
			hm := src[sub&1<<4:][:16]
			qs := src[32+sub>>3<<5+sub&1<<4:][:16]
			shift := sub >> 1 & 3 * 2
			bit := sub >> 1
			y := dst[16*sub:][:16]
			for l, q := range qs {
				y[l] = dl * float32(int(q>>shift&3|hm[l]>>bit&1<<2)-4)
			}
		}
	}
}

func decodeQ4K(dst []float32, src []byte) {
	for ; len(src) >= q4KBytes; src, dst = src[q4KBytes:], dst[superBlock:] {
		d, dmin := half(src), half(src[2:])
		for j := 0; j < 8; j += 2 {
			s1, m1 := scaleMinK4(src[4:16], j)
			s2, m2 := scaleMinK4(src[4:16], j+1)
			d1, f1 := d*float32(s1), float32(dmin*float32(m1))
			d2, f2 := d*float32(s2), float32(dmin*float32(m2))
			qs, y := src[16+16*j:][:32], dst[32*j:][:64]
			for l, q := range qs {
				y[l] = float32(d1*float32(q&15)) - f1
				y[l+32] = float32(d2*float32(q>>4)) - f2
			}
		}
	}
}

func decodeQ5K(dst []float32, src []byte) {
	for ; len(src) >= q5KBytes; src, dst = src[q5KBytes:], dst[superBlock:] {
		d, dmin := half(src), half(src[2:])
		qh := src[16:48]
		for j := 0; j < 8; j += 2 {
			s1, m1 := scaleMinK4(src[4:16], j)
			s2, m2 := scaleMinK4(src[4:16], j+1)
			d1, f1 := d*float32(s1), float32(dmin*float32(m1))
			d2, f2 := d*float32(s2), float32(dmin*float32(m2))
			qs, y := src[48+16*j:][:32], dst[32*j:][:64]
			for l, q := range qs {
				y[l] = float32(d1*float32(q&15|qh[l]>>j&1<<4)) - f1
				y[l+32] = float32(d2*float32(q>>4|qh[l]>>(j+1)&1<<4)) - f2
			}
		}
	}
}

func decodeQ6K(dst []float32, src []byte) {
	for ; len(src) >= q6KBytes; src, dst = src[q6KBytes:], dst[superBlock:] {
		d := half(src[208:])
		for n := range 2 {
			ql, qh, y := src[64*n:][:64], src[128+32*n:][:32], dst[128*n:][:128]
			var s [8]float32
			for i, sc := range src[192+8*n:][:8] {
				s[i] = d * float32(int8(sc))
			}
			for l := range 32 {
				h, is := qh[l], l>>4
				y[l] = s[is] * float32(int(ql[l]&15|h&3<<4)-32)
				y[l+32] = s[is+2] * float32(int(ql[l+32]&15|h>>2&3<<4)-32)
				y[l+64] = s[is+4] * float32(int(ql[l]>>4|h>>4&3<<4)-32)
				y[l+96] = s[is+6] * float32(int(ql[l+32]>>4|h>>6<<4)-32)
			}
		}
	}
}
