package merge

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// rawMatrix is a matrix of 16-bit floats in memory.
type rawMatrix struct {
	rows, cols int64
	b          []byte
}

func (m *rawMatrix) Dims() (int64, int64) { return m.rows, m.cols }
func (m *rawMatrix) RawType() format.Type { return format.F16 }
func (m *rawMatrix) ReadRaw(dst []byte, row int64) error {
	copy(dst, m.b[2*row*m.cols:])
	return nil
}

func (m *rawMatrix) ReadRows(dst []float32, row int64) error {
	kernel.F16ToF32(dst, m.b[2*row*m.cols:])
	return nil
}

// BenchmarkMergeF16 merges an adapter of rank 16 into a matrix of float16, on one core:
// the arithmetic without files.
func BenchmarkMergeF16(b *testing.B) {
	const rows, cols, rank = 2048, 2048, 16
	w := randomMat("w", rows, cols)
	m := &rawMatrix{rows, cols, make([]byte, 2*rows*cols)}
	for i, v := range w.Data {
		binary.LittleEndian.PutUint16(m.b[2*i:], kernel.F16Bits(v/50))
	}
	a, up := randomMat("a", rank, cols), randomMat("b", rows, rank)
	d := &Delta{Rows: rows, Cols: cols, Terms: []Term{{A: a, B: up, Scale: 0.001}}}
	for _, method := range []string{"keep", "fit"} {
		b.Run(method, func(b *testing.B) {
			v := &format.View{Name: "blk.0.attn_q.weight", Type: format.F16, Shape: []int64{rows, cols}, Rows: m}
			o, err := format.NewOutput(v.Name, v.Type, v.Shape, v.Rows, nil)
			if err != nil {
				b.Fatal(err)
			}
			how, err := MethodByName(method)
			if err != nil {
				b.Fatal(err)
			}
			if err := mergeOutput(o, v, d, how, Options{Method: method}, &readyInputs{}, &Report{}); err != nil {
				b.Fatal(err)
			}
			n := int64(max(512<<10/(o.UnitBytes+o.Cost), 1))
			dst := make([]byte, n*o.UnitBytes)
			b.SetBytes(2 * rows * cols)
			for b.Loop() {
				if err := o.Prepare(b.Context()); err != nil {
					b.Fatal(err)
				}
				for row := int64(0); row < rows; row += n {
					k := min(n, rows-row)
					if err := o.Fill(dst[:k*o.UnitBytes], row); err != nil {
						b.Fatal(fmt.Errorf("row %d: %w", row, err))
					}
				}
				if err := o.Finish(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestDiffering: values of other bits are counted.
func TestDiffering(t *testing.T) {
	t.Parallel()
	a, b := make([]float32, 1003), make([]float32, 1003)
	var want int64
	for i := range a {
		a[i], b[i] = float32(i), float32(i)
		if i%3 == 0 {
			b[i] = -b[i]
			want++
		}
	}
	if got := differing(a, b); got != want {
		t.Errorf("%d of %d values differ, want %d", got, len(a), want)
	}
}

// BenchmarkCountGroups compares the groups of a block of rows before and after a merge.
func BenchmarkCountGroups(b *testing.B) {
	const rows, cols = 32, 2048
	for _, typ := range []format.Type{format.IQ2_XXS, format.IQ3_S} {
		b.Run(typ.String(), func(b *testing.B) {
			raw := make([]byte, rows*cols/typ.BlockSize()*typ.BlockBytes())
			for i := range raw {
				raw[i] = byte(i * 37)
			}
			t := (&Report{}).tally(&format.View{Name: "w", Type: typ, Rows: matRows{kernel.NewMat(rows, cols)}}, "keep")
			t.begin(rows)
			base := make([]float32, rows*cols)
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				t.countGroups(raw, raw, base, 0)
			}
		})
	}
}
