package main

import (
	"context"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/quant"
)

// bnbTypes are the types that make a folder for transformers instead of a GGUF file.
var bnbTypes = map[string]format.Type{"nf4": format.NF4, "fp4": format.FP4, "int8": format.INT8}

// bnbType says whether a type is one of bitsandbytes.
func bnbType(name string) (format.Type, bool) {
	t, ok := bnbTypes[strings.ToLower(name)]
	return t, ok
}

// quantizeBnB writes a Hugging Face folder as bitsandbytes would have quantized it.
func (a *app) quantizeBnB(ctx context.Context, path string, typ format.Type, o *quantizeOptions) error {
	switch {
	case isGGUF(o.output.path):
		return format.Usagef("%v is a type of bitsandbytes: the output is a folder, not a GGUF file", typ)
	case o.imatrix != "" || o.pure || len(o.tensorTypes) > 0 || o.tensorTypeFile != "" || o.outputType != "" || o.embedType != "" || len(o.override) > 0 || len(o.prune) > 0:
		return format.Usagef("%v is a type of bitsandbytes, which knows no recipes: of the options about types only --double-quant applies", typ)
	}
	memory, err := parseSize(o.output.memory)
	if err != nil {
		return err
	}
	m, err := arch.Open(path, arch.Options{})
	if err != nil {
		return err
	}
	defer m.Close()
	f, err := quant.NewBnBPlan(m, quant.BnBOptions{Type: typ, Nested: o.doubleQuant, AllowRequantize: o.requant})
	if err != nil {
		return err
	}
	for _, note := range f.Notes {
		a.say("note: %s", note)
	}
	if o.output.dryRun {
		return a.printPlan(f.Plan, f.Plan.Size())
	}
	if err := f.Write(ctx, o.output.path, o.output.force, a.runOptions("quantized", memory)); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"path": o.output.path, "bytes": f.Plan.Size(), "tensors": len(f.Plan.Outputs)})
	}
	a.result("%s: %s, %s", o.output.path, plural(len(f.Plan.Outputs), "tensor"), size(f.Plan.Size()))
	return nil
}
