package convert_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/convert"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/testutil"
	_ "github.com/graft-lora/graft/quant"
)

// recorded is what the reference converter wrote.
type recorded struct {
	Metadata map[string]any `json:"metadata"`
	Tensors  []struct {
		Name   string  `json:"name"`
		Type   string  `json:"type"`
		Shape  []int64 `json:"shape"`
		SHA256 string  `json:"sha256"`
	} `json:"tensors"`
}

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

// TestToGGUF compares every type with the recorded conversions: metadata, and of
// each tensor place, type, shape and SHA-256.
func TestToGGUF(t *testing.T) {
	for _, name := range zooModels(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := testutil.Shared(t, "oracle", "zoo", name)
			b, err := os.ReadFile(filepath.Join(dir, "gguf.json"))
			if err != nil {
				t.Fatal(err)
			}
			var all map[string]json.RawMessage
			if err := json.Unmarshal(b, &all); err != nil {
				t.Fatal(err)
			}
			m, err := arch.Open(filepath.Join(dir, "hf"), arch.Options{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			for _, typ := range []string{"f32", "f16", "bf16", "q8_0"} {
				var want recorded
				if err := json.Unmarshal(all[typ], &want); err != nil {
					t.Fatal(err)
				}
				checkConversion(t, m, typ, want)
			}
		})
	}
}

func checkConversion(t *testing.T, m *arch.Model, typ string, want recorded) {
	meta, plan, err := convert.ToGGUF(m, typ)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "out.gguf")
	writeGGUF(t, path, meta, plan)
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Meta.Len() != len(want.Metadata) {
		t.Errorf("%s: %d keys, want %d", typ, f.Meta.Len(), len(want.Metadata))
	}
	for _, kv := range f.Meta.All() {
		if w, ok := want.Metadata[kv.Key]; !ok || !sameValue(kv.Value, w) {
			t.Errorf("%s: %s = %.60v, want %.60v", typ, kv.Key, kv.Value, w)
		}
	}
	if len(f.Tensors) != len(want.Tensors) {
		t.Fatalf("%s: %d tensors, want %d", typ, len(f.Tensors), len(want.Tensors))
	}
	for i, g := range f.Tensors {
		w := want.Tensors[i]
		shape := slices.Clone(w.Shape)
		slices.Reverse(shape)
		if g.Name != w.Name || !strings.EqualFold(g.Type.String(), w.Type) || !reflect.DeepEqual(g.Shape, shape) {
			t.Errorf("%s: tensor %d is %s %v %v, want %s %s %v", typ, i, g.Name, g.Type, g.Shape, w.Name, w.Type, shape)
			continue
		}
		b := make([]byte, g.Size)
		if _, err := g.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != w.SHA256 {
			t.Errorf("%s: the bytes of %s differ", typ, g.Name)
		}
	}
}

// sameValue compares a value with its JSON form.
func sameValue(got any, want any) bool {
	b, err := json.Marshal(widen(got))
	if err != nil {
		return false
	}
	var v any
	return json.Unmarshal(b, &v) == nil && reflect.DeepEqual(v, want)
}

// widen makes float32 values float64, as the recording did.
func widen(v any) any {
	switch v := v.(type) {
	case float32:
		return float64(v)
	case []float32:
		w := make([]float64, len(v))
		for i, f := range v {
			w[i] = float64(f)
		}
		return w
	}
	return v
}

func writeGGUF(t *testing.T, path string, meta *gguf.Meta, plan *format.Plan) {
	t.Helper()
	w, err := gguf.Create(path, meta, plan, gguf.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := format.Run(context.Background(), plan, w, format.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWholeFiles: the files are, byte for byte, those
// that the reference converter wrote, a trained model with a chat template among them.
func TestWholeFiles(t *testing.T) {
	got := toGGUF(t, testutil.Shared(t, "models", "sprig", "hf"), "sprig", "auto")
	sameFile(t, got, testutil.Shared(t, "models", "sprig", "sprig-f16.gguf"))
	for _, name := range zooModels(t) {
		got := toGGUF(t, testutil.Shared(t, "oracle", "zoo", name, "hf"), name, "f32")
		sameFile(t, got, testutil.Shared(t, "oracle", "zoo", name, "f32.gguf"))
	}
}
