package quant

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/rng"
)

// Dither puts changes into the codes of a tensor at the scales and minimums that its
// blocks have. Code c of a weight with step s becomes, for the change d,
//
//	c' = floor(c + d/s + v)    within the codes that there are
//
// where v, in (0, 1), is a number of the seed, the tensor's name and the element's
// place: over many weights the change is there on average, and for each of them it is
// a function of d alone. That is what training needs that computes with the merged codes
// (train/model's Merge), and the merge of its adapter gives the same bytes, since both
// round here. A change beyond the codes is cut off there.
//
// A Dither is read-only and safe for concurrent use.
type Dither struct {
	grid   *Grid
	stream rng.Stream
	cols   int
}

// CanDither says whether a type has codes that a [Dither] can move: those whose levels
// are one step apart.
func CanDither(t format.Type) bool {
	g, ok := GridOf(t)
	// With four levels and no minimum every other change would be cut off.
	return ok && (len(g.Levels) > 4 || g.HasMin) && g.Levels[1]-g.Levels[0] == 1 && g.Levels[len(g.Levels)-1]-g.Levels[0] == float32(len(g.Levels)-1)
}

// DitherTypes lists the types that a [Dither] is for.
func DitherTypes() []format.Type {
	var list []format.Type
	for t := range grids {
		if CanDither(t) {
			list = append(list, t)
		}
	}
	slices.Sort(list)
	return list
}

// NewDither is for the tensor of a name, of type t and with rows of cols elements.
func NewDither(t format.Type, seed uint64, tensor string, cols int) (*Dither, error) {
	if !CanDither(t) {
		return nil, format.Unsupported("moving the codes of %v by whole steps: method aware and merge-aware training are for %v", t, DitherTypes())
	}
	g, _ := GridOf(t)
	return &Dither{grid: g, stream: rng.New(seed, "dither", tensor), cols: cols}, nil
}

// dithered is what the work on a block needs.
type dithered struct {
	codes     [256]uint8
	step, min [16]float32
}

var ditherScratch = sync.Pool{New: func() any { return new(dithered) }}

// Merge writes to dst the whole rows raw, of which row is the first, with their values
// changed by delta. dst has the length of raw, and may be raw. A change that is not a number
// is an error.
func (d *Dither) Merge(dst, raw []byte, delta []float32, row int64) error {
	g := d.grid
	s := ditherScratch.Get().(*dithered)
	defer ditherScratch.Put(s)
	subs := g.Block / g.Sub
	codes, step, min := s.codes[:g.Block], s.step[:subs], s.min[:subs]
	copy(dst, raw)
	place := uint64(row) * uint64(d.cols)
	for b := range len(delta) / g.Block {
		block, first := dst[b*g.Bytes:(b+1)*g.Bytes], b*g.Block
		g.unpack(codes, step, min, block)
		if !d.move(codes, step, delta[first:first+g.Block], place+uint64(first)) {
			return fmt.Errorf("row %d, columns from %d: the change is not a number", row+int64(first/d.cols), first%d.cols)
		}
		g.pack(block, codes)
	}
	return nil
}

// Numbers from far to 2·far are 2^-14 apart as float32: far + v + d/s has v with 13 bits, in the
// middle of their 2^-13, and the whole steps in front.
const (
	far     = 512 // steps, more than there are codes
	farBits = 0x44000000
)

// move moves the codes of a block; place is that of its first element. It is false if
// a change is not a number.
func (d *Dither) move(codes []uint8, step, delta []float32, place uint64) bool {
	sub, top := d.grid.Sub, int32(len(d.grid.Levels)-1)
	for j, st := range step {
		if st == 0 {
			continue // all its values are the same, whatever the codes
		}
		inverse := 1 / st
		c, change := codes[j*sub:(j+1)*sub], delta[j*sub:(j+1)*sub]
		at := (place + uint64(j*sub)) / 4
		for i := 0; i+4 <= len(c) && i+4 <= len(change); i += 4 {
			r := d.stream.Uint64(at) // four numbers
			at++
			for k := range 4 {
				steps := change[i+k] * inverse
				if !(steps > 1-far && steps < far-1) {
					if steps != steps {
						return false
					}
					steps = max(min(steps, far-1), 1-far)
				}
				v := math.Float32frombits(farBits | uint32(r)&0x1fff<<1 | 1)
				r >>= 16
				to := int32(c[i+k]) + int32(float32(steps)+v) - far
				c[i+k] = uint8(max(min(to, top), 0))
			}
		}
	}
	return true
}
