package quant

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

func init() { arch.RegisterPacked("bitsandbytes", OpenBnB) }

// maxState is the largest quant_state that is read, in bytes.
const maxState = 1 << 16

// quantState is the JSON that stands beside a 4-bit matrix.
type quantState struct {
	QuantType       string   `json:"quant_type"`
	Blocksize       int64    `json:"blocksize"`
	DType           string   `json:"dtype"`
	Shape           []int64  `json:"shape"`
	NestedBlocksize int64    `json:"nested_blocksize"`
	NestedDType     string   `json:"nested_dtype"`
	NestedOffset    *float64 `json:"nested_offset"`
}

// OpenBnB makes one matrix of the tensors that bitsandbytes keeps it in: 4-bit codes
// (weight, absmax, quant_map, quant_state and, in double quantization, their nested
// ones) or 8-bit codes with SCB. It returns nil if weight has no such companions.
//
// The values of 4-bit matrices are rounded to the dtype that the quant_state names,
// as bitsandbytes does when it computes with them; those of 8 bits are not rounded.
// Scales stay where they are: nothing is held in memory for mapped files.
func OpenBnB(weight *format.Tensor, find func(name string) *format.Tensor) (*arch.Packed, error) {
	g := &bnbGroup{weight: weight, find: find, from: []*format.Tensor{weight}}
	for _, typ := range []format.Type{format.NF4, format.FP4} {
		if state := g.companion(".quant_state.bitsandbytes__" + typ.String()); state != nil {
			return g.open4(typ, state)
		}
	}
	if base, ok := strings.CutSuffix(weight.Name, "weight"); ok {
		if scb := g.add(find(base + "SCB")); scb != nil {
			return g.open8(scb, g.add(find(base+"weight_format")))
		}
	}
	return nil, nil
}

// bnbGroup gathers the tensors of a matrix.
type bnbGroup struct {
	weight *format.Tensor
	find   func(string) *format.Tensor
	from   []*format.Tensor
}

func (g *bnbGroup) add(t *format.Tensor) *format.Tensor {
	if t != nil {
		g.from = append(g.from, t)
	}
	return t
}

func (g *bnbGroup) companion(suffix string) *format.Tensor {
	return g.add(g.find(g.weight.Name + suffix))
}

func (g *bnbGroup) corrupt(t *format.Tensor, f string, args ...any) error {
	return &format.CorruptError{Path: t.Path, Offset: t.Offset, Field: "tensor " + t.Name, Err: fmt.Errorf(f, args...)}
}

// need finds a companion that must be there, of type typ and n elements.
func (g *bnbGroup) need(suffix string, typ format.Type, n int64) ([]byte, error) {
	t := g.companion(suffix)
	if t == nil {
		return nil, g.corrupt(g.weight, "%s%s is missing", g.weight.Name, suffix)
	}
	if count := t.Rows() * t.Cols(); t.Type != typ || count != n {
		return nil, g.corrupt(t, "%d elements of %v where %d of %v are wanted", count, t.Type, n, typ)
	}
	return tensorBytes(t)
}

// tensorBytes are all bytes of t, mapped if they can be.
func tensorBytes(t *format.Tensor) ([]byte, error) {
	if p := t.Bytes(); p != nil {
		return p, nil
	}
	p := make([]byte, t.Size)
	_, err := t.ReadAt(p, 0)
	return p, err
}

func (g *bnbGroup) open4(typ format.Type, state *format.Tensor) (*arch.Packed, error) {
	s, err := g.state(typ, state)
	if err != nil {
		return nil, err
	}
	n, err := nibbleOf(typ)
	if err != nil {
		return nil, err
	}
	m := &nibbleRows{name: g.weight.Name, rows: s.Shape[0], cols: s.Shape[1], block: s.Blocksize, table: &n.table}
	switch s.DType {
	case "bfloat16":
		m.round = format.BF16
	case "float16":
		m.round = format.F16
	case "float32":
		m.round = format.F32
	default:
		return nil, format.Unsupported("%s: tensor %s: dtype %q", state.Path, state.Name, s.DType)
	}
	count := m.rows * m.cols
	if g.weight.Size < (count+1)/2 || g.weight.Size-(count+1)/2 >= 8 {
		return nil, g.corrupt(g.weight, "%d bytes for %d codes of 4 bits", g.weight.Size, count)
	}
	if m.codes, err = tensorBytes(g.weight); err != nil {
		return nil, err
	}
	if err = g.table(n); err != nil {
		return nil, err
	}
	if m.absmax, err = g.scales(s, (count+s.Blocksize-1)/s.Blocksize); err != nil {
		return nil, err
	}
	return &arch.Packed{Type: typ, Shape: s.Shape, Rows: m, From: g.from}, nil
}

// state reads and checks the quant_state of a 4-bit matrix.
func (g *bnbGroup) state(typ format.Type, t *format.Tensor) (*quantState, error) {
	if t.Size > maxState {
		return nil, g.corrupt(t, "%d bytes", t.Size)
	}
	text := make([]byte, t.Size)
	if _, err := t.ReadAt(text, 0); err != nil && err != io.EOF {
		return nil, err
	}
	s := &quantState{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, g.corrupt(t, "%w", err)
	}
	n, err := format.Elements(s.Shape)
	switch {
	case s.QuantType != typ.String():
		err = fmt.Errorf("quant_type %q", s.QuantType)
	case err != nil:
	case len(s.Shape) != 2:
		return nil, format.Unsupported("%s: tensor %s: a 4-bit tensor of shape %v", t.Path, t.Name, s.Shape)
	case n > math.MaxInt64-4096:
		err = errors.New("the shape overflows")
	case !validBlock(s.Blocksize):
		err = fmt.Errorf("blocksize %d", s.Blocksize)
	case s.NestedOffset != nil && s.NestedBlocksize <= 0:
		err = fmt.Errorf("nested_blocksize %d", s.NestedBlocksize)
	case s.NestedOffset != nil && s.NestedDType != "float32":
		err = fmt.Errorf("nested_dtype %q", s.NestedDType)
	}
	if err != nil {
		return nil, g.corrupt(t, "%w", err)
	}
	return s, nil
}

// table checks that the values of the codes are those that graft has: bitsandbytes
// itself decodes by its own table whatever stands here.
func (g *bnbGroup) table(n *nibble) error {
	p, err := g.need(".quant_map", format.F32, 16)
	if err != nil {
		return err
	}
	for c, want := range n.table {
		if got := floatAt(p, int64(c)); got != want {
			return format.Unsupported("%s: tensor %s: code %d stands for %v instead of %v", g.weight.Path, g.weight.Name, c, got, want)
		}
	}
	return nil
}

func (g *bnbGroup) scales(s *quantState, blocks int64) (b blockScales, err error) {
	if s.NestedOffset == nil {
		b.plain, err = g.need(".absmax", format.F32, blocks)
		return b, err
	}
	b.block, b.offset = s.NestedBlocksize, float32(*s.NestedOffset)
	if b.codes, err = g.need(".absmax", format.U8, blocks); err != nil {
		return b, err
	}
	if b.outer, err = g.need(".nested_absmax", format.F32, (blocks+b.block-1)/b.block); err != nil {
		return b, err
	}
	table, err := g.need(".nested_quant_map", format.F32, 256)
	if err != nil {
		return b, err
	}
	b.table = new([256]float32)
	for i := range b.table {
		b.table[i] = floatAt(table, int64(i))
	}
	return b, nil
}

// open8 opens an 8-bit matrix; layout says how its codes are arranged, nil for rows.
func (g *bnbGroup) open8(scb, layout *format.Tensor) (*arch.Packed, error) {
	w := g.weight
	if layout != nil {
		var code [1]byte
		if layout.Type != format.U8 || layout.Size != 1 {
			return nil, g.corrupt(layout, "%v %v where one byte is wanted", layout.Type, layout.Shape)
		}
		if _, err := layout.ReadAt(code[:], 0); err != nil {
			return nil, err
		}
		if code[0] != 0 {
			return nil, format.Unsupported("%s: tensor %s: codes arranged for one kind of GPU (format %d); save the model with a newer bitsandbytes",
				layout.Path, layout.Name, code[0])
		}
	}
	if w.Type != format.I8 || len(w.Shape) != 2 {
		return nil, g.corrupt(w, "%v %v beside an SCB, where a matrix of I8 is wanted", w.Type, w.Shape)
	}
	if scb.Type != format.F32 || scb.Rows()*scb.Cols() != w.Shape[0] {
		return nil, g.corrupt(scb, "%v %v for a matrix of %d rows", scb.Type, scb.Shape, w.Shape[0])
	}
	m := &int8Rows{name: w.Name, rows: w.Shape[0], cols: w.Shape[1]}
	var err error
	if m.codes, err = tensorBytes(w); err != nil {
		return nil, err
	}
	if m.scales, err = tensorBytes(scb); err != nil {
		return nil, err
	}
	return &arch.Packed{Type: format.INT8, Shape: slices.Clone(w.Shape), Rows: m, From: g.from}, nil
}
