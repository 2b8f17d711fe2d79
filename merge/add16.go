package merge

import (
	"fmt"
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// add16 are the types of 16-bit floats, into which a change is merged, and its sums made, in one
// pass over a row: what is copied hardly faster than this takes.
var add16 = map[format.Type]func(dst, src []byte, d []float32) kernel.Added{
	format.F16:  kernel.AddF16,
	format.BF16: kernel.AddBF16,
}

// rowsOf16 is how many rows of such a tensor are made at a time at least, where there is memory for
// them: two or more of a product's tallest tiles.
const rowsOf16 = 24

// fill16 makes rows of a tensor of such a type.
func (t *target) fill16(count *tally) func(dst []byte, row int64) error {
	add, usesBase := add16[t.typ], t.delta.usesBase()
	return func(dst []byte, row int64) error {
		b := mergeScratch.Get().(*mergeBuffers)
		defer mergeScratch.Put(b)
		b.room(len(dst), len(dst)/2)
		if err := t.raw.ReadRaw(b.stored, row); err != nil {
			return err
		}
		if usesBase {
			t.codec.Decode(b.base, b.stored)
		}
		t.delta.change(b.delta, b.base, row, &b.term)
		for i := range len(b.delta) / t.cols {
			from, to := i*t.cols, (i+1)*t.cols
			s := add(dst[2*from:2*to], b.stored[2*from:2*to], b.delta[from:to])
			if math.IsInf(s.RR, 0) || math.IsNaN(s.RR) {
				return t.notFinite(b.stored[2*from:2*to], b.delta[from:to], row+int64(i))
			}
			count.added(row+int64(i), s)
		}
		return nil
	}
}

// notFinite says what cannot be stored of a row.
func (t *target) notFinite(raw []byte, delta []float32, row int64) error {
	w := make([]float32, len(delta))
	t.codec.Decode(w, raw)
	kernel.Add(w, delta)
	if err := format.AtRow(t.codec.Encode(make([]byte, len(raw)), w, len(w), nil), row); err != nil {
		return err
	}
	return fmt.Errorf("row %d: a value of the base is not finite", row)
}
