package gguf

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

func write(t *testing.T, path string, meta *Meta, plan *format.Plan, opt WriteOptions) *Layout {
	t.Helper()
	w, err := Create(path, meta, plan, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := format.Run(t.Context(), plan, w, format.RunOptions{Threads: 2}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.Layout()
}

// TestRewrite reads every GGUF file among the shared ones and writes it again:
// the bytes must be the same (version 3, little endian).
func TestRewrite(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"models", "oracle", "formats/gguf"} {
		root := testutil.Shared(t, dir)
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".gguf") {
				return err
			}
			t.Run(strings.TrimPrefix(path, root), func(t *testing.T) { checkRewrite(t, path) })
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func checkRewrite(t *testing.T, path string) {
	f, err := OpenShard(path)
	if strings.HasSuffix(path, "test-le-v3-2024.gguf") || strings.HasSuffix(path, "test-be-v3.gguf") {
		// Their writer stored general.architecture twice; the reference reader refuses them too.
		if err == nil || !strings.Contains(err.Error(), `"general.architecture" stands there twice`) {
			t.Errorf("duplicate key: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := filepath.Join(t.TempDir(), "out.gguf")
	l := write(t, out, f.Meta, rewritePlan(f), WriteOptions{})
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(got)) != l.Size() {
		t.Errorf("%d bytes written, the layout said %d", len(got), l.Size())
	}
	if len(f.Tensors) == 0 {
		// A header without data may or may not be padded: vocabularies are not.
		got = got[:min(len(got), len(want))]
	}
	if !bytes.Equal(got, want) {
		t.Errorf("rewritten file differs: %d bytes, want %d", len(got), len(want))
	}
}
