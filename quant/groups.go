package quant

import (
	"encoding/binary"
	"sync"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// Groups is the view that a merge needs of the types that code weights in groups: eight
// neighbours are one or two points of a list, with signs,
//
//	value = step * (sign * Values[point][i] + shift)
//
// under one step for each Sub values, which is a multiple of a float16 of the block. Moving a
// group to another point and keeping steps and shifts changes its weights together.
//
// Groups are read-only tables, safe for concurrent use.
type Groups struct {
	Type   format.Type
	Block  int // elements in a block
	Bytes  int // bytes of a block
	Sub    int // elements under one step
	Cell   int // elements of a point, 8 or 4
	Signs  Signs
	Values [][8]float32 // of each point, Cell of them
	// Near has for each point those nearest to it, the nearest first.
	Near [][]uint16

	unpack func(g []Group, step []float32, block []byte)
	pack   func(block []byte, g []Group)
}

// Signs says which signs a group may have.
type Signs uint8

const (
	NoSigns   Signs = iota
	EvenSigns       // an even number of them negative
	AnySigns
)

// Group is the code of eight values.
type Group struct {
	Points [2]uint16 // the second only where a point has four values
	Signs  uint8     // bit i: value i is negative
}

// groupNear is how many points come into question for a group to move to.
const groupNear = 16

var groups = sync.OnceValue(func() map[format.Type]*Groups {
	m := map[format.Type]*Groups{}
	for _, g := range []*Groups{
		{Type: format.IQ1_S, Sub: 32, Cell: 8, Values: groupValues(points1, []float32{-1, 0, 1}), unpack: unpackIQ1S, pack: packIQ1S},
		{Type: format.IQ1_M, Sub: 16, Cell: 8, Values: groupValues(points1, []float32{-1, 0, 1}), unpack: unpackIQ1M, pack: packIQ1M},
		{Type: format.IQ2_XXS, Sub: 32, Cell: 8, Signs: EvenSigns, Values: groupValues(points2XXS, iq2Values[:]), unpack: unpackIQ2XXS, pack: packIQ2XXS},
		{Type: format.IQ2_XS, Sub: 16, Cell: 8, Signs: EvenSigns, Values: groupValues(points2XS, iq2Values[:]), unpack: unpackIQ2XS, pack: packIQ2XS},
		{Type: format.IQ2_S, Sub: 16, Cell: 8, Signs: AnySigns, Values: groupValues(points2S, iq2Values[:]), unpack: unpackIQ2S, pack: packIQ2S},
		{Type: format.IQ3_XXS, Sub: 32, Cell: 4, Signs: EvenSigns, Values: groupValues(points3XXS, iq3XXSValues[:]), unpack: unpackIQ3XXS, pack: packIQ3XXS},
		{Type: format.IQ3_S, Sub: 32, Cell: 4, Signs: AnySigns, Values: groupValues(points3S, iq3SValues[:]), unpack: unpackIQ3S, pack: packIQ3S},
	} {
		g.Block, g.Bytes = g.Type.BlockSize(), g.Type.BlockBytes()
		if g.Type == format.IQ1_M {
			g.Near = m[format.IQ1_S].Near
		} else {
			g.Near = nearestPoints(g.Values)
		}
		m[g.Type] = g
	}
	return m
})

// GroupsOf returns the groups of t; ok is false for a type that has none. The first call takes
// some hundredths of a second.
func GroupsOf(t format.Type) (g *Groups, ok bool) {
	switch t {
	case format.IQ1_S, format.IQ1_M, format.IQ2_XXS, format.IQ2_XS, format.IQ2_S, format.IQ3_XXS, format.IQ3_S:
		return groups()[t], true
	}
	return nil, false
}

func groupValues[P [4]uint8 | [8]uint8](points []P, values []float32) [][8]float32 {
	list := make([][8]float32, len(points))
	for i, p := range points {
		for j := range len(p) {
			list[i][j] = values[p[j]]
		}
	}
	return list
}

func nearestPoints(values [][8]float32) [][]uint16 {
	near := make([][]uint16, len(values))
	type other struct {
		d float32
		i uint16
	}
	for i, v := range values {
		var best [groupNear]other // the nearest so far in order; of two as near the first comes first
		n := 0
		for j, w := range values {
			var d float32
			for k, x := range v {
				d += float32((x - w[k]) * (x - w[k]))
			}
			if j == i || n == groupNear && !(d < best[n-1].d) {
				continue
			}
			at := min(n, groupNear-1)
			for ; at > 0 && d < best[at-1].d; at-- {
				best[at] = best[at-1]
			}
			best[at], n = other{d, uint16(j)}, min(n+1, groupNear)
		}
		for _, o := range best {
			near[i] = append(near[i], o.i)
		}
	}
	return near
}

// Unpack splits whole blocks of src into groups (one for eight elements) and steps.
func (g *Groups) Unpack(dst []Group, step []float32, src []byte) {
	n, s := g.Block/8, g.Block/g.Sub
	for b := 0; b*g.Bytes < len(src); b++ {
		g.unpack(dst[b*n:(b+1)*n], step[b*s:(b+1)*s], src[b*g.Bytes:(b+1)*g.Bytes])
	}
}

// Pack writes groups into whole blocks of dst, leaving steps and shifts as they are.
func (g *Groups) Pack(dst []byte, src []Group) {
	n := g.Block / 8
	for b := 0; b*g.Bytes < len(dst); b++ {
		g.pack(dst[b*g.Bytes:(b+1)*g.Bytes], src[b*n:(b+1)*n])
	}
}

// Factor is the float16 of a block, which multiplies all its steps.
func (g *Groups) Factor(block []byte) float32 {
	if g.Type == format.IQ1_M {
		return kernel.F16Value(iq1MScale(block[48:]))
	}
	return half(block)
}

// SetFactor changes it, rounding to float16.
func (g *Groups) SetFactor(block []byte, d float32) {
	if g.Type != format.IQ1_M {
		putHalf(block, d)
		return
	}
	h := kernel.F16Bits(d)
	for i := range 4 {
		b := block[48+2*i:]
		binary.LittleEndian.PutUint16(b, binary.LittleEndian.Uint16(b)&0xfff|h>>(4*i)&15<<12)
	}
}

func unpackIQ1S(g []Group, step []float32, b []byte) {
	d := half(b)
	for ib := range 8 {
		high := binary.LittleEndian.Uint16(b[34+2*ib:])
		step[ib] = d * float32(2*(high>>12&7)+1)
		for l := range 4 {
			g[4*ib+l] = Group{Points: [2]uint16{uint16(b[2+4*ib+l]) | high>>(3*l)&7<<8}}
		}
	}
}

func packIQ1S(b []byte, g []Group) {
	for ib := range 8 {
		high := binary.LittleEndian.Uint16(b[34+2*ib:]) & 0xf000
		for l := range 4 {
			p := g[4*ib+l].Points[0]
			b[2+4*ib+l] = uint8(p)
			high |= p >> 8 << (3 * l)
		}
		binary.LittleEndian.PutUint16(b[34+2*ib:], high)
	}
}

func unpackIQ1M(g []Group, step []float32, b []byte) {
	d := kernel.F16Value(iq1MScale(b[48:]))
	for i := range g {
		word := binary.LittleEndian.Uint16(b[48+i/8*2:])
		step[i/2] = d * float32(2*(word>>(i/2&3*3)&7)+1)
		g[i] = Group{Points: [2]uint16{uint16(b[i]) | uint16(b[32+i/2])>>(i&1*4)&7<<8}}
	}
}

func packIQ1M(b []byte, g []Group) {
	for i := range g {
		p, shift := g[i].Points[0], i&1*4
		b[i] = uint8(p)
		b[32+i/2] = b[32+i/2]&^(7<<shift) | uint8(p>>8)<<shift
	}
}

func unpackIQ2XXS(g []Group, step []float32, b []byte) {
	d := half(b)
	for ib := range 8 {
		q := b[2+8*ib:][:8]
		aux := binary.LittleEndian.Uint32(q[4:])
		step[ib] = d * (0.5 + float32(aux>>28)) * 0.25
		for l := range 4 {
			g[4*ib+l] = Group{[2]uint16{uint16(q[l])}, evenSigns(aux >> (7 * l))}
		}
	}
}

func packIQ2XXS(b []byte, g []Group) {
	for ib := range 8 {
		q := b[2+8*ib:][:8]
		aux := binary.LittleEndian.Uint32(q[4:]) & 0xf0000000
		for l := range 4 {
			q[l] = uint8(g[4*ib+l].Points[0])
			aux |= uint32(g[4*ib+l].Signs&127) << (7 * l)
		}
		binary.LittleEndian.PutUint32(q[4:], aux)
	}
}

func unpackIQ2XS(g []Group, step []float32, b []byte) {
	d := half(b)
	for i := range g {
		q := binary.LittleEndian.Uint16(b[2+2*i:])
		step[i/2] = d * (0.5 + float32(b[66+i/4]>>(i&2*2)&15)) * 0.25
		g[i] = Group{[2]uint16{q & 511}, evenSigns(uint32(q >> 9))}
	}
}

func packIQ2XS(b []byte, g []Group) {
	for i := range g {
		binary.LittleEndian.PutUint16(b[2+2*i:], g[i].Points[0]|uint16(g[i].Signs&127)<<9)
	}
}

func unpackIQ2S(g []Group, step []float32, b []byte) {
	d := half(b)
	for i := range g {
		step[i/2] = d * (0.5 + float32(b[74+i/4]>>(i&2*2)&15)) * 0.25
		g[i] = Group{[2]uint16{uint16(b[2+i]) | uint16(b[66+i/4])>>(i&3*2)&3<<8}, b[34+i]}
	}
}

func packIQ2S(b []byte, g []Group) {
	clear(b[66:74])
	for i := range g {
		p := g[i].Points[0]
		b[2+i], b[34+i] = uint8(p), g[i].Signs
		b[66+i/4] |= uint8(p>>8) << (i & 3 * 2)
	}
}

func unpackIQ3XXS(g []Group, step []float32, b []byte) {
	d := half(b)
	for ib := range 8 {
		aux := binary.LittleEndian.Uint32(b[66+4*ib:])
		step[ib] = d * (0.5 + float32(aux>>28)) * 0.5
		q := b[2+8*ib:][:8]
		for l := range 4 {
			g[4*ib+l] = Group{[2]uint16{uint16(q[2*l]), uint16(q[2*l+1])}, evenSigns(aux >> (7 * l))}
		}
	}
}

func packIQ3XXS(b []byte, g []Group) {
	for ib := range 8 {
		aux := binary.LittleEndian.Uint32(b[66+4*ib:]) & 0xf0000000
		q := b[2+8*ib:][:8]
		for l := range 4 {
			p := g[4*ib+l]
			q[2*l], q[2*l+1] = uint8(p.Points[0]), uint8(p.Points[1])
			aux |= uint32(p.Signs&127) << (7 * l)
		}
		binary.LittleEndian.PutUint32(b[66+4*ib:], aux)
	}
}

func unpackIQ3S(g []Group, step []float32, b []byte) {
	d := half(b)
	for ib := range 8 {
		step[ib] = d * float32(1+2*int(b[106+ib/2]>>(ib&1*4)&15))
		q, high := b[2+8*ib:][:8], uint16(b[66+ib])
		for l := range 4 {
			g[4*ib+l] = Group{[2]uint16{uint16(q[2*l]) | high>>(2*l)&1<<8, uint16(q[2*l+1]) | high>>(2*l+1)&1<<8}, b[74+4*ib+l]}
		}
	}
}

func packIQ3S(b []byte, g []Group) {
	for ib := range 8 {
		q := b[2+8*ib:][:8]
		b[66+ib] = 0
		for l := range 4 {
			p := g[4*ib+l]
			for h, x := range p.Points {
				q[2*l+h] = uint8(x)
				b[66+ib] |= uint8(x>>8) << (2*l + h)
			}
			b[74+4*ib+l] = p.Signs
		}
	}
}
