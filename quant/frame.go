package quant

import (
	"encoding/binary"

	"github.com/graft-lora/graft/format"
)

// Frame is what whole blocks hold besides codes: the numbers that steps and
// minimums are made of. With b the block and s the sub-block,
//
//	step(s) = D[b]*Scale[s]    min(s) = -M[b]*Min[s]
//
// in the types that have integer scales (the K types and IQ4_XS), and
//
//	step(s) = D[b]             min(s) = M[b]
//
// in the others, whose Scale and Min are nil. D and M are float16 values.
type Frame struct {
	D, M       []float32 // one a block; M only where the grid has minimums
	Scale, Min []int16   // one a sub-block
}

// Coding says which integers the sub-blocks of a type may have; it is zero for
// types without.
type Coding struct {
	ScaleLo, ScaleHi, MinHi int16
}

// Integer says that sub-blocks have integer scales under a factor of their block.
func (c Coding) Integer() bool { return c.ScaleHi != 0 }

var codings = map[format.Type]Coding{
	format.Q2_K:   {0, 15, 15},
	format.Q3_K:   {-32, 31, 0},
	format.Q4_K:   {0, 63, 63},
	format.Q5_K:   {0, 63, 63},
	format.Q6_K:   {-128, 127, 0},
	format.IQ4_XS: {-32, 31, 0},
}

// Coding returns the ranges of g's integer scales and minimums.
func (g *Grid) Coding() Coding { return codings[g.Type] }

// NewFrame makes room for blocks blocks.
func (g *Grid) NewFrame(blocks int) *Frame {
	f := &Frame{}
	if g.Fixed {
		return f
	}
	f.D = make([]float32, blocks)
	if g.HasMin {
		f.M = make([]float32, blocks)
	}
	if g.Coding().Integer() {
		subs := blocks * (g.Block / g.Sub)
		f.Scale = make([]int16, subs)
		if g.HasMin {
			f.Min = make([]int16, subs)
		}
	}
	return f
}

// UnpackFrame reads the frames of whole blocks of src.
func (g *Grid) UnpackFrame(f *Frame, src []byte) {
	if g.Fixed {
		return
	}
	subs := g.Block / g.Sub
	for i := 0; i*g.Bytes < len(src); i++ {
		b := src[i*g.Bytes : (i+1)*g.Bytes]
		d, m := frameFactors(g, b)
		f.D[i] = half(d)
		if g.HasMin {
			f.M[i] = half(m)
		}
		if f.Scale == nil {
			continue
		}
		var min []int16
		if g.HasMin {
			min = f.Min[i*subs : (i+1)*subs]
		}
		unpackScales(g.Type, f.Scale[i*subs:(i+1)*subs], min, b)
	}
}

// PackFrame writes frames into whole blocks of dst, leaving codes as they are. D and
// M are rounded to float16; integers out of range are a bug of the caller's.
func (g *Grid) PackFrame(dst []byte, f *Frame) {
	if g.Fixed {
		return
	}
	subs := g.Block / g.Sub
	for i := 0; i*g.Bytes < len(dst); i++ {
		b := dst[i*g.Bytes : (i+1)*g.Bytes]
		d, m := frameFactors(g, b)
		putHalf(d, f.D[i])
		if g.HasMin {
			putHalf(m, f.M[i])
		}
		if f.Scale == nil {
			continue
		}
		var min []int16
		if g.HasMin {
			min = f.Min[i*subs : (i+1)*subs]
		}
		packScales(g.Type, b, f.Scale[i*subs:(i+1)*subs], min)
	}
}

// frameFactors are the bytes of a block's float16 factors.
func frameFactors(g *Grid, b []byte) (d, m []byte) {
	switch g.Type {
	case format.Q2_K:
		return b[80:82], b[82:84]
	case format.Q3_K:
		return b[108:110], nil
	case format.Q6_K:
		return b[208:210], nil
	case format.TQ1_0:
		return b[52:54], nil
	case format.TQ2_0:
		return b[64:66], nil
	}
	return b[0:2], b[2:4]
}

func unpackScales(t format.Type, scale, min []int16, b []byte) {
	switch t {
	case format.Q2_K:
		for j, s := range b[:16] {
			scale[j], min[j] = int16(s&15), int16(s>>4)
		}
	case format.Q3_K:
		s := b[96:108]
		for j := range scale {
			low := s[j%8] >> (4 * (j / 8)) & 15
			high := s[8+j%4] >> (2 * (j / 4)) & 3
			scale[j] = int16(low|high<<4) - 32
		}
	case format.Q4_K, format.Q5_K:
		for j := range scale {
			s, m := scaleMinK4(b[4:16], j)
			scale[j], min[j] = int16(s), int16(m)
		}
	case format.Q6_K:
		for j, s := range b[192:208] {
			scale[j] = int16(int8(s))
		}
	case format.IQ4_XS:
		high := binary.LittleEndian.Uint16(b[2:])
		for i := range scale {
			scale[i] = int16(int(b[4+i/2]>>(4*(i%2))&15)|int(high>>(2*i)&3)<<4) - 32
		}
	}
}

func packScales(t format.Type, b []byte, scale, min []int16) {
	switch t {
	case format.Q2_K:
		for j := range scale {
			b[j] = uint8(scale[j]) | uint8(min[j])<<4
		}
	case format.Q3_K:
		s := b[96:108]
		clear(s)
		for j, v := range scale {
			u := uint8(v + 32)
			s[j%8] |= u & 15 << (4 * (j / 8))
			s[8+j%4] |= u >> 4 << (2 * (j / 4))
		}
	case format.Q4_K, format.Q5_K:
		s := b[4:16]
		clear(s)
		for j := range 4 {
			s[j] = uint8(scale[j]) | uint8(scale[j+4])>>4<<6
			s[j+4] = uint8(min[j]) | uint8(min[j+4])>>4<<6
			s[j+8] = uint8(scale[j+4])&15 | uint8(min[j+4])<<4
		}
	case format.Q6_K:
		for j, v := range scale {
			b[192+j] = uint8(int8(v))
		}
	case format.IQ4_XS:
		clear(b[4:8])
		var high uint16
		for i, v := range scale {
			u := uint16(v + 32)
			b[4+i/2] |= uint8(u&15) << (4 * (i % 2))
			high |= u >> 4 << (2 * i)
		}
		binary.LittleEndian.PutUint16(b[2:], high)
	}
}
