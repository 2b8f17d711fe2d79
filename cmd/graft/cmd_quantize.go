package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/convert"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/quant"
)

type quantizeOptions struct {
	output                     outputFlags
	typ                        string
	base                       string
	imatrix                    string
	pure, leaveOutput, requant bool
	outputType, embedType      string
	tensorTypes                []string
	tensorTypeFile             string
	override                   []string
	prune                      []int
	doubleQuant                bool
}

func newQuantizeCmd(a *app) *cobra.Command {
	var o quantizeOptions
	cmd := &cobra.Command{
		Use:   "quantize SRC -o DST --type TYPE",
		Short: "Quantize a model or an adapter",
		Long: `quantize writes a GGUF file whose tensors have the types that llama-quantize would
choose, with the same bytes as its reference code. SRC is a GGUF file or a
Hugging Face folder, which needs no 16-bit file between; or an adapter, whose
matrices become f32, f16, bf16, q8_0 or another plain type.

  graft quantize model-f16.gguf -o model-q4_k_m.gguf --type Q4_K_M
  graft quantize hf-folder -o model-q8_0.gguf --type Q8_0
  graft quantize model-f16.gguf --type Q4_K_M --dry-run           which type each tensor gets, and why
  graft quantize model-f16.gguf -o m.gguf --type Q4_K_M --tensor-type 'ffn_down=q6_k'
  graft quantize adapter.gguf -o adapter-q8_0.gguf --type q8_0
  graft quantize hf-folder -o hf-nf4 --type nf4 --double-quant

TYPE is one of
  ` + wrapNames(fileTypeNames(), 78) + `
or, for a folder that transformers loads with bitsandbytes, nf4, fp4 or int8.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.quantize(cmd.Context(), args[0], &o) },
	}
	o.output.add(cmd, "GGUF file to write; for nf4, fp4 and int8 a folder")
	f := cmd.Flags()
	f.StringVar(&o.typ, "type", "", "file type (Q4_K_M, Q8_0, F16, COPY, ...)")
	f.StringVar(&o.base, "base", "", "for adapters that change their format: the model they belong to")
	f.StringVar(&o.imatrix, "imatrix", "", "importance matrix, GGUF or .dat")
	f.BoolVar(&o.pure, "pure", false, "the type's default for every tensor, no recipe")
	f.BoolVar(&o.leaveOutput, "leave-output-tensor", false, "copy output.weight as it is")
	f.BoolVar(&o.requant, "allow-requantize", false, "quantize tensors that are quantized already (loses quality)")
	f.StringVar(&o.outputType, "output-tensor-type", "", "type of output.weight")
	f.StringVar(&o.embedType, "token-embedding-type", "", "type of the token embeddings")
	f.StringArrayVar(&o.tensorTypes, "tensor-type", nil, "PATTERN=TYPE for tensors whose name matches (repeatable, the first wins)")
	f.StringVar(&o.tensorTypeFile, "tensor-type-file", "", "file of PATTERN=TYPE, separated by white space")
	f.StringArrayVar(&o.override, "override-kv", nil, "KEY=int|float|bool|str:VALUE, set in the metadata (repeatable)")
	f.BoolVar(&o.doubleQuant, "double-quant", false, "for nf4 and fp4: quantize the scales too")
	f.IntSliceVar(&o.prune, "prune-layers", nil, "layers to leave out, by comma")
	return cmd
}

func fileTypeNames() []string {
	var names []string
	for _, t := range quant.FileTypes() {
		names = append(names, t.Name)
	}
	return append(names, "COPY")
}

// wrapNames joins names with spaces into lines of at most width, indented by two.
func wrapNames(names []string, width int) string {
	var b strings.Builder
	col := 2
	for i, n := range names {
		if i > 0 && col+1+len(n) > width {
			b.WriteString("\n  ")
			col = 2
		} else if i > 0 {
			b.WriteByte(' ')
			col++
		}
		b.WriteString(n)
		col += len(n)
	}
	return b.String()
}

func (a *app) quantize(ctx context.Context, path string, o *quantizeOptions) error {
	if o.typ == "" {
		return format.Usagef("name the type with --type, Q4_K_M for example")
	}
	if err := o.output.check(path); err != nil {
		return err
	}
	kind, err := checkpoint.Sniff(path)
	if err != nil {
		return err
	}
	if kind.Adapter() {
		return a.quantizeAdapter(path, o)
	}
	if t, ok := bnbType(o.typ); ok {
		return a.quantizeBnB(ctx, path, t, o)
	}
	opt, err := o.options()
	if err != nil {
		return err
	}
	opt.DryRun = o.output.dryRun
	m, err := arch.Open(path, arch.Options{})
	if err != nil {
		return err
	}
	defer m.Close()
	src := quant.Source{Meta: m.Meta, Views: m.Views}
	if kind != checkpoint.GGUFModel {
		src.StoredAs = convert.FloatTypes(m)
	}
	plan, meta, err := quant.NewPlan(src, opt)
	if err != nil {
		return err
	}
	if err := a.writeGGUF(ctx, "quantized", &o.output, meta, plan); err != nil || o.output.dryRun {
		return err
	}
	return a.reportWritten(o.output.path, plan)
}

// reportWritten says what was written, with the sizes before and after.
func (a *app) reportWritten(path string, plan *format.Plan) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		st, err = os.Stat(gguf.ShardPath(strings.TrimSuffix(path, ".gguf"), 1, 1))
	}
	if err != nil {
		return err
	}
	var elements int64
	for _, out := range plan.Outputs {
		n, err := format.Elements(out.Shape)
		if err != nil {
			return err
		}
		elements += n
	}
	bits := 8 * float64(plan.Size()) / float64(max(elements, 1))
	if a.json {
		return a.printJSON(map[string]any{"path": path, "bytes": st.Size(), "tensors": len(plan.Outputs), "bits_per_weight": bits})
	}
	a.result("%s: %s, %s, %.2f bits per weight", path, plural(len(plan.Outputs), "tensor"), size(st.Size()), bits)
	return nil
}

func (o *quantizeOptions) options() (quant.Options, error) {
	opt := quant.Options{AllowRequantize: o.requant, PruneLayers: o.prune, Copy: strings.EqualFold(o.typ, "copy")}
	opt.Recipe = quant.Recipe{Pure: o.pure, LeaveOutput: o.leaveOutput}
	var err error
	if !opt.Copy {
		if opt.Recipe.FileType, err = quant.ParseFileType(o.typ); err != nil {
			return opt, err
		}
	}
	if opt.Recipe.OutputType, err = optionalType(o.outputType); err != nil {
		return opt, err
	}
	if opt.Recipe.TokenEmbeddingType, err = optionalType(o.embedType); err != nil {
		return opt, err
	}
	patterns := o.tensorTypes
	if o.tensorTypeFile != "" {
		b, err := os.ReadFile(o.tensorTypeFile)
		if err != nil {
			return opt, err
		}
		patterns = append(patterns, strings.Fields(string(b))...)
	}
	for _, s := range patterns {
		t, err := quant.ParseTensorType(s)
		if err != nil {
			return opt, err
		}
		opt.Recipe.TensorTypes = append(opt.Recipe.TensorTypes, t)
	}
	for _, s := range o.override {
		kv, err := parseOverride(s)
		if err != nil {
			return opt, err
		}
		opt.Override = append(opt.Override, kv)
	}
	if o.imatrix != "" {
		if opt.Imatrix, err = quant.ReadImatrix(o.imatrix); err != nil {
			return opt, err
		}
	}
	return opt, nil
}

func optionalType(s string) (*format.Type, error) {
	if s == "" {
		return nil, nil
	}
	t, err := format.ParseType(s)
	if err != nil {
		return nil, err
	}
	if !t.GGML() {
		return nil, format.Usagef("%v cannot stand in a GGUF file", t)
	}
	return &t, nil
}

// parseOverride reads KEY=TYPE:VALUE with llama.cpp's four types. Unlike
// llama-quantize an int keeps its sign: a negative one is stored as i32.
func parseOverride(s string) (gguf.KV, error) {
	key, rest, ok := strings.Cut(s, "=")
	kind, text, ok2 := strings.Cut(rest, ":")
	bad := format.Usagef("--override-kv %q: write KEY=int|float|bool|str:VALUE", s)
	if !ok || !ok2 || key == "" {
		return gguf.KV{}, bad
	}
	switch kind {
	case "int":
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil:
			return gguf.KV{}, bad
		case n >= 0 && n == int64(uint32(n)):
			return gguf.KV{Key: key, Value: uint32(n)}, nil
		case n == int64(int32(n)):
			return gguf.KV{Key: key, Value: int32(n)}, nil
		}
		return gguf.KV{Key: key, Value: n}, nil
	case "float":
		f, err := strconv.ParseFloat(text, 32)
		if err != nil {
			return gguf.KV{}, bad
		}
		return gguf.KV{Key: key, Value: float32(f)}, nil
	case "bool":
		b, err := strconv.ParseBool(text)
		if err != nil {
			return gguf.KV{}, bad
		}
		return gguf.KV{Key: key, Value: b}, nil
	case "str":
		return gguf.KV{Key: key, Value: text}, nil
	}
	return gguf.KV{}, bad
}
