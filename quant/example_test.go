package quant_test

import (
	"fmt"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/quant"
)

func ExampleRecipe_Types() {
	m := quant.Model{Arch: "llama", Layers: 8, Heads: 8, KVHeads: 2, Tensors: []quant.TensorDesc{
		{Name: "token_embd.weight", Type: format.F16, Shape: []int64{32000, 2048}},
		{Name: "blk.0.attn_norm.weight", Type: format.F32, Shape: []int64{2048}},
		{Name: "blk.0.attn_q.weight", Type: format.F16, Shape: []int64{2048, 2048}},
		{Name: "blk.0.ffn_down.weight", Type: format.F16, Shape: []int64{2048, 5632}},
	}}
	choices, err := quant.Recipe{FileType: quant.Q4_K_M}.Types(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range choices {
		fmt.Printf("%s: %v, %s\n", c.Tensor, c.Type, c.Why)
	}
	// Output:
	// token_embd.weight: q6_K, token embedding that is the output head too
	// blk.0.attn_norm.weight: f32, vectors are kept
	// blk.0.attn_q.weight: q4_K, default of Q4_K_M
	// blk.0.ffn_down.weight: q6_K, ffn_down, first and last eighth and every third layer
}
