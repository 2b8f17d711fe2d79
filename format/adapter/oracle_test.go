package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/testutil"
	_ "github.com/graft-lora/graft/quant"
)

func openBase(t *testing.T, elem ...string) *arch.Model {
	t.Helper()
	m, err := arch.Open(testutil.Shared(t, elem...), arch.Options{NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func values(t *testing.T, tensor *format.Tensor) []float32 {
	t.Helper()
	rows, err := format.StoredRows(tensor)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, tensor.Rows()*tensor.Cols())
	if err := rows.ReadRows(v, 0); err != nil {
		t.Fatal(err)
	}
	return v
}

// delta computes Scale * B * A in float64, with DoRA's magnitude if there is one; w
// are the rows of the base.
func delta(p *adapter.Pair, w []float32) []float64 {
	d := make([]float64, p.B.Rows*p.A.Cols)
	for i := range p.B.Rows {
		row := d[i*p.A.Cols : (i+1)*p.A.Cols]
		for k, b := range p.B.Row(i) {
			for j, a := range p.A.Row(k) {
				row[j] += float64(p.Scale) * float64(b) * float64(a)
			}
		}
		if p.Magnitude == nil || p.Columns {
			continue
		}
		base := w[i*p.A.Cols : (i+1)*p.A.Cols]
		sum := 0.0
		for j := range row {
			sum += (float64(base[j]) + row[j]) * (float64(base[j]) + row[j])
		}
		for j := range row {
			row[j] = float64(p.Magnitude[i])/(math.Sqrt(sum)+float64(p.NormEpsilon))*(float64(base[j])+row[j]) - float64(base[j])
		}
	}
	if p.Columns {
		for j := range p.A.Cols {
			sum := 0.0
			for i := j; i < len(d); i += p.A.Cols {
				sum += (float64(w[i]) + d[i]) * (float64(w[i]) + d[i])
			}
			for i := j; i < len(d); i += p.A.Cols {
				d[i] = float64(p.Magnitude[j])/(math.Sqrt(sum)+float64(p.NormEpsilon))*(float64(w[i])+d[i]) - float64(w[i])
			}
		}
	}
	return d
}

// checkDeltas compares the changes of a resolved adapter with recorded ones, whose
// rows are in Hugging Face's order, within 1e-6 of the largest entry (seen: 1e-7).
func checkDeltas(t *testing.T, m *arch.Model, a *adapter.Adapter, path string) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(f.Tensors) != len(a.Pairs) {
		t.Errorf("%d pairs, want %d", len(a.Pairs), len(f.Tensors))
	}
	for _, p := range a.Pairs {
		w := f.Tensor(p.Module + ".weight")
		if w == nil && m.Stored() {
			w = f.Tensor(p.Target)
		}
		if w == nil {
			t.Errorf("%s: not expected", p.Module)
			continue
		}
		want := values(t, w)
		base := make([]float32, len(want))
		if err := m.View(p.Target).Rows.ReadRows(base, 0); err != nil {
			t.Fatal(err)
		}
		got := delta(p, base)
		_, toHF := m.RowOrder(p.Target)
		largest, worst := 0.0, 0.0
		for i := range p.B.Rows {
			from := i
			if toHF != nil {
				from = int(toHF(int64(i)))
			}
			for j := range p.A.Cols {
				x := float64(want[i*p.A.Cols+j])
				largest = max(largest, math.Abs(x))
				worst = max(worst, math.Abs(x-got[from*p.A.Cols+j]))
			}
		}
		if !(worst <= 1e-6*largest) {
			t.Errorf("%s: off by %g, the largest entry is %g", p.Module, worst, largest)
		}
	}
}

type recordedFormat struct {
	File  string `json:"file"`
	Delta string `json:"delta"`
	Note  string `json:"note"`
}

func recordedFormats(t *testing.T) map[string]recordedFormat {
	b, err := os.ReadFile(testutil.Shared(t, "oracle", "adapters", "formats.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]recordedFormat
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// convolutions makes a model of the recorded convolutions, with weights of zero.
func convolutions(t *testing.T) *arch.Model {
	t.Helper()
	zeros := make([]byte, 4*8*6*3*3)
	var plan format.Plan
	for _, name := range []string{"conv_a", "conv_b", "conv_c", "conv_d", "conv_e"} {
		o := &format.Output{Name: name + ".weight", Type: format.F32, Shape: []int64{8, 6, 3, 3}, Units: 8 * 6 * 3, UnitBytes: 12}
		o.Fill = func(dst []byte, unit int64) error { copy(dst, zeros[12*unit:]); return nil }
		plan.Outputs = append(plan.Outputs, o)
	}
	path := filepath.Join(t.TempDir(), "conv.safetensors")
	w, err := safetensors.Create(path, &plan, nil, safetensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := format.Run(context.Background(), &plan, w, format.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m, err := arch.Open(path, arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestFormats reads every recorded adapter.
func TestFormats(t *testing.T) {
	for name, r := range recordedFormats(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := openBase(t, "oracle", "adapters", "base")
			if name == "lycoris-conv" {
				m = convolutions(t)
			}
			path := testutil.Shared(t, "oracle", "adapters", name)
			if strings.HasPrefix(name, "kohya") || strings.HasPrefix(name, "lycoris") {
				path = filepath.Join(path, r.File)
			}
			a, err := adapter.Open(path)
			if err == nil {
				err = a.Resolve(m)
			}
			switch {
			case strings.HasPrefix(name, "bad-"):
				if err == nil {
					t.Fatalf("accepted: %s", r.Note)
				}
				t.Log(err)
			case err != nil:
				t.Fatal(err)
			default:
				checkDeltas(t, m, a, testutil.Shared(t, "oracle", "adapters", r.Delta))
				checkRoundTrips(t, m, a, testutil.Shared(t, "oracle", "adapters", r.Delta))
			}
		})
	}
}

// checkRoundTrips writes the adapter in both formats and reads it back: the
// changes must be the same.
func checkRoundTrips(t *testing.T, m *arch.Model, a *adapter.Adapter, deltas string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "peft")
	err := adapter.WritePEFT(dir, a, adapter.WriteOptions{Extra: map[string]string{"graft.seed": "7"}})
	var unsupported *format.UnsupportedError
	if slices.ContainsFunc(a.Pairs, func(p *adapter.Pair) bool { return p.Changes() == "convolution" || p.Columns }) {
		if !errors.As(err, &unsupported) {
			t.Fatalf("error %v, want one that says unsupported", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(a.Pairs, func(p *adapter.Pair) bool { return p.Changes() == "vector" }) { // whole modules in PEFT
		back, err := adapter.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		var usage *format.UsageError
		if err := back.Complete(); !errors.As(err, &usage) {
			t.Errorf("whole modules without a base: %v", err)
		}
		if err := back.Resolve(m); err != nil {
			t.Fatal(err)
		}
		checkDeltas(t, m, back, deltas)
		if err := adapter.WriteGGUF(filepath.Join(t.TempDir(), "a.gguf"), a, adapter.WriteOptions{}); !errors.As(err, &unsupported) {
			t.Errorf("a vector in a GGUF adapter: %v", err)
		}
		return
	}
	file := filepath.Join(t.TempDir(), "a.gguf")
	err = adapter.WriteGGUF(file, a, adapter.WriteOptions{Extra: map[string]string{"graft.seed": "7"}})
	if a.Pairs[0].Magnitude != nil {
		if !errors.As(err, &unsupported) {
			t.Fatalf("DoRA as GGUF: error %v, want one that says unsupported", err)
		}
		file = dir
	} else if err != nil {
		t.Fatal(err)
	}
	one, mlx := filepath.Join(t.TempDir(), "one.safetensors"), filepath.Join(t.TempDir(), "mlx")
	if err := adapter.WriteKohya(one, a, adapter.WriteOptions{Extra: map[string]string{"graft.seed": "7"}}); err != nil {
		t.Fatal(err)
	}
	if err := adapter.WriteMLX(mlx, a, adapter.WriteOptions{Extra: map[string]string{"graft.seed": "7"}}); err != nil {
		mlx = one
		if !strings.Contains(err.Error(), "embedding") {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, file, one, mlx} {
		b, err := adapter.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Resolve(m); err != nil {
			t.Fatal(err)
		}
		if b.Meta["graft.seed"] != "7" {
			t.Errorf("%s: extra metadata is %v", path, b.Meta)
		}
		checkDeltas(t, m, b, deltas)
	}
}

// TestGGUFOfConverter reads what llama.cpp's converter made of the recorded
// adapters; they stand for the plain PEFT delta.
func TestGGUFOfConverter(t *testing.T) {
	m := openBase(t, "oracle", "adapters", "base")
	for name, delta := range map[string]string{"peft-f32": "peft", "peft-f16": "peft-f16"} {
		a, err := adapter.Open(testutil.Shared(t, "oracle", "adapters", "gguf", name+".gguf"))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Resolve(m); err != nil {
			t.Fatal(err)
		}
		if name == "peft-f32" {
			checkDeltas(t, m, a, testutil.Shared(t, "oracle", "adapters", delta, "delta.safetensors"))
		} else if a.Type != format.F16 {
			t.Errorf("%s has type %v", name, a.Type)
		}
	}
}

// TestZooAdapters converts the PEFT adapters of the recorded models and compares
// metadata and tensors with what llama.cpp's converter wrote, byte for byte; and
// back again with the PEFT file.
func TestZooAdapters(t *testing.T) {
	entries, err := os.ReadDir(testutil.Shared(t, "oracle", "zoo"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			t.Parallel()
			m := openBase(t, "oracle", "zoo", e.Name(), "hf")
			source := testutil.Shared(t, "oracle", "zoo", e.Name(), "adapter")
			a, err := adapter.Open(source)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Resolve(m); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "out.gguf")
			if err := adapter.WriteGGUF(path, a, adapter.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			recorded := testutil.Shared(t, "oracle", "zoo", e.Name(), "adapter.gguf")
			compareGGUF(t, path, recorded)
			sameFile(t, path, recorded)

			g, err := adapter.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Resolve(m); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "back")
			if err := adapter.WritePEFT(dir, g, adapter.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			sameFile(t, filepath.Join(dir, "adapter_model.safetensors"), filepath.Join(source, "adapter_model.safetensors"))
		})
	}
}

func sameFile(t *testing.T, got, want string) {
	t.Helper()
	g, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g, w) {
		t.Errorf("%s differs from %s", got, want)
	}
}

func compareGGUF(t *testing.T, got, want string) {
	t.Helper()
	g, err := gguf.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	w, err := gguf.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if !reflect.DeepEqual(g.Meta.All(), w.Meta.All()) {
		t.Errorf("metadata %v, want %v", g.Meta.All(), w.Meta.All())
	}
	if len(g.Tensors) != len(w.Tensors) {
		t.Fatalf("%d tensors, want %d", len(g.Tensors), len(w.Tensors))
	}
	for i, x := range g.Tensors {
		y := w.Tensors[i]
		if x.Name != y.Name || x.Type != y.Type || !slices.Equal(x.Shape, y.Shape) {
			t.Errorf("tensor %d is %s %v %v, want %s %v %v", i, x.Name, x.Type, x.Shape, y.Name, y.Type, y.Shape)
			continue
		}
		if !slices.Equal(x.Bytes(), y.Bytes()) {
			t.Errorf("the bytes of %s differ", x.Name)
		}
	}
}
