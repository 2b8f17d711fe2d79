package quant

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/graft-lora/graft/format"
)

// bitsandbytes keeps a matrix as 4-bit codes under one scale a block, in blocks of
// the flattened matrix, so that a block may begin in one row and end in the next.
// Rules and tables are those of its CPU backend; Dettmers et al. 2023, "QLoRA".

// nf4Table holds the values of NF4 by code: quantiles of the normal distribution.
var nf4Table = [16]float32{
	-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
	-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
	0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
	0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
}

// fp4Table holds the values of FP4 by code; codes from 8 on are the negatives,
// code 8 minus zero.
var fp4Table = func() (t [16]float32) {
	for i, v := range [8]float64{0, 0.0625, 8, 12, 4, 6, 2, 3} {
		t[i] = float32(v / 12)
		t[i+8] = -t[i]
	}
	t[8] = float32(math.Copysign(0, -1))
	return t
}()

// nibble is a 4-bit code: its values, and what quantizing needs.
type nibble struct {
	table  [16]float32 // by code
	above  [15]float32 // midpoints between neighbouring values, ascending
	sorted [16]uint8   // code of the i-th value
	first  [256]uint8  // number of midpoints in the buckets before this one
}

// bucket maps values from -1 to 1, and a rounding beyond, to 0…255, never falling
// where y rises: what lies in a lower bucket is smaller.
func bucket(y float32) int { return int((float32(y) + 1) * 127.5) }

func newNibble(table [16]float32) *nibble {
	n := &nibble{table: table}
	for i := range n.sorted {
		n.sorted[i] = uint8(i)
	}
	// The sort is stable, and minus zero is not below zero: code 0 stands before code 8.
	sort.SliceStable(n.sorted[:], func(i, j int) bool { return table[n.sorted[i]] < table[n.sorted[j]] })
	for i := range n.above {
		n.above[i] = (table[n.sorted[i]] + table[n.sorted[i+1]]) / 2
		for b := bucket(n.above[i]) + 1; b < len(n.first); b++ {
			n.first[b]++
		}
	}
	return n
}

var (
	nf4 = newNibble(nf4Table)
	fp4 = newNibble(fp4Table)
)

// nibbleOf gives the code of a type.
func nibbleOf(t format.Type) (*nibble, error) {
	switch t {
	case format.NF4:
		return nf4, nil
	case format.FP4:
		return fp4, nil
	}
	return nil, fmt.Errorf("%v is no 4-bit type of bitsandbytes", t)
}

// code gives the code of y: the number of midpoints strictly below y chooses the value.
func (n *nibble) code(y float32) uint8 {
	i := n.first[bucket(y)&255]
	for i < 15 && n.above[i] < y {
		i++
	}
	return n.sorted[i&15]
}

// leastScale keeps the reciprocal of the scale of a block of zeros finite.
const leastScale = 1e-38

// quantize packs src, whole blocks but for the last one, into two codes a byte,
// the first in the high half, and absmax, one scale a block. len(dst) is
// ceil(len(src)/2); only a last call for a matrix may have an odd len(src).
func (n *nibble) quantize(dst []byte, absmax, src []float32, block int) error {
	for b := 0; len(src) > 0; b++ {
		x := src[:min(block, len(src))]
		src = src[len(x):]
		a, ok := maxAbs(x)
		if !ok {
			return fmt.Errorf("block %d has an element that is not finite", b)
		}
		divisor := max(a, leastScale)
		out := dst[:(len(x)+1)/2]
		dst = dst[len(out):]
		if len(x) == block {
			absmax[b] = a
			inv := 1 / divisor
			for i := range out {
				out[i] = n.code(x[2*i]*inv)<<4 | n.code(x[2*i+1]*inv)
			}
			continue
		}
		absmax[b] = divisor // the last block divides, and stores what it divided by
		for i := range out {
			var second float32
			if 2*i+1 < len(x) {
				second = x[2*i+1]
			}
			out[i] = n.code(x[2*i]/divisor)<<4 | n.code(second/divisor)
		}
	}
	return nil
}

// maxAbs is the largest magnitude in x; ok is false if one is not finite.
func maxAbs(x []float32) (a float32, ok bool) {
	var m uint32 // magnitudes compare like their bits
	for _, v := range x {
		m = max(m, math.Float32bits(v)&^(1<<31))
	}
	return math.Float32frombits(m), m < 0x7f800000
}

// dynamicMap holds the values of the signed 8-bit code of bitsandbytes, ascending:
// seven decades with 1, 2, 4 … 64 values each and both signs, with 0 and 1.
var dynamicMap = func() (m [256]float32) {
	values := []float32{0, 1}
	for i := range 7 {
		n := 1 << i
		scale := float32(math.Pow10(i - 6))
		// Edges of n intervals between 0.1 and 1 as torch.linspace computes them: from the
		// nearer end, with one rounding.
		step := float64((1 - float32(0.1)) / float32(n))
		edge := func(j int) float32 {
			if j < (n+1)/2 {
				return float32(float64(float32(0.1)) + float64(step*float64(j)))
			}
			return float32(1 - float64(step*float64(n-j)))
		}
		for j := range n {
			v := scale * ((edge(j) + edge(j+1)) / 2)
			values = append(values, v, -v)
		}
	}
	slices.Sort(values)
	copy(m[:], values)
	return m
}()

// dynamicLUT gives the code of the i-th of 65,536 values from -1 to 1: the CPU
// backend looks codes up and so may be one off the nearest.
var dynamicLUT = func() (lut [65536]uint8) {
	var above [255]float32
	for i := range above {
		above[i] = (dynamicMap[i] + dynamicMap[i+1]) / 2
	}
	code := 0
	for i := range lut {
		y := float32(-1 + 2*float64(i)/65535)
		for code < 255 && above[code] < y {
			code++
		}
		lut[i] = uint8(code)
	}
	return lut
}()

const nestedBlock = 256 // scales under one scale, in double quantization

// quantizeScales packs scales, whose mean is offset, into one code a scale and
// absmax, one a block of [nestedBlock].
func quantizeScales(dst []byte, absmax, scales []float32, offset float32) {
	for b := 0; len(scales) > 0; b++ {
		x := scales[:min(nestedBlock, len(scales))]
		scales = scales[len(x):]
		var a float32
		for _, v := range x {
			a = max(a, float32(math.Abs(float64(v-offset))))
		}
		absmax[b] = a
		inv := 1 / a
		for i, v := range x {
			y := (v - offset) * inv
			if y != y { // scales that are all the same: zero times infinity
				dst[b*nestedBlock+i] = 0
				continue
			}
			y = min(max(y, -1), 1)
			dst[b*nestedBlock+i] = dynamicLUT[int(float32(float32((y+1)*0.5)*65535)+0.5)]
		}
	}
}

// meanOf is the mean of v, summed in double precision.
func meanOf(v []float32) float32 {
	var sum float64
	for _, x := range v {
		sum += float64(x)
	}
	return float32(sum / float64(max(len(v), 1)))
}
