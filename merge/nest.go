package merge

import (
	"math"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

func init() {
	register(&Method{Name: "nest", open: openFit, Data: true, nest: true,
		Help: "fit into a type of one bit more (or the next there is) that holds the base's values bit for bit; without --data keep"})
}

// nesting is a finer type whose grid holds another's: the factor of a block is
// divided by Factor, a power of two, and levels are multiplied by it. Minimums and
// integer scales are the same.
type nesting struct {
	to     format.Type
	factor float32
}

// nestings are those known, the least growth first.
var nestings = map[format.Type][]nesting{
	format.Q4_0:   {{format.Q5_0, 2}, {format.Q8_0, 16}},
	format.Q5_0:   {{format.Q8_0, 8}},
	format.IQ4_NL: {{format.Q8_0, 1}},
	format.Q4_1:   {{format.Q5_1, 2}},
	format.Q3_K:   {{format.Q6_K, 8}},
	format.Q4_K:   {{format.Q5_K, 2}},
}

// NestedType is the smallest type whose grid holds t's exactly; ok is false if there
// is none.
func NestedType(t format.Type) (to format.Type, ok bool) {
	if n := nestings[t]; len(n) > 0 {
		return n[0].to, true
	}
	return t, false
}

// nested is the rows of a tensor in a finer type that holds every value of them as it
// is. A block whose factor cannot be divided exactly (it is below the normal
// float16 numbers, its weights below a millionth of what others are) is quantized.
type nested struct {
	base       format.RawReader
	from, to   *quant.Grid
	fromC, toC format.Codec
	factor     float32
	code       []uint8 // of the finer grid, for each of the coarser
}

// nest is v in the finer type that holds its values; v itself where there is none, or
// where v's rows are not stored ones.
func nest(v *format.View) (*format.View, error) {
	raw, ok := v.Rows.(format.RawReader)
	if !ok || raw.RawType() != v.Type || len(nestings[v.Type]) == 0 {
		return v, nil
	}
	return nestInto(v, nestings[v.Type][0])
}

func nestInto(v *format.View, by nesting) (*format.View, error) {
	n := &nested{base: v.Rows.(format.RawReader), factor: by.factor}
	var err error
	if n.fromC, err = format.CodecOf(v.Type); err != nil {
		return nil, err
	}
	if n.toC, err = format.EncoderOf(by.to); err != nil {
		return nil, err
	}
	n.from, _ = quant.GridOf(v.Type)
	n.to, _ = quant.GridOf(by.to)
	for _, l := range n.from.Levels {
		n.code = append(n.code, uint8(slices.Index(n.to.Levels, l*by.factor)))
	}
	w := *v
	w.Type, w.Rows = by.to, n
	return &w, nil
}

func (n *nested) Dims() (rows, cols int64) { return n.base.Dims() }
func (n *nested) RawType() format.Type     { return n.to.Type }

func (n *nested) ReadRows(dst []float32, row int64) error { return n.base.ReadRows(dst, row) }

func (n *nested) ReadRaw(dst []byte, row int64) error {
	blocks := len(dst) / n.to.Bytes
	src := make([]byte, blocks*n.from.Bytes)
	if err := n.base.ReadRaw(src, row); err != nil {
		return err
	}
	frame, codes := n.from.NewFrame(blocks), make([]uint8, blocks*n.from.Block)
	n.from.UnpackFrame(frame, src)
	subs := blocks * n.from.Block / n.from.Sub
	n.from.Unpack(codes, make([]float32, subs), make([]float32, subs), src)
	for i, c := range codes {
		codes[i] = n.code[c]
	}
	var inexact []int
	for b, d := range frame.D {
		frame.D[b] = d / n.factor
		if exact := kernel.F16Value(kernel.F16Bits(frame.D[b])); exact != frame.D[b] {
			inexact = append(inexact, b)
		}
	}
	n.to.PackFrame(dst, frame)
	n.to.Pack(dst, codes)
	w := make([]float32, n.from.Block)
	for _, b := range inexact {
		n.fromC.Decode(w, src[b*n.from.Bytes:(b+1)*n.from.Bytes])
		if slices.ContainsFunc(w, func(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) }) {
			continue // as bad as it was
		}
		if err := n.toC.Encode(dst[b*n.to.Bytes:(b+1)*n.to.Bytes], w, n.from.Block, nil); err != nil {
			return err
		}
	}
	return nil
}
