package arch

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/graft-lora/graft/format"
)

// memory is a float32 matrix that gives its bytes too.
type memory struct {
	rows, cols int64
	data       []float32
}

func (m *memory) Dims() (int64, int64) { return m.rows, m.cols }
func (m *memory) RawType() format.Type { return format.F32 }
func (m *memory) ReadRows(dst []float32, row int64) error {
	copy(dst, m.data[row*m.cols:])
	return nil
}

func (m *memory) ReadRaw(dst []byte, row int64) error {
	for i, x := range m.data[row*m.cols:][:len(dst)/4] {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
	return nil
}

func counted(rows, cols int64) *memory {
	m := &memory{rows: rows, cols: cols, data: make([]float32, rows*cols)}
	for i := range m.data {
		m.data[i] = float32(i)
	}
	return m
}

func all(t interface{ Fatal(...any) }, r format.RowReader) []float32 {
	rows, cols := r.Dims()
	out := make([]float32, rows*cols)
	if err := r.ReadRows(out, 0); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRopeOrder: the two orders are inverse to each other, and neighbours in GGUF's
// are half a head apart in the other.
func TestRopeOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		heads := rapid.Int64Range(1, 6).Draw(t, "heads")
		half := rapid.Int64Range(1, 9).Draw(t, "half")
		rows := heads * 2 * half
		to, from := toRope(rows, heads), fromRope(rows, heads)
		for i := range rows {
			if to(from(i)) != i || from(to(i)) != i {
				t.Fatalf("row %d of %d in %d heads does not come back", i, rows, heads)
			}
		}
		for i := int64(0); i < rows; i += 2 {
			if to(i+1)-to(i) != half {
				t.Fatalf("rows %d and %d come from %d and %d", i, i+1, to(i), to(i+1))
			}
		}
	})
}

// TestWrappers reads wrapped matrices in any pieces, as values and as bytes, and
// compares with reading them at once.
func TestWrappers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cols := rapid.Int64Range(1, 5).Draw(t, "cols")
		a, b := counted(8, cols), counted(4, cols)
		var r format.RowReader
		var want []float32
		row := func(m *memory, i int64) { want = append(want, m.data[i*cols:(i+1)*cols]...) }
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			at := toRope(8, 2)
			r = mapRows(a, 8, at)
			for i := range int64(8) {
				row(a, at(i))
			}
		case 1:
			r = stackRows([]format.RowReader{b, a, b})
			want = slices.Concat(b.data, a.data, b.data)
		default:
			r = mapRows(stackRows([]format.RowReader{a, b}), 5, func(i int64) int64 { return i + 5 })
			want = slices.Concat(a.data, b.data)[5*cols : 10*cols]
		}
		if got := all(t, r); !slices.Equal(got, want) {
			t.Fatalf("rows %v, want %v", got, want)
		}
		rows, _ := r.Dims()
		from := rapid.Int64Range(0, rows-1).Draw(t, "from")
		n := rapid.Int64Range(0, rows-from).Draw(t, "n")
		part := make([]float32, n*cols)
		if err := r.ReadRows(part, from); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(part, want[from*cols:(from+n)*cols]) {
			t.Fatalf("rows %d to %d are %v", from, from+n, part)
		}
		raw := make([]byte, 4*n*cols)
		if err := r.(format.RawReader).ReadRaw(raw, from); err != nil {
			t.Fatal(err)
		}
		var bytesOf []byte
		for _, x := range part {
			bytesOf = binary.LittleEndian.AppendUint32(bytesOf, math.Float32bits(x))
		}
		if !bytes.Equal(raw, bytesOf) {
			t.Fatal("bytes are not those of the values")
		}
		if r.ReadRows(make([]float32, cols), rows) == nil {
			t.Fatal("a row behind the last one was read")
		}
	})
}

func TestColumns(t *testing.T) {
	v := counted(1, 8)
	r := mapCols(v, toRope(8, 2))
	want := []float32{0, 2, 1, 3, 4, 6, 5, 7}
	if got := all(t, r); !slices.Equal(got, want) {
		t.Errorf("elements %v, want %v", got, want)
	}
	raw := make([]byte, 32)
	if err := r.(format.RawReader).ReadRaw(raw, 0); err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])); got != w {
			t.Errorf("bytes of element %d are those of %g, want %g", i, got, w)
		}
	}
	if got := all(t, &plus{v, 1}); got[0] != 1 || got[7] != 8 {
		t.Errorf("one added gives %v", got)
	}
	if got := all(t, vector{3, 4}); !slices.Equal(got, []float32{3, 4}) {
		t.Errorf("vector gives %v", got)
	}
}
