package main

import (
	"context"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/quant"
)

// writeBnB writes base with deltas, which sum is, as a folder of the types of bitsandbytes that base has.
func (a *app) writeBnB(ctx context.Context, base, sum *arch.Model, deltas merge.Deltas, o *mergeOptions) error {
	if o.chosen {
		o.method = "keep" // fit's rows are those of GGUF's types
	}
	if o.method != "keep" && o.method != "requantize" {
		return format.Unsupported("method %s into the types of bitsandbytes: there are keep and requantize; or name a --type, f16 for one", o.method)
	}
	memory, err := parseSize(o.output.memory)
	if err != nil {
		return err
	}
	f, err := quant.NewBnBMove(base, sum, func(tensor string) bool { return deltas[tensor] != nil }, quant.BnBMove{Anew: o.method == "requantize", Seed: o.seed})
	if err != nil {
		return err
	}
	return a.writePlanned(ctx, "merged", &o.output, f, memory)
}
