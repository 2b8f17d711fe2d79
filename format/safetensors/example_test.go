package safetensors_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/safetensors"
)

// A plan is written and read again; the wider dtype comes first.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")

	zeros := func(dst []byte, row int64) error { return nil }
	plan := &format.Plan{Outputs: []*format.Output{
		{Name: "a", Type: format.BF16, Shape: []int64{2}, Units: 1, UnitBytes: 4, Fill: zeros},
		{Name: "b", Type: format.F32, Shape: []int64{2, 3}, Units: 2, UnitBytes: 12, Fill: zeros},
	}}
	w, err := safetensors.Create(path, plan, map[string]string{"format": "pt"}, safetensors.WriteOptions{})
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

	f, err := safetensors.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	for _, t := range f.Tensors {
		fmt.Println(t.Name, t.Type, t.Shape, t.Size)
	}
	fmt.Println(f.Metadata)
	// Output:
	// b f32 [2 3] 24
	// a bf16 [2] 4
	// map[format:pt]
}
