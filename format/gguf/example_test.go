package gguf_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// A plan is written and read again.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.gguf")

	meta := &gguf.Meta{}
	meta.Set("general.name", "tiny")
	plan := &format.Plan{Outputs: []*format.Output{{
		Name: "token_embd.weight", Type: format.F32, Shape: []int64{2, 3}, Units: 2, UnitBytes: 12,
		Fill: func(dst []byte, row int64) error { return nil }, // rows of zeros
	}}}
	w, err := gguf.Create(path, meta, plan, gguf.WriteOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer w.Abort() // does nothing after Close
	if err := format.Run(context.Background(), plan, w, format.RunOptions{}); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}

	f, err := gguf.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	name, _ := f.Meta.Str("general.name")
	t := f.Tensor("token_embd.weight")
	fmt.Println(name, t.Type, t.Shape, t.Size)
	// Output: tiny f32 [2 3] 24
}
