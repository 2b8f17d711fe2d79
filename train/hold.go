package train

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/quant"
)

// holds are the ways to quantize a base as it is opened.
var holds = map[string]struct {
	typ format.Type
	do  func(format.RowReader) (format.RowReader, int64, error)
}{
	"nf4": {format.NF4, func(r format.RowReader) (format.RowReader, int64, error) {
		return quant.HoldNF4(r, quant.HoldOptions{})
	}},
	"nf4-dq": {format.NF4, func(r format.RowReader) (format.RowReader, int64, error) {
		return quant.HoldNF4(r, quant.HoldOptions{Nested: true})
	}},
	"fp4": {format.FP4, func(r format.RowReader) (format.RowReader, int64, error) {
		return quant.HoldFP4(r, quant.HoldOptions{})
	}},
	"fp4-dq": {format.FP4, func(r format.RowReader) (format.RowReader, int64, error) {
		return quant.HoldFP4(r, quant.HoldOptions{Nested: true})
	}},
	"int8": {format.INT8, quant.HoldINT8},
}

// Holds lists the ways in which a base can be held, beside as it is stored.
func Holds() []string { return slices.Sorted(maps.Keys(holds)) }

// hold quantizes the matrices of the layers as bitsandbytes does, which leaves the
// embedding, the head and the norms as they are, and keeps them in memory. "" leaves
// all as it is.
func hold(src *arch.Model, how string) error {
	if how == "" {
		return nil
	}
	h, ok := holds[how]
	if !ok {
		return fmt.Errorf("train: a base cannot be held as %q: there are %s", how, strings.Join(Holds(), ", "))
	}
	for _, v := range src.Views {
		if len(v.Shape) != 2 || v.Shape[0] < 2 || !strings.HasPrefix(v.Name, "blk.") || !strings.HasSuffix(v.Name, ".weight") {
			continue
		}
		if v.Type.Quantized() {
			return format.Unsupported("holding %s as %s: its %s is quantized already (%v)", src.Path, how, v.Name, v.Type)
		}
		rows, _, err := h.do(v.Rows)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", src.Path, v.Name, err)
		}
		v.Rows, v.Type = rows, h.typ
	}
	return nil
}
