package quant

import (
	"slices"

	"github.com/graft-lora/graft/format"
)

// Grids of the types of one and two bits, and of the 4-bit floats. The scales of the latter
// are 8-bit floats, too coarse to be refitted.

func init() {
	for _, g := range []*Grid{
		{Type: format.TQ1_0, Sub: superBlock, Levels: ramp(-1, 3), unpack: unpackTQ1, pack: packTQ1},
		{Type: format.TQ2_0, Sub: superBlock, Levels: ramp(-1, 4), unpack: unpackTQ2, pack: packTQ2},
		{Type: format.Q1_0, Sub: q1_0Block, Levels: []float32{-1, 1}, unpack: unpackQ1, pack: packQ1},
		{Type: format.Q2_0, Sub: q2_0Block, Levels: ramp(-1, 4), unpack: unpackQ2, pack: packQ2},
		{Type: format.MXFP4, Sub: legacyBlock, Levels: e2m1Sorted[:], Fixed: true, unpack: unpackMXFP4, pack: packMXFP4},
		{Type: format.NVFP4, Sub: 16, Levels: e2m1Sorted[:], Fixed: true, unpack: unpackNVFP4, pack: packNVFP4},
	} {
		g.Block, g.Bytes = g.Type.BlockSize(), g.Type.BlockBytes()
		grids[g.Type] = g
	}
}

func unpackTQ1(codes []uint8, step, _ []float32, b []byte) {
	step[0] = half(b[52:])
	for _, g := range tq1Groups {
		for n := range g.digits {
			for m, q := range b[g.off:][:g.width] {
				codes[m] = trit(q, n)
			}
			codes = codes[g.width:]
		}
	}
}

// packTQ1 leaves bytes alone that say the same already: several say each.
func packTQ1(b []byte, codes []uint8) {
	for _, g := range tq1Groups {
		for m := range g.width {
			at, same := &b[g.off+m], true
			var q uint16
			for n := range g.digits {
				c := codes[m+n*g.width]
				q = 3*q + uint16(c)
				same = same && c == trit(*at, n)
			}
			if g.digits == 4 {
				q *= 3
			}
			if !same {
				*at = uint8((q*256 + 242) / 243)
			}
		}
		codes = codes[g.digits*g.width:]
	}
}

func unpackTQ2(codes []uint8, step, _ []float32, b []byte) {
	step[0] = half(b[64:])
	for n := range 2 {
		y := codes[128*n:][:128]
		for m, q := range b[32*n:][:32] {
			for k := range 4 {
				y[m+32*k] = q >> (2 * k) & 3
			}
		}
	}
}

func packTQ2(b []byte, codes []uint8) {
	for n := range 2 {
		x, y := codes[128*n:][:128], b[32*n:][:32]
		for m := range y {
			y[m] = x[m] | x[m+32]<<2 | x[m+64]<<4 | x[m+96]<<6
		}
	}
}

func unpackQ1(codes []uint8, step, _ []float32, b []byte) {
	step[0] = half(b)
	for j := range codes {
		codes[j] = b[2+j/8] >> (j % 8) & 1
	}
}

func packQ1(b []byte, codes []uint8) {
	clear(b[2:q1_0Bytes])
	for j, c := range codes {
		b[2+j/8] |= c << (j % 8)
	}
}

func unpackQ2(codes []uint8, step, _ []float32, b []byte) {
	step[0] = half(b)
	for j := range codes {
		codes[j] = b[2+j/4] >> (2 * (j % 4)) & 3
	}
}

func packQ2(b []byte, codes []uint8) {
	clear(b[2:q2_0Bytes])
	for j, c := range codes {
		b[2+j/4] |= c << (2 * (j % 4))
	}
}

// e2m1Sorted are the values of a nibble in order, e2m1Codes which of them each nibble has, and
// e2m1Nibbles the nibbles: of zero the positive one.
var (
	e2m1Sorted  = [15]float32{-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12}
	e2m1Codes   [16]uint8
	e2m1Nibbles [15]uint8
)

func init() {
	for n := len(e2m1Levels) - 1; n >= 0; n-- {
		c := slices.Index(e2m1Sorted[:], e2m1Levels[n])
		e2m1Codes[n], e2m1Nibbles[c] = uint8(c), uint8(n)
	}
}

// unpackE2M1 is of len(b) bytes that have as many values in their low nibbles, then in the high ones.
func unpackE2M1(codes []uint8, b []byte) {
	for j, q := range b {
		codes[j], codes[j+len(b)] = e2m1Codes[q&15], e2m1Codes[q>>4]
	}
}

// packE2M1 leaves a negative zero what it is.
func packE2M1(b []byte, codes []uint8) {
	for j, q := range b {
		low, high := q&15, q>>4
		if c := codes[j]; e2m1Codes[low] != c {
			low = e2m1Nibbles[c]
		}
		if c := codes[j+len(b)]; e2m1Codes[high] != c {
			high = e2m1Nibbles[c]
		}
		b[j] = low | high<<4
	}
}

func unpackMXFP4(codes []uint8, step, _ []float32, b []byte) {
	step[0] = halfE8M0(b[0])
	unpackE2M1(codes, b[1:mxfp4Bytes])
}

func packMXFP4(b []byte, codes []uint8) { packE2M1(b[1:mxfp4Bytes], codes) }

func unpackNVFP4(codes []uint8, step, _ []float32, b []byte) {
	for s := range 4 {
		step[s] = halfUE4M3(b[s])
		unpackE2M1(codes[16*s:][:16], b[4+8*s:][:8])
	}
}

func packNVFP4(b []byte, codes []uint8) {
	for s := range 4 {
		packE2M1(b[4+8*s:][:8], codes[16*s:][:16])
	}
}
