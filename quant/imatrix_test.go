package quant

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/testutil"
)

// TestImatrixFiles reads what llama-imatrix wrote for sprig in both forms, and
// writes the same bytes again.
func TestImatrixFiles(t *testing.T) {
	t.Parallel()
	m, err := ReadImatrix(testutil.Shared(t, "models", "sprig", "imatrix.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	old, err := ReadImatrix(testutil.Shared(t, "models", "sprig", "imatrix.dat"))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Entries) == 0 || len(m.Entries) != len(old.Entries) || m.Chunks != old.Chunks {
		t.Fatalf("%d entries on %d pieces, %d on %d in the old form", len(m.Entries), m.Chunks, len(old.Entries), old.Chunks)
	}
	for _, e := range m.Entries {
		w, o := m.Weights(e.Name), old.Weights(e.Name)
		if len(w) != len(o) {
			t.Fatalf("%s: %d weights, %d in the old form", e.Name, len(w), len(o))
		}
		for i := range w {
			// The old form stores means times pieces, so it rounds twice more.
			if math.Abs(float64(w[i]-o[i])) > 2e-7*float64(w[i]) {
				t.Fatalf("%s: weight %d is %v, %v in the old form", e.Name, i, w[i], o[i])
			}
		}
	}
	dir := t.TempDir()
	same := func(name string) {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(testutil.Shared(t, "models", "sprig", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is written with other bytes (%d, want %d)", name, len(got), len(want))
		}
	}
	if err := m.WriteGGUF(context.Background(), filepath.Join(dir, "imatrix.gguf"), false); err != nil {
		t.Fatal(err)
	}
	same("imatrix.gguf")
	if err := m.WriteDat(filepath.Join(dir, "imatrix.dat"), false); err != nil {
		t.Fatal(err)
	}
	same("imatrix.dat")
	if err := old.WriteDat(filepath.Join(dir, "imatrix.dat"), true); err != nil {
		t.Fatal(err)
	}
	same("imatrix.dat")
}

// TestImatrixAdd checks that a matrix added to itself has the same weights.
func TestImatrixAdd(t *testing.T) {
	t.Parallel()
	path := testutil.Shared(t, "models", "sprig", "imatrix.gguf")
	m, err := ReadImatrix(path)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := ReadImatrix(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := twice.Add(m); err != nil {
		t.Fatal(err)
	}
	if twice.Chunks != 2*m.Chunks {
		t.Errorf("%d pieces and %d more are %d", m.Chunks, m.Chunks, twice.Chunks)
	}
	for _, e := range m.Entries {
		if err := sameFloats(twice.Weights(e.Name), m.Weights(e.Name)); err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
	}
	part := m.Filter([]string{"blk.0", "blk.1"}, []string{"ffn"})
	if part.Entry("blk.0.attn_q.weight") == nil || part.Entry("blk.0.ffn_up.weight") != nil || part.Entry("blk.2.attn_q.weight") != nil {
		t.Error("the filter keeps the wrong entries")
	}
}

// TestImatrixCorrupt cuts the old form at every byte of its first entries: always
// an error that names an offset, never a panic.
func TestImatrixCorrupt(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(testutil.Shared(t, "models", "sprig", "imatrix.dat"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cut.dat")
	for n := range 200 {
		if err := os.WriteFile(path, whole[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := ReadImatrix(path)
		var corrupt *format.CorruptError
		if !errors.As(err, &corrupt) || corrupt.Offset < 0 || corrupt.Offset > int64(n) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}
