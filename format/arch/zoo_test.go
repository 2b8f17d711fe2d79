package arch_test

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/testutil"
	_ "github.com/graft-lora/graft/quant"
)

// zooModels are the folders of the recorded models.
func zooModels(t *testing.T) []string {
	entries, err := os.ReadDir(testutil.Shared(t, "oracle", "zoo"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestZooFolders compares what a folder looks like through the table with what the
// reference converter wrote for it: every metadata key with its value, type and
// place, every tensor with its place, shape and float32 bytes.
func TestZooFolders(t *testing.T) {
	for _, name := range zooModels(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := testutil.Shared(t, "oracle", "zoo", name)
			want, err := gguf.Open(filepath.Join(dir, "f32.gguf"))
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			got, err := arch.Open(filepath.Join(dir, "hf"), arch.Options{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			compareMeta(t, got.Meta, want.Meta)
			if len(got.Views) != len(want.Tensors) {
				t.Fatalf("%d tensors, want %d", len(got.Views), len(want.Tensors))
			}
			for i, v := range got.Views {
				w := want.Tensors[i]
				if v.Name != w.Name || !reflect.DeepEqual(v.Shape, w.Shape) {
					t.Errorf("tensor %d is %s %v, want %s %v", i, v.Name, v.Shape, w.Name, w.Shape)
					continue
				}
				if !bytes.Equal(floats(t, v.Rows), stored(t, w)) {
					t.Errorf("%s: values differ", v.Name)
				}
			}
		})
	}
}

// compareMeta leaves out graft's own keys, which are not for files.
func compareMeta(t *testing.T, got, want *gguf.Meta) {
	t.Helper()
	var kept []gguf.KV
	for _, kv := range got.All() {
		if !strings.HasPrefix(kv.Key, "graft.") {
			kept = append(kept, kv)
		}
	}
	wants := want.All()
	for i := range max(len(kept), len(wants)) {
		switch {
		case i >= len(kept):
			t.Errorf("key %d: missing %s = %.80v", i, wants[i].Key, wants[i].Value)
		case i >= len(wants):
			t.Errorf("key %d: superfluous %s = %.80v", i, kept[i].Key, kept[i].Value)
		case !reflect.DeepEqual(kept[i], wants[i]):
			t.Errorf("key %d: %s = %.80v (%T), want %s = %.80v (%T)", i, kept[i].Key, kept[i].Value, kept[i].Value, wants[i].Key, wants[i].Value, wants[i].Value)
		}
	}
}

func floats(t *testing.T, r format.RowReader) []byte {
	t.Helper()
	o, err := format.NewOutput("", format.F32, shapeOf(r), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, o.Size())
	if err := o.Fill(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func shapeOf(r format.RowReader) []int64 {
	rows, cols := r.Dims()
	return []int64{rows, cols}
}

func stored(t *testing.T, w *format.Tensor) []byte {
	t.Helper()
	b := make([]byte, w.Size)
	if _, err := w.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}
