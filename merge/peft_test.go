package merge

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/testutil"
)

// retyped is a view of other rows stored as typ.
func retyped(t *testing.T, v *format.View, typ format.Type) *format.View {
	t.Helper()
	rows, cols := v.Rows.Dims()
	x := make([]float32, rows*cols)
	if err := v.Rows.ReadRows(x, 0); err != nil {
		t.Fatal(err)
	}
	codec, err := format.EncoderOf(typ)
	if err != nil {
		t.Fatal(err)
	}
	w := *v
	m := &encodedRows{typ: typ, codec: codec, rows: rows, cols: cols}
	n, err := typ.RowBytes(cols)
	if err != nil {
		t.Fatal(err)
	}
	m.rowBytes, m.data = n, make([]byte, n*rows)
	if err := codec.Encode(m.data, x, int(cols), nil); err != nil {
		t.Fatal(err)
	}
	w.Type, w.Rows = typ, m
	return &w
}

// encodedRows is a matrix in memory in some type.
type encodedRows struct {
	typ        format.Type
	codec      format.Codec
	rows, cols int64
	rowBytes   int64
	data       []byte
}

func (m *encodedRows) Dims() (rows, cols int64) { return m.rows, m.cols }
func (m *encodedRows) RawType() format.Type     { return m.typ }
func (m *encodedRows) ReadRaw(dst []byte, row int64) error {
	copy(dst, m.data[row*m.rowBytes:])
	return nil
}
func (m *encodedRows) ReadRows(dst []float32, row int64) error {
	n := int64(len(dst)) / m.cols
	m.codec.Decode(dst, m.data[row*m.rowBytes:(row+n)*m.rowBytes])
	return nil
}

// tensorsOf runs a plan into memory.
func tensorsOf(t *testing.T, p *format.Plan) map[string][]byte {
	t.Helper()
	s := &byteSink{plan: p, out: map[string][]byte{}}
	if err := format.Run(context.Background(), p, s, format.RunOptions{Threads: 2}); err != nil {
		t.Fatal(err)
	}
	return s.out
}

type byteSink struct {
	plan *format.Plan
	out  map[string][]byte
	at   string
}

func (s *byteSink) Begin(i int) error { s.at = s.plan.Outputs[i].Name; return nil }
func (s *byteSink) Write(p []byte) (int, error) {
	s.out[s.at] = append(s.out[s.at], p...)
	return len(p), nil
}

// TestMergedAsPEFT merges the recorded adapters into the recorded base, as it is and
// rounded to 16 bits, both by Apply and by a plan in the base's own types. Plain LoRA
// gives the same bytes. DoRA sums row norms in another order: relative to the largest
// element of the tensor 1.6e-7 seen in float32, and in 16 bits 5 elements of
// 18432 at most that round the other way.
func TestMergedAsPEFT(t *testing.T) {
	t.Parallel()
	dir := testutil.Shared(t, "oracle", "peft-merge")
	base, err := arch.Open(filepath.Join(dir, "base"), arch.Options{NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { base.Close() })
	for folder, typ := range map[string]format.Type{"merged": format.F32, "merged-bf16-base": format.BF16, "merged-f16-base": format.F16} {
		files, err := filepath.Glob(filepath.Join(dir, folder, "*.safetensors"))
		if err != nil || len(files) < 4 {
			t.Fatal(folder, len(files), err)
		}
		model := base
		if typ != format.F32 {
			views := make([]*format.View, len(base.Views))
			for i, v := range base.Views {
				views[i] = retyped(t, v, typ)
			}
			model = arch.NewModel(base.Path, base.Meta, views)
		}
		for _, file := range files {
			name := filepath.Base(file)
			name = name[:len(name)-len(".safetensors")]
			a, err := adapter.Open(filepath.Join(dir, "adapters", name))
			if err != nil {
				t.Fatal(err)
			}
			ds, err := NewDeltas(model, []Weighted{{a, 1}})
			if err != nil {
				t.Fatal(err)
			}
			plan, _, err := NewPlan(model, ds, Options{})
			if err != nil {
				t.Fatal(err)
			}
			sum, err := Apply(model, ds)
			if err != nil {
				t.Fatal(err)
			}
			compareMerged(t, folder+"/"+name, file, base, sum, ds, typ, tensorsOf(t, plan))
		}
	}
}

func compareMerged(t *testing.T, label, file string, base, sum *arch.Model, ds Deltas, typ format.Type, planned map[string][]byte) {
	t.Helper()
	f, err := safetensors.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	codec, err := format.EncoderOf(typ)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Tensors) != len(ds) {
		t.Errorf("%s: %d tensors changed, PEFT changed %d", label, len(ds), len(f.Tensors))
	}
	worst, units, total := 0.0, 0, 0
	dora := false
	for _, d := range ds {
		for _, term := range d.Terms {
			dora = dora || term.Magnitude != nil
		}
	}
	for _, w := range f.Tensors {
		target, _, ok := base.Module(w.Name[:len(w.Name)-len(".weight")])
		v := sum.View(target)
		if !ok || v == nil {
			t.Fatalf("%s: no tensor %s", label, w.Name)
		}
		stored, err := format.StoredRows(w)
		if err != nil {
			t.Fatal(err)
		}
		rows, cols := v.Rows.Dims()
		want, got, direct := make([]float32, rows*cols), make([]float32, rows*cols), make([]float32, rows*cols)
		if err := v.Rows.ReadRows(direct, 0); err != nil {
			t.Fatal(err)
		}
		codec.Decode(got, planned[target])
		order, _ := base.RowOrder(target)
		for r := range rows {
			at := r
			if order != nil {
				at = order(r)
			}
			if err := stored.ReadRows(want[r*cols:(r+1)*cols], at); err != nil {
				t.Fatal(err)
			}
		}
		largest, size := 0.0, float64(0)
		for i, x := range want {
			size = max(size, math.Abs(float64(x)))
			largest = max(largest, math.Abs(float64(got[i]-x)))
			total++
			if got[i] != x {
				units++
			}
		}
		if typ == format.F32 {
			for i, x := range direct {
				if x != got[i] {
					t.Fatalf("%s: %s: Apply and the plan differ at %d", label, w.Name, i)
				}
			}
		}
		worst = max(worst, largest/size)
	}
	limit, count := 0.0, 0
	switch {
	case !dora:
	case typ == format.F32:
		limit, count = 2e-7, total
	default:
		limit, count = 2e-5, 10
	}
	t.Logf("%s: largest difference %.2g of the largest element, %d of %d elements", label, worst, units, total)
	if worst > limit || units > count {
		t.Errorf("%s: largest difference %.2g of the largest element, %d of %d elements", label, worst, units, total)
	}
}

// TestSavedBase: an adapter that holds the base's head is refused by another model.
func TestSavedBase(t *testing.T) {
	t.Parallel()
	dir := testutil.Shared(t, "oracle", "peft-merge")
	base, err := arch.Open(filepath.Join(dir, "base"), arch.Options{NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { base.Close() })
	views := make([]*format.View, len(base.Views))
	for i, v := range base.Views {
		views[i] = v
		if v.Name == "output.weight" {
			w := *v
			w.Rows = Difference{v.Rows, base.View("token_embd.weight").Rows}
			views[i] = &w
		}
	}
	a, err := adapter.Open(filepath.Join(dir, "adapters", "f_embed_head"))
	if err != nil {
		t.Fatal(err)
	}
	err = a.Resolve(arch.NewModel(base.Path, base.Meta, views))
	if format.ExitStatus(err) != 2 || !strings.Contains(err.Error(), "lm_head") {
		t.Errorf("another model's head: %v", err)
	}
	if err := a.Resolve(base); err != nil {
		t.Error(err)
	}
}
