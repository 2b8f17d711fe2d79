package arch_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/testutil"
)

// sameModel compares two folders through the table: metadata but the name, and
// every tensor's values.
func sameModel(t *testing.T, got, want string) {
	t.Helper()
	g, err := arch.Open(got, arch.Options{Name: "x", NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	w, err := arch.Open(want, arch.Options{Name: "x", NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	compareMeta(t, g.FileMeta(), w.FileMeta())
	if len(g.Views) != len(w.Views) {
		t.Errorf("%d tensors, want %d", len(g.Views), len(w.Views))
	}
	for _, v := range w.Views {
		o := g.View(v.Name)
		if o == nil || !slices.Equal(o.Shape, v.Shape) || !bytes.Equal(floats(t, o.Rows), floats(t, v.Rows)) {
			t.Errorf("%s differs", v.Name)
		}
	}
}

// TestMultimodalNames: the text model of a checkpoint that also sees, whose tensors
// older and newer libraries prefix differently, and whose configuration is nested.
func TestMultimodalNames(t *testing.T) {
	source := testutil.Shared(t, "oracle", "zoo", "gemma3", "hf")
	for _, rename := range []func(string) string{
		func(s string) string { return "language_model." + s },
		func(s string) string { return strings.Replace(s, "model.", "model.language_model.", 1) },
	} {
		f, err := safetensors.OpenDir(source)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := &folder{t: t}
		for _, x := range f.Tensors {
			b.copy(rename(x.Name), x)
		}
		var text map[string]any
		config, err := os.ReadFile(filepath.Join(source, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(config, &text); err != nil {
			t.Fatal(err)
		}
		delete(text, "architectures")
		config, err = json.Marshal(map[string]any{"architectures": []string{"Gemma3ForConditionalGeneration"}, "model_type": "gemma3", "text_config": text})
		if err != nil {
			t.Fatal(err)
		}
		sameModel(t, b.write(config), source)
	}
}

// joined is the rows of several matrices of the same number of rows for each of n
// experts, one expert's after the other.
type joined struct {
	parts [][]float32 // in the order of the stack
	cols  int64
	rows  int64 // of all
}

func (j *joined) Dims() (int64, int64) { return j.rows, j.cols }

func (j *joined) ReadRows(dst []float32, row int64) error {
	all := slices.Concat(j.parts...)
	copy(dst, all[row*j.cols:])
	return nil
}

// TestFusedExperts: experts as newer checkpoints hold them, gate and up in one
// stack, are the experts of the older ones.
func TestFusedExperts(t *testing.T) {
	source := testutil.Shared(t, "oracle", "zoo", "qwen3moe", "hf")
	f, err := safetensors.OpenDir(source)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := &folder{t: t}
	value := func(name string) (*format.Tensor, []float32) {
		x := f.Tensor(name)
		rows, err := format.StoredRows(x)
		if err != nil {
			t.Fatal(err)
		}
		v := make([]float32, x.Rows()*x.Cols())
		if err := rows.ReadRows(v, 0); err != nil {
			t.Fatal(err)
		}
		return x, v
	}
	for _, x := range f.Tensors {
		if !strings.Contains(x.Name, ".experts.") {
			b.copy(x.Name, x)
		}
	}
	for _, layer := range []string{"0", "1"} {
		prefix := "model.layers." + layer + ".mlp.experts."
		gateUp, down := &joined{}, &joined{}
		for _, e := range []string{"0", "1", "2", "3"} {
			for _, part := range []string{"gate_proj", "up_proj"} {
				x, v := value(prefix + e + "." + part + ".weight")
				gateUp.parts, gateUp.cols, gateUp.rows = append(gateUp.parts, v), x.Cols(), gateUp.rows+x.Rows()
			}
			x, v := value(prefix + e + ".down_proj.weight")
			down.parts, down.cols, down.rows = append(down.parts, v), x.Cols(), down.rows+x.Rows()
		}
		b.put(prefix+"gate_up_proj", []int64{4, gateUp.rows / 4, gateUp.cols}, gateUp)
		b.put(prefix+"down_proj", []int64{4, down.rows / 4, down.cols}, down)
	}
	config, err := os.ReadFile(filepath.Join(source, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	sameModel(t, b.write(config), source)
}
