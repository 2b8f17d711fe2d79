package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/convert"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/quant"
)

type blendOptions struct {
	output outputFlags
	typ    string
	seed   uint64
	gate   gateFlags
}

func newBlendCmd(a *app) *cobra.Command {
	var o blendOptions
	names, help := merge.BlendMethods()
	var b strings.Builder
	for i := range names {
		fmt.Fprintf(&b, "  %-16s %s\n", names[i], help[i])
	}
	cmd := &cobra.Command{
		Use:   "blend RECIPE.yaml -o DST",
		Short: "Make one model of several, by a mergekit recipe",
		Long: `blend reads a mergekit recipe as it is and writes the model it describes. The models
may be Hugging Face folders and GGUF files in any mix; a model written
path+adapter has the adapter in it, which must be of that base. Paths are those of the current folder or else
of the recipe's. DST is a GGUF file if it ends in .gguf, else a folder.

  graft blend recipe.yaml -o blended
  graft blend recipe.yaml -o blended.gguf
  graft blend recipe.yaml -o blended-q4_k_m.gguf --type Q4_K_M
  graft blend recipe.yaml --dry-run

A recipe, for example:

  merge_method: ties
  base_model: base.gguf
  models:
    - model: tuned-a
      parameters: {weight: 0.6, density: 0.5}
    - model: tuned-b.gguf
      parameters: {weight: 0.4, density: 0.5}
  dtype: bfloat16

Methods:
` + b.String() + `
Without a dtype a blend has the template's 16-bit type, and passthrough copies each
tensor in its own type, quantized ones too. No tensor is in memory as a whole, however large. Methods that draw give the
same model for the same --seed on every machine; docs/blend.md has what each
method computes and how it was compared with mergekit.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.blend(cmd.Context(), args[0], &o) },
	}
	o.output.add(cmd, "GGUF file or folder to write")
	o.gate.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.typ, "type", "auto", "type of the tensors: auto (the recipe's), or for GGUF same or any file type (F16, Q4_K_M, ...)")
	f.Uint64Var(&o.seed, "seed", 0, "of the methods that draw")
	return cmd
}

func (a *app) blend(ctx context.Context, path string, o *blendOptions) error {
	r, err := merge.ReadRecipe(path)
	if err != nil {
		return err
	}
	inputs := []string{path}
	models := map[string]*arch.Model{}
	defer func() {
		for _, m := range models {
			m.Close()
		}
	}()
	for _, name := range r.Models() {
		m, files, err := a.openBlended(name, filepath.Dir(path), &o.gate)
		if err != nil {
			return err
		}
		models[name] = m
		inputs = append(inputs, files...)
	}
	if err := o.output.check(inputs...); err != nil {
		return err
	}
	b, err := merge.Blend(r, models, merge.BlendOptions{Seed: o.seed})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, note := range b.Notes {
		a.say("note: %s", note)
	}
	if err := a.writeBlended(ctx, r, b, o); err != nil || o.output.dryRun || !a.json {
		return err
	}
	return a.printJSON(map[string]any{"path": o.output.path, "method": r.Method, "models": r.Models()})
}

// openBlended opens a model of a recipe, with the adapter that path+adapter puts
// into it.
func (a *app) openBlended(name, dir string, gate *gateFlags) (m *arch.Model, files []string, err error) {
	find := func(path string) string {
		if _, err := os.Stat(path); err != nil && !filepath.IsAbs(path) {
			return filepath.Join(dir, path)
		}
		return path
	}
	file := find(name)
	base, lora, plus := strings.Cut(name, "+")
	if _, err := os.Stat(file); err == nil || !plus {
		m, err = arch.Open(file, arch.Options{})
		return m, []string{file}, err
	}
	file, lora = find(base), find(lora)
	if m, err = arch.Open(file, arch.Options{}); err != nil {
		return nil, nil, err
	}
	sum, err := a.withAdapter(m, lora, gate)
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	return sum, []string{file, lora}, nil
}

// withAdapter is a model with an adapter in it, which closes the model's files.
func (a *app) withAdapter(m *arch.Model, path string, gate *gateFlags) (*arch.Model, error) {
	ad, err := openAdapter(path)
	if err != nil {
		return nil, err
	}
	if err := a.passOpen(gate, m, ad); err != nil {
		return nil, err
	}
	joined, deltas, err := merge.Join(m, []merge.Weighted{{Adapter: ad, Factor: 1}})
	if err != nil {
		return nil, err
	}
	sum, err := merge.Apply(joined, deltas)
	if err != nil {
		return nil, err
	}
	return arch.NewModel(sum.Path, sum.Meta, sum.Views, m.Close), nil
}

// writeBlended writes the model in the form that is asked for.
func (a *app) writeBlended(ctx context.Context, r *merge.Recipe, b *merge.Blended, o *blendOptions) error {
	typ := strings.ToLower(o.typ)
	if typ == "auto" && r.HasOut {
		typ = r.OutDType.String()
	}
	if !isGGUF(o.output.path) && o.output.path != "" {
		if typ == "auto" {
			typ = "same"
		}
		f, err := convert.ToHF(b.Model, convert.HFOptions{Type: typ})
		if err != nil {
			return err
		}
		if err := b.Describe(f); err != nil {
			return err
		}
		return a.writeBlendedFolder(ctx, f, b, o)
	}
	if typ == "same" || typ == "auto" && r.Method == "passthrough" {
		plan := &format.Plan{}
		for _, v := range b.Views {
			out, err := format.NewOutput(v.Name, v.Type, v.Shape, v.Rows, nil)
			if err != nil {
				return err
			}
			out.Why = v.Why
			plan.Outputs = append(plan.Outputs, out)
		}
		raiseCost(plan, b)
		return a.finishBlend(ctx, o, b.FileMeta(), plan)
	}
	if typ == "auto" || typ == "f32" || typ == "f16" || typ == "bf16" {
		meta, plan, err := convert.ToGGUF(b.Model, typ)
		if err != nil {
			return err
		}
		raiseCost(plan, b)
		return a.finishBlend(ctx, o, meta, plan)
	}
	opt := quant.Options{AllowRequantize: true}
	var err error
	if opt.Recipe.FileType, err = quant.ParseFileType(o.typ); err != nil {
		return err
	}
	plan, meta, err := quant.NewPlan(quant.Source{Meta: b.FileMeta(), Views: b.Views, StoredAs: convert.FloatTypes(b.Model)}, opt)
	if err != nil {
		return err
	}
	raiseCost(plan, b)
	return a.finishBlend(ctx, o, meta, plan)
}

func (a *app) finishBlend(ctx context.Context, o *blendOptions, meta *gguf.Meta, plan *format.Plan) error {
	if err := a.writeGGUF(ctx, "blended", &o.output, meta, plan); err != nil || o.output.dryRun {
		return err
	}
	a.say("%s: %s, %s", o.output.path, plural(len(plan.Outputs), "tensor"), size(plan.Size()))
	return nil
}

// raiseCost tells the runner that a row of the result takes a row of each model.
func raiseCost(plan *format.Plan, b *merge.Blended) {
	for _, o := range plan.Outputs {
		o.Cost *= int64(b.Inputs + 2)
	}
}

func (a *app) writeBlendedFolder(ctx context.Context, f *convert.HFFolder, b *merge.Blended, o *blendOptions) error {
	memory, err := parseSize(o.output.memory)
	if err != nil {
		return err
	}
	for _, note := range f.Notes {
		a.say("note: %s", note)
	}
	if o.output.dryRun {
		return a.printPlan(f.Plan, f.Plan.Size())
	}
	raiseCost(f.Plan, b)
	if err := f.Write(ctx, o.output.path, o.output.force, a.runOptions("blended", memory)); err != nil {
		return err
	}
	a.say("%s: %s, %s", o.output.path, plural(len(f.Plan.Outputs), "tensor"), size(f.Plan.Size()))
	return nil
}
