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

func square(v float32) float32 { return v * v }

func encodeIQ3XXS(dst []byte, row, columns []float32) {
	g := latticeGroups.Get().(*latticeGroup)
	defer latticeGroups.Put(g)
	var scales [8]float32
	var aux [8]uint32
	l := lattice3XXS()
	for ; len(row) > 0; row, columns, dst = row[superBlock:], columnsFrom(columns, superBlock), dst[iq3XXSBytes:] {
		clear(dst[:iq3XXSBytes])
		aux = [8]uint32{}
		sigma2 := 2 * sumSquares(row[:superBlock]) / superBlock
		var top float32
		for ib := range scales {
			x := row[32*ib:][:32]
			g.weigh(x, columnsFrom(columns, 32*ib), sigma2, square)
			g.load(x, true)
			clear(g.levels[:])
			scales[ib] = 0
			most := g.largest(32)
			if most < 1e-8 {
				continue
			}
			scale := g.turn(g.search(l, 32, most, most/15, latticeTries{n: 15, step: 0.2}), 127)
			for k := range 8 {
				dst[2+8*ib+k] = uint8(l.point(g.levels[4*k:]))
			}
			for k, s := range g.signs {
				aux[ib] |= uint32(s) << (7 * k)
			}
			scales[ib] = scale
			top = max(top, scale)
		}
		if top == 0 {
			clear(dst[2:iq3XXSBytes])
			continue
		}
		d := top / 31
		putHalf(dst, d*1.0125)
		for ib, s := range scales {
			binary.LittleEndian.PutUint32(dst[66+4*ib:], aux[ib]|uint32(oddCode(s, 1/d, 15))<<28)
		}
	}
}

// encodeIQ3S differs from ggml in one case. Where all 32 values of a group are zero
// and others of the super-block are not, ggml's encoder writes the codes and signs
// of the groups after it one group too early, and their values are lost; here
// they stand where the decoder looks for them.
func encodeIQ3S(dst []byte, row, columns []float32) {
	g := latticeGroups.Get().(*latticeGroup)
	defer latticeGroups.Put(g)
	var scales [8]float32
	l := lattice3S()
	for ; len(row) > 0; row, columns, dst = row[superBlock:], columnsFrom(columns, superBlock), dst[iq3SBytes:] {
		clear(dst[:iq3SBytes])
		sigma2 := 2 * sumSquares(row[:superBlock]) / superBlock
		var top float32
		for ib := range scales {
			x := row[32*ib:][:32]
			g.weigh(x, columnsFrom(columns, 32*ib), sigma2, square)
			g.load(x, false)
			clear(g.levels[:])
			scales[ib] = 0
			most := g.largest(32)
			if most == 0 {
				continue
			}
			scale := g.turn(g.search(l, 32, most, most/15, latticeTries{n: 9, step: 0.2, whole: true}), 255)
			for k := range 8 {
				p := l.point(g.levels[4*k:])
				dst[2+8*ib+k] = uint8(p)
				dst[66+ib] |= uint8(p>>8) << k
			}
			copy(dst[74+4*ib:], g.signs[:])
			scales[ib] = scale
			top = max(top, scale)
		}
		if top == 0 {
			continue
		}
		d := top / 31
		putHalf(dst, d*1.033)
		for i := range 4 {
			dst[106+i] = uint8(oddCode(scales[2*i], 1/d, 15) | oddCode(scales[2*i+1], 1/d, 15)<<4)
		}
	}
}
