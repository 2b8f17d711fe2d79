package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// TestInspectIntegers shows a file with a tensor of integers, which no codec decodes.
func TestInspectIntegers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ints.gguf")
	meta := &gguf.Meta{}
	meta.Set("general.architecture", "llama")
	plan := &format.Plan{Outputs: []*format.Output{{Name: "ids", Type: format.I32, Shape: []int64{3, 4}, Units: 3, UnitBytes: 16,
		Fill: func([]byte, int64) error { return nil }}}}
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
	if out := command(t, "inspect", "--tensors", path); !strings.Contains(out, "ids") || !strings.Contains(out, "i32") {
		t.Errorf("the tensor of integers is not shown:\n%s", out)
	}
}
