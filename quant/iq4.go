package quant

import "encoding/binary"

// IQ4_NL and IQ4_XS: nibbles that index 16 levels, finer near zero. IQ4_NL is a
// legacy block with them; IQ4_XS a super-block of eight such blocks under 6-bit
// scales.

const (
	iq4NLBytes = 18  // d, nibbles
	iq4XSBytes = 136 // d, high scale bits, low scale nibbles, nibbles
)

func decodeIQ4NL(dst []float32, src []byte) {
	for ; len(src) >= iq4NLBytes; src, dst = src[iq4NLBytes:], dst[legacyBlock:] {
		decodeIQ4(dst[:legacyBlock], src[2:iq4NLBytes], half(src))
	}
}

func decodeIQ4XS(dst []float32, src []byte) {
	for ; len(src) >= iq4XSBytes; src, dst = src[iq4XSBytes:], dst[superBlock:] {
		d, high := half(src), binary.LittleEndian.Uint16(src[2:])
		for ib := range 8 {
			ls := int(src[4+ib/2]>>(ib&1*4)&15) | int(high>>(2*ib)&3)<<4
			decodeIQ4(dst[32*ib:][:32], src[8+16*ib:][:16], d*float32(ls-32))
		}
	}
}

func decodeIQ4(y []float32, qs []byte, d float32) {
	for j, q := range qs {
		y[j] = d * iq4Levels[q&15]
		y[j+16] = d * iq4Levels[q>>4]
	}
}
