package train

import (
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/train/model"
)

// memory rows of a type, and the same decoded.
type encodedRows struct {
	codec      format.Codec
	rows, cols int64
	rowBytes   int64
	data       []byte
}

func (m *encodedRows) Dims() (rows, cols int64) { return m.rows, m.cols }
func (m *encodedRows) ReadRows(dst []float32, row int64) error {
	n := int64(len(dst)) / m.cols
	m.codec.Decode(dst, m.data[row*m.rowBytes:(row+n)*m.rowBytes])
	return nil
}

type decodedRows struct {
	data []float32
	cols int64
}

func (m *decodedRows) Dims() (rows, cols int64) { return int64(len(m.data)) / m.cols, m.cols }
func (m *decodedRows) ReadRows(dst []float32, row int64) error {
	copy(dst, m.data[row*m.cols:])
	return nil
}

// TestEveryType takes the gradient of a step on Sprig with the matrices of a layer in each
// type that graft decodes, whether of GGUF or of bitsandbytes: it is, bit for bit, that on
// a base of the float32 numbers that they decode to.
func TestEveryType(t *testing.T) {
	t.Parallel()
	src, err := arch.Open(testutil.Shared(t, "models", "sprig", "sprig-f16.gguf"), arch.Options{NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	batch := &model.Batch{IDs: []int32{5, 9, 77, 3, 250, 9, 9, 41}}
	batch.Targets = model.ShiftLabels(batch.IDs, nil)
	gradient := func(m *arch.Model) (all []float32) {
		x, err := model.New(m, model.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		c := DefaultConfig().Adapter
		c.Rank, c.Targets, c.Float32 = 2, []string{"all-linear"}, true
		l, err := newLoRA(background, x, &c, 1, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := l.adapter
		for _, p := range a.Pairs {
			for i := range p.B.Data {
				p.B.Data[i] = float32(i%7-3) / 100
			}
		}
		g := model.NewGrads(a)
		if _, err := x.LossAndGrad(batch, a, g); err != nil {
			t.Fatal(err)
		}
		for _, n := range a.Names() {
			all = append(append(all, g[n].A.Data...), g[n].B.Data...)
		}
		return all
	}
	types := 0
	for typ := format.Type(0); typ < 200; typ++ {
		codec, err := format.CodecOf(typ)
		if err != nil {
			continue
		}
		if codec.Encode == nil {
			t.Logf("%v is decoded and not encoded: there are no numbers of it to take", typ)
			continue
		}
		var stored, decoded []*format.View
		mixed := 0
		for _, v := range src.Views {
			s, d := *v, *v
			rows, cols := v.Rows.Dims()
			n, err := typ.RowBytes(cols)
			if len(v.Shape) == 2 && strings.HasPrefix(v.Name, "blk.1.") && err == nil {
				x := make([]float32, rows*cols)
				if err := v.Rows.ReadRows(x, 0); err != nil {
					t.Fatal(err)
				}
				e := &encodedRows{codec: codec, rows: rows, cols: cols, rowBytes: n, data: make([]byte, n*rows)}
				if err := codec.Encode(e.data, x, int(cols), slices.Repeat([]float32{1}, int(cols))); err != nil {
					t.Fatal(err)
				}
				codec.Decode(x, e.data)
				s.Rows, s.Type, d.Rows, d.Type = e, typ, &decodedRows{x, cols}, format.F32
				mixed++
			}
			stored, decoded = append(stored, &s), append(decoded, &d)
		}
		if len(stored) < len(src.Views) || mixed == 0 {
			t.Logf("%v holds none of the matrices", typ)
			continue
		}
		types++
		got, want := gradient(arch.NewModel(src.Path, src.Meta, stored)), gradient(arch.NewModel(src.Path, src.Meta, decoded))
		if !slices.Equal(got, want) {
			t.Errorf("%v: the gradient is not that on the decoded numbers", typ)
		}
		if !slices.ContainsFunc(got, func(x float32) bool { return x != 0 }) {
			t.Errorf("%v: no gradient", typ)
		}
		t.Logf("%v: %d matrices", typ, mixed)
	}
	for _, how := range Holds() {
		held, err := arch.Open(src.Path, arch.Options{NoVocab: true})
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		if err := hold(held, how); err != nil {
			t.Fatal(err)
		}
		var decoded []*format.View
		for _, v := range held.Views {
			d := *v
			rows, cols := v.Rows.Dims()
			x := make([]float32, rows*cols)
			if err := v.Rows.ReadRows(x, 0); err != nil {
				t.Fatal(err)
			}
			d.Rows = &decodedRows{x, cols}
			decoded = append(decoded, &d)
		}
		types++
		if !slices.Equal(gradient(held), gradient(arch.NewModel(src.Path, src.Meta, decoded))) {
			t.Errorf("%s: the gradient is not that on the decoded numbers", how)
		}
		t.Logf("held as %s", how)
	}
	if types < 20 {
		t.Errorf("only %d types were tried", types)
	}
}
