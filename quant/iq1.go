package quant

import (
	"encoding/binary"

	"github.com/graft-lora/graft/internal/kernel"
)

// The IQ1 types: groups of eight values -1, 0 and 1 that are an index into a
// lattice, moved by a shift of one eighth up or down: for 32 values together in
// IQ1_S, for each group in IQ1_M.

const (
	iq1SBytes = 50 // d, 32 low index bytes, eight words of high bits, scale and shift
	iq1MBytes = 56 // 32 low index bytes, 16 bytes of high bits and shifts, scales with d in their top nibbles

	iq1Shift = 0.125
)

var points1 = lattice2(packed1)

func decodeGroup1(y []float32, p *[8]uint8, shift, d float32) {
	y = y[:8]
	for j, l := range p {
		y[j] = d * (float32(int(l)-1) + shift)
	}
}

func decodeIQ1S(dst []float32, src []byte) {
	for ; len(src) >= iq1SBytes; src, dst = src[iq1SBytes:], dst[superBlock:] {
		d := half(src)
		for ib := range 8 {
			qh := int(binary.LittleEndian.Uint16(src[34+2*ib:]))
			dl := d * float32(2*(qh>>12&7)+1)
			shift := float32(iq1Shift)
			if qh&0x8000 != 0 {
				shift = -shift
			}
			for l := range 4 {
				index := int(src[2+4*ib+l]) | qh>>(3*l)&7<<8
				decodeGroup1(dst[32*ib+8*l:], &points1[index], shift, dl)
			}
		}
	}
}

// iq1MScale gathers the half that stands in the top nibbles of the four scale words.
func iq1MScale(sc []byte) uint16 {
	return uint16(sc[1]>>4) | uint16(sc[3]&0xf0) | uint16(sc[5]&0xf0)<<4 | uint16(sc[7]&0xf0)<<8
}

func decodeIQ1M(dst []float32, src []byte) {
	for ; len(src) >= iq1MBytes; src, dst = src[iq1MBytes:], dst[superBlock:] {
		sc := src[48:56]
		d := kernel.F16Value(iq1MScale(sc))
		for i := range 32 {
			word := int(binary.LittleEndian.Uint16(sc[i/8*2:]))
			dl := d * float32(2*(word>>(i/2&3*3)&7)+1)
			qh := int(src[32+i/2]) >> (i & 1 * 4)
			shift := float32(iq1Shift)
			if qh&8 != 0 {
				shift = -shift
			}
			decodeGroup1(dst[8*i:], &points1[int(src[i])|qh&7<<8], shift, dl)
		}
	}
}
