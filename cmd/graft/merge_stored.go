package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/merge"
)

// mergeStored merges into a model that is seen as it stands, such as a diffusion
// checkpoint: every tensor keeps its name, its type and its place. The report is nil in a
// dry run.
func (a *app) mergeStored(ctx context.Context, stored *arch.Model, adapters []merge.Weighted, o *mergeOptions) (*merge.Report, error) {
	kind, err := checkpoint.Sniff(stored.Path)
	if err != nil {
		return nil, err
	}
	toGGUF := kind == checkpoint.GGUFModel
	switch {
	case !strings.EqualFold(o.typ, "same") && o.typ != "":
		return nil, format.Usagef("%s is no language model that graft knows: its tensors keep their types (--type same), not %s", stored.Path, o.typ)
	case toGGUF != isGGUF(o.output.path) && !o.output.dryRun:
		return nil, format.Usagef("%s is no language model that graft knows: the output is of the same form, %s is not", stored.Path, o.output.path)
	case !toGGUF && !o.output.dryRun && !strings.EqualFold(filepath.Ext(o.output.path), ".safetensors"):
		return nil, format.Usagef("%s is merged into one .safetensors file, which %s is not", stored.Path, o.output.path)
	case o.data.path != "":
		return nil, format.Usagef("--data is for language models, which %s is not", stored.Path)
	}
	base, err := stored.Flat()
	if err != nil {
		return nil, err
	}
	for _, w := range adapters {
		if err := a.passOpen(&o.gate, base, w.Adapter); err != nil {
			return nil, err
		}
	}
	base, deltas, err := merge.Join(base, adapters)
	if err != nil {
		return nil, err
	}
	plan, report, err := a.planSame(ctx, base, deltas, nil, o)
	if err != nil {
		return nil, err
	}
	for i, v := range base.Views { // convolutions get their shapes back
		plan.Outputs[i].Shape = v.From[0].Shape
	}
	if toGGUF || o.output.dryRun {
		err = a.writeGGUF(ctx, "merged", &o.output, base.FileMeta(), plan)
	} else {
		err = a.writeSafetensors(ctx, "merged", &o.output, base.Metadata, plan)
	}
	if err != nil || o.output.dryRun {
		return nil, err
	}
	report.Finish()
	return report, nil
}

// flatIfStored is a model that is seen as it stands with its convolutions as matrices, as adapters have them; another model
// as it is.
func flatIfStored(m *arch.Model) (*arch.Model, error) {
	if !m.Stored() {
		return m, nil
	}
	return m.Flat()
}

// writeSafetensors carries out a plan into one safetensors file.
func (a *app) writeSafetensors(ctx context.Context, verb string, o *outputFlags, metadata map[string]string, plan *format.Plan) error {
	memory, err := parseSize(o.memory)
	if err != nil {
		return err
	}
	w, err := safetensors.Create(o.path, plan, metadata, safetensors.WriteOptions{Force: o.force})
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := format.Run(ctx, plan, w, a.runOptions(verb, memory)); err != nil {
		return err
	}
	return w.Close()
}
