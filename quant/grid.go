package quant

import (
	"encoding/binary"

	"github.com/graft-lora/graft/format"
)

// Grid is the view of a type that a merge needs: the values of a block lie on
// levels that all its elements share, value = step*Levels[code] + min, with one
// step and one minimum for each sub-block. Moving a code and keeping steps and
// minimums changes the weight by whole level distances and nothing else.
//
// Grids are read-only tables, safe for concurrent use.
type Grid struct {
	Type   format.Type
	Block  int       // elements in a block
	Bytes  int       // bytes of a block
	Sub    int       // elements in a sub-block
	Levels []float32 // ascending, in units of the step; a code is an index into it
	// HasMin says that sub-blocks have minimums.
	HasMin bool
	// Fixed says that steps are of so few values that changing one by a little is impossible; there
	// is no [Frame] then.
	Fixed bool

	unpack func(codes []uint8, step, min []float32, block []byte)
	pack   func(block []byte, codes []uint8)
}

// GridOf returns the grid of t; ok is false for types whose values do not lie on
// one (floats, and IQ1, IQ2 and IQ3, which code groups of values together).
func GridOf(t format.Type) (g *Grid, ok bool) {
	g, ok = grids[t]
	return g, ok
}

// Unpack splits whole blocks of src into codes (one an element), and steps and
// minimums (one a sub-block). min may be nil for types without minimums.
func (g *Grid) Unpack(codes []uint8, step, min []float32, src []byte) {
	subs := g.Block / g.Sub
	for b := 0; b*g.Bytes < len(src); b++ {
		var m []float32
		if g.HasMin {
			m = min[b*subs : (b+1)*subs]
		}
		g.unpack(codes[b*g.Block:(b+1)*g.Block], step[b*subs:(b+1)*subs], m, src[b*g.Bytes:(b+1)*g.Bytes])
	}
}

// Pack writes codes into dst, whole blocks, leaving steps and minimums as they are.
func (g *Grid) Pack(dst []byte, codes []uint8) {
	for b := 0; b*g.Bytes < len(dst); b++ {
		g.pack(dst[b*g.Bytes:(b+1)*g.Bytes], codes[b*g.Block:(b+1)*g.Block])
	}
}

var grids = map[format.Type]*Grid{}

func init() {
	for _, g := range []*Grid{
		{Type: format.Q4_0, Sub: 32, Levels: ramp(-8, 16), unpack: unpackQ4(2, false), pack: packQ4(2)},
		{Type: format.Q4_1, Sub: 32, Levels: ramp(0, 16), HasMin: true, unpack: unpackQ4(4, true), pack: packQ4(4)},
		{Type: format.Q5_0, Sub: 32, Levels: ramp(-16, 32), unpack: unpackQ5(2, false), pack: packQ5(2)},
		{Type: format.Q5_1, Sub: 32, Levels: ramp(0, 32), HasMin: true, unpack: unpackQ5(4, true), pack: packQ5(4)},
		{Type: format.Q8_0, Sub: 32, Levels: ramp(-128, 256), unpack: unpackQ8, pack: packQ8},
		{Type: format.IQ4_NL, Sub: 32, Levels: iq4Levels[:], unpack: unpackQ4(2, false), pack: packQ4(2)},
		{Type: format.IQ4_XS, Sub: 32, Levels: iq4Levels[:], unpack: unpackIQ4XS, pack: packIQ4XS},
		{Type: format.Q2_K, Sub: 16, Levels: ramp(0, 4), HasMin: true, unpack: unpackQ2K, pack: packQ2K},
		{Type: format.Q3_K, Sub: 16, Levels: ramp(-4, 8), unpack: unpackQ3K, pack: packQ3K},
		{Type: format.Q4_K, Sub: 32, Levels: ramp(0, 16), HasMin: true, unpack: unpackQ4K, pack: packQ4K},
		{Type: format.Q5_K, Sub: 32, Levels: ramp(0, 32), HasMin: true, unpack: unpackQ5K, pack: packQ5K},
		{Type: format.Q6_K, Sub: 16, Levels: ramp(-32, 64), unpack: unpackQ6K, pack: packQ6K},
	} {
		g.Block, g.Bytes = g.Type.BlockSize(), g.Type.BlockBytes()
		grids[g.Type] = g
	}
}

// ramp returns n levels from lo on, one apart.
func ramp(lo, n int) []float32 {
	l := make([]float32, n)
	for i := range l {
		l[i] = float32(lo + i)
	}
	return l
}

// iq4Levels are the 16 levels of IQ4_NL and IQ4_XS (kvalues_iq4nl of ggml).
var iq4Levels = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

const lowNibbles = 0x0f0f0f0f0f0f0f0f

// spread gives bit i of b to byte i, as its lowest bit; gather is the way back.
func spread(b uint8) uint64 {
	each := uint64(b) * 0x0101010101010101 & 0x8040201008040201
	return (each + 0x7f7f7f7f7f7f7f7f) >> 7 & 0x0101010101010101
}

func gather(x uint64) uint8 { return uint8(x & 0x0101010101010101 * 0x0102040810204080 >> 56) }

// Nibbles at head: byte j holds element j (low) and j+16 (high).

func unpackQ4(head int, hasMin bool) func([]uint8, []float32, []float32, []byte) {
	return func(codes []uint8, step, min []float32, b []byte) {
		step[0] = half(b)
		if hasMin {
			min[0] = half(b[2:])
		}
		for j := 0; j < 16; j += 8 {
			q := eight(b[head+j:])
			putEight(codes[j:], q&lowNibbles)
			putEight(codes[j+16:], q>>4&lowNibbles)
		}
	}
}

func packQ4(head int) func([]byte, []uint8) {
	return func(b []byte, codes []uint8) {
		for j := 0; j < 16; j += 8 {
			putEight(b[head+j:], eight(codes[j:])&lowNibbles|eight(codes[j+16:])&lowNibbles<<4)
		}
	}
}

// As Q4, with the fifth bits in a 32-bit word before the nibbles.

func unpackQ5(head int, hasMin bool) func([]uint8, []float32, []float32, []byte) {
	return func(codes []uint8, step, min []float32, b []byte) {
		step[0] = half(b)
		if hasMin {
			min[0] = half(b[2:])
		}
		high := binary.LittleEndian.Uint32(b[head:])
		for j := 0; j < 16; j += 8 {
			q := eight(b[head+4+j:])
			putEight(codes[j:], q&lowNibbles|spread(uint8(high>>j))<<4)
			putEight(codes[j+16:], q>>4&lowNibbles|spread(uint8(high>>(j+16)))<<4)
		}
	}
}

func packQ5(head int) func([]byte, []uint8) {
	return func(b []byte, codes []uint8) {
		var high uint32
		for j := 0; j < 16; j += 8 {
			lo, hi := eight(codes[j:]), eight(codes[j+16:])
			putEight(b[head+4+j:], lo&lowNibbles|hi&lowNibbles<<4)
			high |= uint32(gather(lo>>4))<<j | uint32(gather(hi>>4))<<(j+16)
		}
		binary.LittleEndian.PutUint32(b[head:], high)
	}
}

func unpackQ8(codes []uint8, step, _ []float32, b []byte) {
	step[0] = half(b)
	for j, q := range b[2:34] {
		codes[j] = q ^ 0x80
	}
}

func packQ8(b []byte, codes []uint8) {
	for j, c := range codes[:32] {
		b[2+j] = c ^ 0x80
	}
}

func unpackIQ4XS(codes []uint8, step, _ []float32, b []byte) {
	d, high := half(b), binary.LittleEndian.Uint16(b[2:])
	for i := range 8 {
		s := int(b[4+i/2]>>(4*(i%2))&15) | int(high>>(2*i)&3)<<4
		step[i] = d * float32(s-32)
		for j, q := range b[8+16*i : 24+16*i] {
			codes[32*i+j], codes[32*i+j+16] = q&15, q>>4
		}
	}
}

func packIQ4XS(b []byte, codes []uint8) {
	for i := range 8 {
		for j := range 16 {
			b[8+16*i+j] = codes[32*i+j]&15 | codes[32*i+j+16]<<4
		}
	}
}
