package main

import (
	"context"
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
	recordSource               bool
	outputType, embedType      string
	tensorTypes                []string
	tensorTypeFile             string
	override                   []string
	prune                      []int
	doubleQuant                bool
	target                     targetFlags
	explain, keepSplit         bool
	include, exclude           []string
	compare                    []string
	data                       string
	context, limit             int
}

func newQuantizeCmd(a *app) *cobra.Command {
	var o quantizeOptions
	cmd := &cobra.Command{
		Use:   "quantize SRC -o DST --type TYPE",
		Short: "Quantize a model or an adapter",
		Long: `quantize writes a GGUF file whose tensors have the types that llama-quantize would
choose, with the same bytes as its reference code. SRC is a GGUF file or a
Hugging Face folder, which needs no 16-bit file between; or an adapter, whose
matrices become f32, f16, bf16, q8_0, q4_0 or another plain type, and whose outputs'
error against the original is printed.

  graft quantize model-f16.gguf -o model-q4_k_m.gguf --type Q4_K_M
  graft quantize hf-folder -o model-q8_0.gguf --type Q8_0
  graft quantize model-f16.gguf --type Q4_K_M --dry-run           which type each tensor gets, and why
  graft quantize model-f16.gguf -o m.gguf --type Q4_K_M --tensor-type 'ffn_down=q6_k'
  graft quantize adapter.gguf -o adapter-q8_0.gguf --type q8_0
  graft quantize hf-folder -o hf-nf4 --type nf4 --double-quant
  graft quantize model-f16.gguf -o model.gguf --target-size 4.2GiB --imatrix imatrix.gguf
  graft quantize model-f16.gguf --compare Q8_0,Q6_K,Q4_K_M,4.6bpw --data text.txt

With a target instead of a type each tensor gets the type that loses least for the
bytes: the noise that encoding makes in the tensor's output (weighted by the
importance matrix, if there is one) is measured for each type near the target. How
much noise in one kind of tensor matters beside another is known for models in
general; --data FILE measures it on this one.
--compare quantizes to each type in turn, in a temporary folder, and measures it.

TYPE is one of
  ` + wrapNames(fileTypeNames(), 78) + `
or, for a folder that transformers loads with bitsandbytes, nf4, fp4 or int8.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.quantize(cmd.Context(), args[0], &o) },
	}
	o.output.add(cmd, "GGUF file to write; for nf4, fp4 and int8 a folder")
	f := cmd.Flags()
	f.StringVar(&o.typ, "type", "", "file type (Q4_K_M, Q8_0, F16, COPY, ...)")
	f.BoolVar(&o.recordSource, "record-source", false, recordSourceHelp)
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
	f.BoolVar(&o.keepSplit, "keep-split", false, "shards like those of the source, with its order of tensors")
	f.BoolVar(&o.explain, "explain", false, "print each tensor's type and the rule that gave it")
	f.StringArrayVar(&o.include, "include-weights", nil, "use the importance of tensors with this in their name only (repeatable)")
	f.StringArrayVar(&o.exclude, "exclude-weights", nil, "do not use the importance of tensors with this in their name (repeatable)")
	o.target.add(cmd)
	f.StringSliceVar(&o.compare, "compare", nil, "types to measure against each other on --data, by comma")
	f.StringVar(&o.data, "data", "", "text or records to measure on: for --compare, and for a target how sensitive the model's kinds of tensors are")
	f.IntVar(&o.context, "context", 512, "for --data: tokens of a window of text")
	f.IntVar(&o.limit, "limit", 0, "for --data: measure on the first N windows or records only (0: all; for a target 8)")
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
	if len(o.compare) > 0 {
		return a.quantizeCompare(ctx, path, o)
	}
	if o.data != "" && !o.target.given() {
		return format.Usagef("--data is for --compare and for targets")
	}
	if (o.typ == "") != o.target.given() {
		return format.Usagef("name the type with --type, Q4_K_M for example, or a size with --target-size or --target-bpw")
	}
	if err := o.output.check(path, o.base, o.imatrix, o.data); err != nil {
		return err
	}
	kind, err := checkpoint.Sniff(path)
	if err != nil {
		return err
	}
	switch t, ok := bnbType(o.typ); {
	case kind.Adapter() && o.target.given():
		return format.Usagef("targets are for models: an adapter's matrices all get one type")
	case kind.Adapter():
		return a.quantizeAdapter(path, o)
	case ok:
		return a.quantizeBnB(ctx, path, t, o)
	}
	opt, err := o.options()
	if err != nil {
		return err
	}
	opt.DryRun = o.output.dryRun
	src, done, err := a.openQuantSource(path, o.recordSource)
	if err != nil {
		return err
	}
	defer done()
	var plan *format.Plan
	var meta *gguf.Meta
	var choices []quant.TargetChoice
	if o.target.given() {
		target, err := o.target.target()
		if err != nil {
			return err
		}
		if o.data != "" {
			if target.Sensitivity, err = a.sensitivities(ctx, path, o, opt.Imatrix); err != nil {
				return err
			}
		}
		plan, meta, choices, err = a.planTarget(ctx, src, opt, target)
		if err != nil {
			return err
		}
		a.printTarget(choices)
	} else if plan, meta, err = quant.NewPlan(src, opt); err != nil {
		return err
	}
	var write gguf.WriteOptions
	if o.keepSplit {
		if write.ShardTensors, err = shardsOf(path, plan); err != nil {
			return err
		}
	}
	l, err := a.writeShards(ctx, "quantized", &o.output, meta, plan, write)
	if err != nil {
		return err
	}
	if o.explain || o.output.dryRun && !(choices != nil && !a.json) {
		return a.printPlan(plan, l.Size())
	}
	if o.output.dryRun {
		a.result("%d tensors, %s bytes in all", len(plan.Outputs), count(l.Size()))
		return nil
	}
	return a.reportQuantized(o.output.path, l.Size(), plan, choices)
}

// openQuantSource opens what is to be quantized; with record the output will say what
// checkpoint that was.
func (a *app) openQuantSource(path string, record bool) (src quant.Source, done func() error, err error) {
	kind, err := checkpoint.Sniff(path)
	if err != nil {
		return src, nil, err
	}
	m, err := arch.Open(path, arch.Options{})
	if err != nil {
		return src, nil, err
	}
	if record {
		if err := a.recordSource(m); err != nil {
			m.Close()
			return src, nil, err
		}
	}
	src = quant.Source{Meta: m.Meta, Views: m.Views}
	if kind != checkpoint.GGUFModel {
		src.StoredAs = convert.FloatTypes(m)
	}
	return src, m.Close, nil
}

// shardsOf gives the number of tensors that each shard of the model at path holds of
// a plan in the model's order.
func shardsOf(path string, plan *format.Plan) ([]int, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, format.Usagef("--keep-split is for GGUF files: %v", err)
	}
	defer f.Close()
	if len(f.Shards) == 1 {
		return nil, nil
	}
	if len(plan.Outputs) != len(f.Tensors) {
		return nil, format.Usagef("--keep-split wants a file of the same tensors: it does not go with --prune-layers and --type NVFP4")
	}
	var counts []int
	for _, s := range f.Shards {
		counts = append(counts, s.Tensors)
	}
	return counts, nil
}

// bitsOf is the mean number of bits that a plan's tensors have for a value.
func bitsOf(plan *format.Plan) (float64, error) {
	var elements int64
	for _, out := range plan.Outputs {
		n, err := format.Elements(out.Shape)
		if err != nil {
			return 0, err
		}
		elements += n
	}
	return 8 * float64(plan.Size()) / float64(max(elements, 1)), nil
}

// reportQuantized says what was written, of bytes in all.
func (a *app) reportQuantized(path string, bytes int64, plan *format.Plan, choices []quant.TargetChoice) error {
	bits, err := bitsOf(plan)
	if err != nil {
		return err
	}
	if a.json {
		doc := map[string]any{"path": path, "bytes": bytes, "tensors": len(plan.Outputs), "bits_per_weight": bits}
		if choices != nil {
			doc["choices"] = choices
		}
		return a.printJSON(doc)
	}
	a.result("%s: %s, %s, %.2f bits per weight", path, plural(len(plan.Outputs), "tensor"), size(bytes), bits)
	return nil
}

// reportWritten says what was written, a single file.
func (a *app) reportWritten(path string, plan *format.Plan) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	return a.reportQuantized(path, st.Size(), plan, nil)
}

// writeShards carries out a plan into a GGUF file or the shards that opt asks for,
// unless it is a dry run, and gives their layout.
func (a *app) writeShards(ctx context.Context, verb string, o *outputFlags, meta *gguf.Meta, plan *format.Plan, opt gguf.WriteOptions) (*gguf.Layout, error) {
	memory, err := parseSize(o.memory)
	if err != nil {
		return nil, err
	}
	opt.Force = o.force
	if o.dryRun {
		return gguf.LayoutOf("out.gguf", meta, plan, opt)
	}
	w, err := gguf.Create(o.path, meta, plan, opt)
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	if err := format.Run(ctx, plan, w, a.runOptions(verb, memory)); err != nil {
		return nil, err
	}
	return w.Layout(), w.Close()
}

func (o *quantizeOptions) options() (quant.Options, error) {
	opt := quant.Options{AllowRequantize: o.requant, PruneLayers: o.prune, KeepOrder: o.keepSplit, Copy: strings.EqualFold(o.typ, "copy")}
	opt.Recipe = quant.Recipe{Pure: o.pure, LeaveOutput: o.leaveOutput}
	var err error
	if !opt.Copy && o.typ != "" {
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
	switch {
	case len(o.include) > 0 && len(o.exclude) > 0:
		return opt, format.Usagef("--include-weights and --exclude-weights exclude each other")
	case len(o.include)+len(o.exclude) > 0 && opt.Imatrix == nil:
		return opt, format.Usagef("--include-weights and --exclude-weights choose from an importance matrix: give one with --imatrix")
	case len(o.include)+len(o.exclude) > 0:
		opt.Imatrix = opt.Imatrix.Filter(o.include, o.exclude)
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
