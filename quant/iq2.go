package quant

import (
	"encoding/binary"
	"math/bits"
)

// The IQ2 types: groups of eight values, each an index into a lattice and eight
// signs. IQ2_XXS and IQ2_XS store seven signs, the eighth makes their number even;
// IQ2_S stores all.

const (
	iq2XXSBytes = 66 // d, then for each 32: four indices, four 7-bit signs and a 4-bit scale
	iq2XSBytes  = 74 // d, 32 words of a 9-bit index and 7-bit signs, eight pairs of scales
	iq2SBytes   = 82 // d, 32 low index bytes, 32 signs, 8 high index bits, 8 pairs of scales
)

var (
	points2XXS = lattice2(packed2XXS)
	points2XS  = lattice2(packed2XS)
	points2S   = lattice2(packed2S)
)

// iq2Values are the values of the levels of the IQ2 lattices.
var iq2Values = [4]float32{8, 25, 43}

// evenSigns completes seven sign bits with the one that makes their number even.
func evenSigns(s uint32) uint8 {
	s &= 127
	return uint8(s | uint32(bits.OnesCount32(s)&1)<<7)
}

// signed gives v with its sign turned round if bit i of signs is set.
func signed(v float32, signs uint8, i int) float32 {
	if signs>>i&1 != 0 {
		return -v
	}
	return v
}

// decodeGroup2 writes eight values: the levels of p times d, with their signs.
func decodeGroup2(y []float32, p *[8]uint8, signs uint8, d float32) {
	y = y[:8]
	for j, l := range p {
		y[j] = signed(d*iq2Values[l&3], signs, j)
	}
}

func decodeIQ2XXS(dst []float32, src []byte) {
	for ; len(src) >= iq2XXSBytes; src, dst = src[iq2XXSBytes:], dst[superBlock:] {
		d := half(src)
		for ib := range 8 {
			q := src[2+8*ib:][:8]
			aux := binary.LittleEndian.Uint32(q[4:])
			db := d * (0.5 + float32(aux>>28)) * 0.25
			for l := range 4 {
				decodeGroup2(dst[32*ib+8*l:], &points2XXS[q[l]], evenSigns(aux>>(7*l)), db)
			}
		}
	}
}

func decodeIQ2XS(dst []float32, src []byte) {
	for ; len(src) >= iq2XSBytes; src, dst = src[iq2XSBytes:], dst[superBlock:] {
		d := half(src)
		for i := range 32 {
			q := uint32(binary.LittleEndian.Uint16(src[2+2*i:]))
			db := d * (0.5 + float32(src[66+i/4]>>(i&2*2)&15)) * 0.25
			decodeGroup2(dst[8*i:], &points2XS[q&511], evenSigns(q>>9), db)
		}
	}
}

func decodeIQ2S(dst []float32, src []byte) {
	for ; len(src) >= iq2SBytes; src, dst = src[iq2SBytes:], dst[superBlock:] {
		d := half(src)
		for i := range 32 {
			index := int(src[2+i]) | int(src[66+i/4])>>(i&3*2)&3<<8
			db := d * (0.5 + float32(src[74+i/4]>>(i&2*2)&15)) * 0.25
			decodeGroup2(dst[8*i:], &points2S[index], src[34+i], db)
		}
	}
}
