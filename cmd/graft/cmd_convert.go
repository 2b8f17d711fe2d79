package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/convert"
)

type convertOptions struct {
	output       outputFlags
	base         string
	typ          string
	name         string
	form         string
	recordSource bool
}

func newConvertCmd(a *app) *cobra.Command {
	var o convertOptions
	cmd := &cobra.Command{
		Use:   "convert SRC -o DST",
		Short: "Convert between Hugging Face folders and GGUF, models and adapters",
		Long: `convert turns a Hugging Face folder into a GGUF file or the reverse, by what SRC is and
how DST ends: a DST ending in .gguf is a GGUF file, another is a folder.
Adapters go from PEFT, MLX and kohya to GGUF and PEFT, with their scale exact; they need
the model they belong to.

  graft convert hf-folder -o model-f16.gguf
  graft convert hf-folder -o model.gguf --type q8_0
  graft convert model-q4_k_m.gguf -o hf-folder --type bf16
  graft convert adapter-folder -o adapter.gguf --base model.gguf
  graft convert adapter.gguf -o adapter-folder --base model.gguf

For a model --type is f32, f16, bf16, q8_0 (GGUF only) or auto: the source's own
16-bit type, else f16; graft quantize has all other types. For an adapter it is
f32, f16 or bf16, its own by default.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.convert(cmd.Context(), args[0], &o) },
	}
	o.output.add(cmd, "FILE.gguf or folder to write")
	f := cmd.Flags()
	f.StringVar(&o.typ, "type", "auto", "type of the tensors")
	f.StringVar(&o.base, "base", "", "for adapters: the model they belong to")
	addAdapterForm(cmd, &o.form)
	f.StringVar(&o.name, "name", "", "name of the model in the metadata")
	f.BoolVar(&o.recordSource, "record-source", false, recordSourceHelp)
	return cmd
}

func (a *app) convert(ctx context.Context, path string, o *convertOptions) error {
	if err := o.output.check(path, o.base); err != nil {
		return err
	}
	kind, err := checkpoint.Sniff(path)
	if err != nil {
		return err
	}
	if kind.Adapter() {
		return a.convertAdapter(path, o)
	}
	m, err := arch.Open(path, arch.Options{Name: o.name})
	if err != nil {
		return err
	}
	defer m.Close()
	if isGGUF(o.output.path) {
		if o.recordSource {
			if err := a.recordSource(m); err != nil {
				return err
			}
		}
		plan, err := a.convertToGGUF(ctx, "converted", &o.output, m, o.typ)
		if err != nil || o.output.dryRun {
			return err
		}
		return a.reportWritten(o.output.path, plan)
	}
	if err := a.writeFolder(ctx, "converted", &o.output, m, o.typ); err != nil || !a.json || o.output.dryRun {
		return err
	}
	return a.printJSON(map[string]any{"path": o.output.path})
}

// convertToGGUF writes m as the reference converter would.
func (a *app) convertToGGUF(ctx context.Context, verb string, out *outputFlags, m *arch.Model, typ string) (*format.Plan, error) {
	for _, note := range m.Notes {
		a.say("note: %s", note)
	}
	meta, plan, err := convert.ToGGUF(m, typ)
	if err != nil {
		return nil, err
	}
	return plan, a.writeGGUF(ctx, verb, out, meta, plan)
}

// writeFolder writes m as a Hugging Face folder.
func (a *app) writeFolder(ctx context.Context, verb string, out *outputFlags, m *arch.Model, typ string) error {
	if strings.EqualFold(typ, "auto") {
		typ = "same"
	}
	if strings.EqualFold(filepath.Ext(out.path), ".safetensors") {
		return format.Usagef("a Hugging Face model is a folder: give it a name that does not end in .safetensors, as %s does", out.path)
	}
	memory, err := parseSize(out.memory)
	if err != nil {
		return err
	}
	f, err := convert.ToHF(m, convert.HFOptions{Type: strings.ToLower(typ)})
	if err != nil {
		return err
	}
	return a.writePlanned(ctx, verb, out, f, memory)
}

// writePlanned carries out the plan of a folder.
func (a *app) writePlanned(ctx context.Context, verb string, out *outputFlags, f *convert.HFFolder, memory int64) error {
	for _, note := range f.Notes {
		a.say("note: %s", note)
	}
	if out.dryRun {
		return a.printPlan(f.Plan, f.Plan.Size())
	}
	if err := f.Write(ctx, out.path, out.force, a.runOptions(verb, memory)); err != nil {
		return err
	}
	a.say("%s: %s, %s", out.path, plural(len(f.Plan.Outputs), "tensor"), size(f.Plan.Size()))
	return nil
}

func (a *app) convertAdapter(path string, o *convertOptions) error {
	ad, err := openAdapter(path)
	if err != nil {
		return err
	}
	out := adapterOutput{path: o.output.path, base: o.base, typ: o.typ, form: o.form, force: o.output.force}
	if strings.EqualFold(o.typ, "auto") {
		out.typ = adapterType(ad).String()
	}
	if _, _, err := out.as(); err != nil {
		return err
	}
	done, err := out.resolve(ad)
	if err != nil {
		return err
	}
	defer done()
	if err := out.write(ad, adapter.WriteOptions{}); err != nil {
		return err
	}
	return a.reportAdapter(out.path)
}

// adapterType is the adapter's own type, if an adapter can be written in it.
func adapterType(ad *adapter.Adapter) format.Type {
	switch ad.Type {
	case format.F16, format.BF16:
		return ad.Type
	}
	return format.F32
}
