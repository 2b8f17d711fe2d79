package model_test

import (
	"fmt"
	"path/filepath"

	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/testutil"
	_ "github.com/graft-lora/graft/quant" // codecs
	"github.com/graft-lora/graft/train/model"
)

// One step of plain gradient descent on one matrix of a quantized model.
func Example() {
	src, err := arch.Open(filepath.Join(testutil.Root(), "fixtures", "sprig", "sprig-q4_k_m.gguf"), arch.Options{NoVocab: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer src.Close()
	m, err := model.New(src, model.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()

	const name, rank = "blk.0.attn_output.weight", 4
	out, in, _ := m.MatrixDims(name)
	pair := &model.Pair{A: kernel.NewMat(rank, in), B: kernel.NewMat(out, rank), Scale: 1}
	for i := range pair.A.Data {
		pair.A.Data[i] = float32(i%7) - 3
	}
	adapter := model.NewAdapter()
	adapter.Pairs[name] = pair

	ids := []int32{5, 6, 7, 8, 9}
	batch := &model.Batch{IDs: ids, Targets: model.ShiftLabels(ids, nil)}
	grads := model.NewGrads(adapter)
	before, err := m.LossAndGrad(batch, adapter, grads)
	if err != nil {
		fmt.Println(err)
		return
	}
	kernel.Axpy(pair.B.Data, -1e-5, grads[name].B.Data)
	after, err := m.Loss(batch, model.Scaled{Adapter: adapter, Weight: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(before.Tokens, "tokens, the loss fell:", after.Sum < before.Sum)
	// Output: 4 tokens, the loss fell: true
}
