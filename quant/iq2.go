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

// iq2Tries is the search of IQ2_XS and IQ2_S.
var iq2Tries = latticeTries{n: 9, step: 0.1}

// weigh fills the weights of a group and their roots. Without columns the weights
// are as plain says.
func (g *latticeGroup) weigh(x, columns []float32, sigma2 float32, plain func(v float32) float32) {
	if columns != nil {
		importance(g.weights[:], x, columns, sigma2)
	} else {
		for i, v := range x {
			g.weights[i] = plain(v)
		}
	}
	for i := range x {
		g.roots[i] = sqrt32(g.weights[i])
	}
}

// columnsFrom is columns[i:], or nil if there are none.
func columnsFrom(columns []float32, i int) []float32 {
	if columns == nil {
		return nil
	}
	return columns[i:]
}

func encodeIQ2XXS(dst []byte, row, columns []float32) {
	g := latticeGroups.Get().(*latticeGroup)
	defer latticeGroups.Put(g)
	var scales [8]float32
	var q [16]uint32
	l := lattice2XXS()
	for ; len(row) > 0; row, columns, dst = row[superBlock:], columns[superBlock:], dst[iq2XXSBytes:] {
		clear(dst[:iq2XXSBytes])
		q = [16]uint32{}
		sigma2 := sumSquares(row[:superBlock]) / superBlock
		var top float32
		for ib := range scales {
			x := row[32*ib:][:32]
			g.weigh(x, columns[32*ib:], sigma2, nil)
			g.load(x, true)
			scales[ib] = 0
			if g.largest(32) < groupMaxEps {
				continue
			}
			scale := searchPositive(g.levels[:], g.x[:], g.weights[:], 4)
			reach := scale * 3
			if !(reach > 0) {
				continue
			}
			scale = g.search(l, 32, reach, scale, latticeTries{n: 6, step: 0.1, always: true})
			scale = g.turn(scale, 127)
			for k := range 4 {
				q[2*ib] |= uint32(l.point(g.levels[8*k:])) << (8 * k)
				q[2*ib+1] |= uint32(g.signs[k]) << (7 * k)
			}
			scales[ib] = scale
			top = max(top, scale)
		}
		if top == 0 {
			continue
		}
		d := top / 31
		putHalf(dst, d)
		for ib, s := range scales {
			q[2*ib+1] |= uint32(oddCode(s, 1/d, 15)) << 28
		}
		for i, v := range q {
			binary.LittleEndian.PutUint32(dst[2+4*i:], v)
		}
	}
}

func encodeIQ2XS(dst []byte, row, columns []float32) {
	g := latticeGroups.Get().(*latticeGroup)
	defer latticeGroups.Put(g)
	var scales [16]float32
	l := lattice2XS()
	for ; len(row) > 0; row, columns, dst = row[superBlock:], columns[superBlock:], dst[iq2XSBytes:] {
		clear(dst[:iq2XSBytes])
		sigma2 := sumSquares(row[:superBlock]) / superBlock
		var top float32
		for ib := range scales {
			x := row[16*ib:][:16]
			g.weigh(x, columns[16*ib:], sigma2, nil)
			g.load(x, true)
			clear(g.levels[:16])
			scales[ib] = 0
			most := g.largest(16)
			if most < groupMaxEps {
				continue
			}
			scale := g.turn(g.search(l, 16, most, most/5, iq2Tries), 127)
			for k := range 2 {
				binary.LittleEndian.PutUint16(dst[2+4*ib+2*k:], uint16(l.point(g.levels[8*k:])|int(g.signs[k])<<9))
			}
			scales[ib] = scale
			top = max(top, scale)
		}
		if top == 0 {
			clear(dst[2:66])
			continue
		}
		d := top / 31
		putHalf(dst, d)
		putScalePairs(dst[66:74], &scales, 1/d)
	}
}

// putScalePairs writes sixteen scales as nibbles.
func putScalePairs(dst []byte, scales *[16]float32, id float32) {
	for i := range dst[:8] {
		dst[i] = uint8(oddCode(scales[2*i], id, 15) | oddCode(scales[2*i+1], id, 15)<<4)
	}
}

func encodeIQ2S(dst []byte, row, columns []float32) {
	g := latticeGroups.Get().(*latticeGroup)
	defer latticeGroups.Put(g)
	var scales [16]float32
	l := lattice2S()
	for ; len(row) > 0; row, columns, dst = row[superBlock:], columnsFrom(columns, superBlock), dst[iq2SBytes:] {
		clear(dst[:iq2SBytes])
		sigma2 := 2 * sumSquares(row[:superBlock]) / superBlock
		quarter := 0.25 * sigma2
		var top float32
		for ib := range scales {
			x := row[16*ib:][:16]
			g.weigh(x, columnsFrom(columns, 16*ib), sigma2, func(v float32) float32 { return float32(quarter) + float32(v*v) })
			g.load(x, false)
			clear(g.levels[:16])
			scales[ib] = 0
			most := g.largest(16)
			if most < 1e-8 {
				continue
			}
			scale := g.turn(g.search(l, 16, most, most/5, iq2Tries), 255)
			for k := range 2 {
				i, p := 2*ib+k, l.point(g.levels[8*k:])
				dst[2+i] = uint8(p)
				dst[66+i/4] |= uint8(p>>8) << (2 * (i & 3))
				dst[34+i] = g.signs[k]
			}
			scales[ib] = scale
			top = max(top, scale)
		}
		if top == 0 {
			continue
		}
		d := top / 31
		putHalf(dst, d*0.9875)
		putScalePairs(dst[74:82], &scales, 1/d)
	}
}
