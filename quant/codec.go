package quant

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/graft-lora/graft/format"
)

// codec is the pair of functions of a type and what they demand.
type codec struct {
	typ format.Type
	// decode expands whole blocks; len(dst) is their number of elements.
	decode func(dst []float32, src []byte)
	// encode packs one row of whole blocks. weights is nil or as long as the row.
	encode func(dst []byte, row, weights []float32)
	// needsWeights says that encode cannot do without weights.
	needsWeights bool
	// scales are the offsets of the halves in a block that must come out finite.
	scales []int
	// overflowed says, where scales cannot, that a block came out of values too large.
	overflowed func(block []byte) bool
}

// codecs is every type that graft decodes, one family a file.
var codecs = []codec{
	{typ: format.F32, decode: decodeF32, encode: encodeF32},
	{typ: format.F16, decode: decodeF16, encode: encodeF16, scales: []int{0}},
	{typ: format.BF16, decode: decodeBF16, encode: encodeBF16, overflowed: overflowedBF16},

	{typ: format.Q4_0, decode: decodeQ4_0, encode: encodeQ4_0, scales: []int{0}},
	{typ: format.Q4_1, decode: decodeQ4_1, encode: encodeQ4_1, scales: []int{0, 2}},
	{typ: format.Q5_0, decode: decodeQ5_0, encode: encodeQ5_0, scales: []int{0}},
	{typ: format.Q5_1, decode: decodeQ5_1, encode: encodeQ5_1, scales: []int{0, 2}},
	{typ: format.Q8_0, decode: decodeQ8_0, encode: encodeQ8_0, scales: []int{0}},

	{typ: format.Q2_K, decode: decodeQ2K, encode: encodeQ2K, scales: []int{80, 82}},
	{typ: format.Q3_K, decode: decodeQ3K, encode: encodeQ3K, scales: []int{108}},
	{typ: format.Q4_K, decode: decodeQ4K, encode: encodeQ4K, scales: []int{0, 2}},
	{typ: format.Q5_K, decode: decodeQ5K, encode: encodeQ5K, scales: []int{0, 2}},
	{typ: format.Q6_K, decode: decodeQ6K, encode: encodeQ6K, scales: []int{208}},

	{typ: format.IQ4_NL, decode: decodeIQ4NL, encode: encodeIQ4NL, scales: []int{0}},
	{typ: format.IQ4_XS, decode: decodeIQ4XS, encode: encodeIQ4XS, scales: []int{0}},
	{typ: format.IQ3_S, decode: decodeIQ3S, encode: encodeIQ3S, scales: []int{0}},
	{typ: format.IQ3_XXS, decode: decodeIQ3XXS, encode: encodeIQ3XXS, scales: []int{0}},
	{typ: format.IQ2_S, decode: decodeIQ2S, encode: encodeIQ2S, scales: []int{0}},
	{typ: format.IQ2_XS, decode: decodeIQ2XS, encode: encodeIQ2XS, scales: []int{0}, needsWeights: true},
	{typ: format.IQ2_XXS, decode: decodeIQ2XXS, encode: encodeIQ2XXS, scales: []int{0}, needsWeights: true},
	{typ: format.IQ1_M, decode: decodeIQ1M, encode: encodeIQ1M, overflowed: overflowedIQ1M},
	{typ: format.IQ1_S, decode: decodeIQ1S, encode: encodeIQ1S, scales: []int{0}, needsWeights: true},

	{typ: format.TQ1_0, decode: decodeTQ1_0, encode: encodeTQ1_0, scales: []int{52}},
	{typ: format.TQ2_0, decode: decodeTQ2_0, encode: encodeTQ2_0, scales: []int{64}},
	{typ: format.MXFP4, decode: decodeMXFP4, encode: encodeMXFP4},
	{typ: format.NVFP4, decode: decodeNVFP4, encode: encodeNVFP4},
	{typ: format.Q1_0, decode: decodeQ1_0, encode: encodeQ1_0, scales: []int{0}},
	{typ: format.Q2_0, decode: decodeQ2_0, encode: encodeQ2_0, scales: []int{0}},
}

func init() {
	for i := range codecs {
		c := &codecs[i]
		fc := format.Codec{Decode: vectorized(c.typ, c.decode)}
		if c.encode != nil {
			fc.Encode = c.encodeRows
		}
		format.RegisterCodec(c.typ, fc)
	}
}

// encodeRows is the Encode of [format.Codec]: it checks, encodes row by row (some
// types look at a row as a whole), and checks the scales that came out.
func (c *codec) encodeRows(dst []byte, src []float32, cols int, weights []float32) error {
	block := c.typ.BlockSize()
	if cols <= 0 || cols%block != 0 || len(src)%cols != 0 {
		return fmt.Errorf("%d values in rows of %d are not whole rows of %v blocks (%d elements)", len(src), cols, c.typ, block)
	}
	if weights != nil && len(weights) != cols {
		return fmt.Errorf("importance of %d columns for rows of %d", len(weights), cols)
	}
	if weights == nil && c.needsWeights {
		return fmt.Errorf("%v cannot be encoded without an importance matrix: give one with --imatrix", c.typ)
	}
	rowBytes := cols / block * c.typ.BlockBytes()
	if len(dst) != len(src)/cols*rowBytes {
		return fmt.Errorf("%d bytes for %d rows of %d bytes", len(dst), len(src)/cols, rowBytes)
	}
	if over, known := overflows(c.typ, src); known && !over {
		c.encode(dst, src, weights)
		return nil
	}
	if finite(src) && encodeVector(c.typ, dst, src, cols, weights) {
		if b := c.badScale(dst); b >= 0 {
			return c.tooLarge(b/(cols/block), b%(cols/block))
		}
		return nil
	}
	for r := range len(src) / cols {
		row := src[r*cols : (r+1)*cols]
		if i := firstNonFinite(row); i >= 0 {
			return &format.RowError{Row: int64(r), Err: fmt.Errorf("column %d: %v cannot be encoded as %v", i, row[i], c.typ)}
		}
		out := dst[r*rowBytes : (r+1)*rowBytes]
		c.encode(out, row, weights)
		if b := c.badScale(out); b >= 0 {
			return c.tooLarge(r, b)
		}
	}
	return nil
}

func (c *codec) tooLarge(row, block int) error {
	return &format.RowError{Row: int64(row), Err: fmt.Errorf("columns from %d: values too large for %v", block*c.typ.BlockSize(), c.typ)}
}

// badScale gives the first block whose scale is not finite, or -1.
func (c *codec) badScale(row []byte) int {
	size := c.typ.BlockBytes()
	if c.overflowed != nil {
		for b := 0; b*size < len(row); b++ {
			if c.overflowed(row[b*size : (b+1)*size]) {
				return b
			}
		}
	}
	for _, off := range c.scales {
		for b := 0; b*size < len(row); b++ {
			if binary.LittleEndian.Uint16(row[b*size+off:])&0x7c00 == 0x7c00 {
				return b
			}
		}
	}
	return -1
}

func firstNonFinite(x []float32) int {
	for i, v := range x {
		if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
			return i
		}
	}
	return -1
}
