package quant

import "encoding/binary"

// The IQ3 types: groups of four values, each an index into a lattice, with signs
// for eight together: seven stored and the eighth even (IQ3_XXS), or all (IQ3_S).

const (
	iq3XXSBytes = 98  // d, 64 indices, then for each 32 four 7-bit signs and a 4-bit scale
	iq3SBytes   = 110 // d, 64 low index bytes, 8 bytes of high bits, 32 signs, four pairs of scales
)

var (
	points3XXS = lattice3(packed3XXS)
	points3S   = lattice3(packed3S)
)

// Values of the levels of the two lattices.
var (
	iq3XXSValues = [8]float32{4, 12, 20, 28, 36, 44, 52, 62}
	iq3SValues   = [8]float32{1, 3, 5, 7, 9, 11, 13, 15}
)

// decodeGroup3 writes eight values from two points.
func decodeGroup3(y []float32, p1, p2 *[4]uint8, values *[8]float32, signs uint8, d float32) {
	y = y[:8]
	for j, l := range p1 {
		y[j] = signed(d*values[l&7], signs, j)
	}
	for j, l := range p2 {
		y[j+4] = signed(d*values[l&7], signs, j+4)
	}
}

func decodeIQ3XXS(dst []float32, src []byte) {
	for ; len(src) >= iq3XXSBytes; src, dst = src[iq3XXSBytes:], dst[superBlock:] {
		d := half(src)
		for ib := range 8 {
			aux := binary.LittleEndian.Uint32(src[66+4*ib:])
			db := d * (0.5 + float32(aux>>28)) * 0.5
			q := src[2+8*ib:][:8]
			for l := range 4 {
				decodeGroup3(dst[32*ib+8*l:], &points3XXS[q[2*l]], &points3XXS[q[2*l+1]], &iq3XXSValues, evenSigns(aux>>(7*l)), db)
			}
		}
	}
}

func decodeIQ3S(dst []float32, src []byte) {
	for ; len(src) >= iq3SBytes; src, dst = src[iq3SBytes:], dst[superBlock:] {
		d := half(src)
		for ib := range 8 {
			db := d * float32(1+2*int(src[106+ib/2]>>(ib&1*4)&15))
			q, high := src[2+8*ib:][:8], int(src[66+ib])
			for l := range 4 {
				i1 := int(q[2*l]) | high>>(2*l)&1<<8
				i2 := int(q[2*l+1]) | high>>(2*l+1)&1<<8
				decodeGroup3(dst[32*ib+8*l:], &points3S[i1], &points3S[i2], &iq3SValues, src[74+4*ib+l], db)
			}
		}
	}
}
