package model

import (
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// rows are the rows of a matrix. Beside one that is NVFP4 stand factors, one for each matrix
// of a stack, that its rows are multiplied by ("blk.0.attn_q.scale"), and perhaps some that
// are for 8-bit inputs and mean nothing here.
func (ld *loader) rows(v *format.View) format.RowReader {
	base := strings.TrimSuffix(v.Name, ".weight")
	if name := base + ".input_scale"; ld.has(name) {
		ld.used[name] = true
	}
	name := base + ".scale"
	if !ld.has(name) {
		return v.Rows
	}
	n := 1
	if len(v.Shape) > 2 {
		n = int(v.Shape[0])
	}
	factors := ld.optional(name, n)
	if factors == nil {
		return v.Rows
	}
	return &scaledRows{v.Rows, factors, v.Shape[len(v.Shape)-2]}
}

// scaledRows are rows times the factor of their matrix.
type scaledRows struct {
	format.RowReader
	factors   []float32
	perMatrix int64
}

func (s *scaledRows) ReadRows(dst []float32, row int64) error {
	if err := s.RowReader.ReadRows(dst, row); err != nil {
		return err
	}
	_, cols := s.Dims()
	for ; len(dst) > 0; dst, row = dst[cols:], row+1 {
		kernel.Scale(dst[:cols], s.factors[row/s.perMatrix], dst[:cols])
	}
	return nil
}
