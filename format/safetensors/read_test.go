package safetensors

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	oracle "github.com/nlpodyssey/safetensors"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/testutil"
)

// rewritePlan copies every tensor of f as bytes.
func rewritePlan(f *File) *format.Plan {
	p := &format.Plan{}
	for _, t := range f.Tensors {
		o := &format.Output{Name: t.Name, Type: t.Type, Shape: t.Shape, Units: 1, UnitBytes: t.Size}
		o.Fill = func(dst []byte, _ int64) error { _, err := t.ReadAt(dst, 0); return err }
		p.Outputs = append(p.Outputs, o)
	}
	return p
}

func run(t *testing.T, w *Writer, plan *format.Plan) {
	t.Helper()
	defer w.Abort()
	if err := format.Run(t.Context(), plan, w, format.RunOptions{Threads: 2}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestShared reads every safetensors file among the shared ones, compares what it
// finds with nlpodyssey/safetensors, and writes it again. All come back byte for
// byte, but those of 2022, whose writer neither sorted nor padded.
func TestShared(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"formats/safetensors", "oracle", "models"} {
		root := testutil.Shared(t, dir)
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".safetensors") {
				return err
			}
			t.Run(strings.TrimPrefix(path, root), func(t *testing.T) {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				f, err := Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if st, err := oracle.Deserialize(data); err == nil {
					compare(t, f, st)
				} else if !strings.Contains(err.Error(), "invalid DType string value") {
					t.Errorf("the other reader refuses this file: %v", err) // it knows no 8-bit floats
				}
				checkRewrite(t, f, data, !strings.Contains(path, "hf-samples-2022"))
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func checkRewrite(t *testing.T, f *File, want []byte, sameBytes bool) {
	out := filepath.Join(t.TempDir(), "out.safetensors")
	plan := rewritePlan(f)
	w, err := Create(out, plan, f.Metadata, WriteOptions{MetadataKeys: f.MetadataKeys})
	if err != nil {
		t.Fatal(err)
	}
	run(t, w, plan)
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(got)) != w.Layout().Size() {
		t.Errorf("%d bytes written, the layout said %d", len(got), w.Layout().Size())
	}
	if sameBytes && !bytes.Equal(got, want) {
		t.Errorf("%d bytes differ from the file's %d:\n%.300s\n%.300s", len(got), len(want), got, want)
	}
}

// compare holds f to what the other reader found in the same file.
func compare(t *testing.T, f *File, st oracle.SafeTensors) {
	t.Helper()
	if st.Len() != len(f.Tensors) {
		t.Fatalf("%d tensors, the other reader finds %d", len(f.Tensors), st.Len())
	}
	for _, x := range f.Tensors {
		v, ok := st.Tensor(x.Name)
		if !ok {
			t.Fatalf("the other reader finds no %s", x.Name)
		}
		name, _ := DTypeName(x.Type)
		if v.DType().String() != name {
			t.Errorf("%s: dtype %s, the other reader says %s", x.Name, name, v.DType())
		}
		if len(v.Shape()) != len(x.Shape) {
			t.Fatalf("%s: shape %v, the other reader says %v", x.Name, x.Shape, v.Shape())
		}
		for i, d := range v.Shape() {
			if int64(d) != x.Shape[i] {
				t.Fatalf("%s: shape %v, the other reader says %v", x.Name, x.Shape, v.Shape())
			}
		}
		data := make([]byte, x.Size)
		if _, err := x.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, v.Data()) {
			t.Errorf("%s: other bytes than the other reader finds", x.Name)
		}
	}
}

// TestSharded opens the files of a folder through their index and finds in them
// what the single file has.
func TestSharded(t *testing.T) {
	t.Parallel()
	dir := testutil.Shared(t, "formats/safetensors/fluxml")
	whole, err := OpenDir(filepath.Join(dir, "non_sharded"))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	parts, err := OpenDir(filepath.Join(dir, "sharded"))
	if err != nil {
		t.Fatal(err)
	}
	defer parts.Close()
	if len(parts.Shards) != 6 || len(parts.Tensors) != len(whole.Tensors) {
		t.Errorf("%d files with %d tensors, want 6 with %d", len(parts.Shards), len(parts.Tensors), len(whole.Tensors))
	}
	for _, a := range whole.Tensors {
		b := parts.Tensor(a.Name)
		if b == nil || a.Type != b.Type || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("tensor %s differs", a.Name)
		}
	}
}
