package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/convert"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/quant"
)

type mergeOptions struct {
	output   outputFlags
	typ      string
	method   string
	imatrix  string
	seed     uint64
	tensors  bool
	noCheck  bool
	minGain  float64
	data     dataFlags
	heldOut  string
	minRecov float64

	gate                gateFlags
	momentMemory        string
	known               string // where moments of inputs came from
	chosen              bool   // the method, not by the user
	maxError, maxGrowth float64
	recovery            float64
	growths             []float64 // parts of maxGrowth that are still to be tried

	trainedFor bool // the method is what the adapter was trained for
	asked      bool // the methods are compared: another than the adapter's is what was asked for
	report     reportFlags
}

func newMergeCmd(a *app) *cobra.Command {
	var o mergeOptions
	cmd := &cobra.Command{
		Use:   "merge BASE ADAPTER[=SCALE]... -o DST",
		Short: "Put adapters into a model, and measure what survived",
		Long: `merge writes BASE with the adapters in it. By default every tensor keeps its type: a
Q4_K_M file stays a Q4_K_M file, and tensors that no adapter changes are copied
byte for byte. Adapters are PEFT folders, GGUF files, MLX folders or kohya
files; DST is a GGUF file, or a folder for a Hugging Face model.

  graft merge base-q4_k_m.gguf lesson -o merged.gguf
  graft merge base.gguf a.gguf=0.7 b=0.3 -o merged.gguf
  graft merge base.gguf lesson -o merged.gguf --data train.jsonl --held-out held-out.jsonl
  graft merge base.gguf lesson -o merged.gguf --data train.jsonl --report merged.html
  graft merge base.gguf lesson -o merged-f16.gguf --type F16
  graft merge base-f16.gguf lesson -o merged.gguf --type IQ2_M --imatrix imatrix.gguf
  graft merge hf-folder lesson -o merged-folder

Methods for --type same:
` + methodHelp() + `

Folders of bitsandbytes (NF4, FP4, INT8) take keep, which is the default there, and requantize.
The default is fit: text or records like those that the adapter is for (--data) show
which directions of the inputs matter. Without --data it uses what graft train left beside
the adapter (moments.safetensors); where there is neither, it does what keep does. For an
adapter of train --merge-aware the default is aware, the merge that it was trained for.

What survived is measured: gain (1: the change is there at full strength, 0: it is
lost), the correlation of wanted and realised change, the codes that moved; and
with --held-out (or else --data) the recovery on text, (base - merged) / (base -
adapter) of the loss. A merge that lost the adapter still leaves its file, and exits with
status 5.` + exitStatus,
		Args: args(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.checkUse(cmd); err != nil {
				return err
			}
			return a.merge(cmd.Context(), args[0], args[1:], &o)
		},
	}
	o.output.add(cmd, "GGUF file or folder to write")
	o.data.add(cmd, "text or JSONL that shows the method real inputs, and that the recovery is measured on: 16,384 tokens spread over it, or --limit")
	o.gate.add(cmd)
	o.report.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.typ, "type", "same", "same, or a file type (F16, Q4_K_M, ...)")
	f.StringVar(&o.heldOut, "held-out", "", "other text or JSONL to measure the recovery on")
	f.StringVar(&o.method, "method", "", "how codes are found when types stay the same: "+strings.Join(merge.MethodNames(), ", ")+" (default: fit; aware for an adapter trained so)")
	f.StringVar(&o.imatrix, "imatrix", "", "importance matrix, GGUF or .dat: for another --type, and for requantize; types below 3 bits need one")
	f.StringVar(&o.momentMemory, "moment-memory", "128MiB", "memory for the moments of inputs; with less the data is run more often")
	f.Float64Var(&o.maxError, "max-error", 0.5, "promote: error of outputs on inputs to reach")
	f.Float64Var(&o.recovery, "recovery", 0, "promote: recovery on --held-out (or --data) to reach, in place of --max-error")
	f.Float64Var(&o.maxGrowth, "max-growth", 0.1, "promote: part by which the tensors may grow")
	f.Uint64Var(&o.seed, "seed", 0, "of stochastic rounding")
	f.BoolVar(&o.tensors, "tensors", false, "report every tensor")
	f.BoolVar(&o.noCheck, "no-check", false, "do not fail when the adapter was lost")
	f.Float64Var(&o.minGain, "min-gain", 0.5, "gain below which the adapter counts as lost")
	f.Float64Var(&o.minRecov, "min-recovery", 0.5, "recovery on --data below which the adapter counts as lost")
	return cmd
}

// checkUse refuses flags that have no use as the others stand.
func (o *mergeOptions) checkUse(cmd *cobra.Command) error {
	text := o.data.path != "" || o.heldOut != ""
	return checkUse(cmd,
		use{[]string{"method"}, strings.EqualFold(o.typ, "same"), "--type same: into another type there is one way, quantizing the sum"},
		use{[]string{"imatrix"}, !strings.EqualFold(o.typ, "same") || o.method == "requantize", "another --type, and --method requantize"},
		use{[]string{"max-error", "max-growth"}, o.method == "promote", "--method promote"},
		use{[]string{"moment-memory"}, o.data.path != "", "--data"},
		use{append([]string{"min-recovery"}, dataFlagNames...), text, "--data or --held-out"},
	)
}

// readImatrix reads the importance matrix, nil if none is given.
func (o *mergeOptions) readImatrix() (*quant.Imatrix, error) {
	if o.imatrix == "" {
		return nil, nil
	}
	return quant.ReadImatrix(o.imatrix)
}

func methodHelp() string {
	var b strings.Builder
	for _, n := range merge.MethodNames() {
		m, err := merge.MethodByName(n)
		if err != nil {
			panic(err) // the name is from the list
		}
		fmt.Fprintf(&b, "  %-11s %s\n", m.Name, m.Help)
	}
	return strings.TrimRight(b.String(), "\n")
}

// openAdapter opens an adapter of any format. What is something else is named.
func openAdapter(path string) (*adapter.Adapter, error) {
	kind, err := checkpoint.Sniff(path)
	if errors.Is(err, fs.ErrNotExist) {
		if i := strings.LastIndexByte(path, '='); i > 0 {
			if _, serr := os.Stat(path[:i]); serr == nil {
				return nil, format.Usagef("%s: what follows the = is no number: write %s=0.5, or the path alone", path, path[:i])
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if !kind.Adapter() {
		return nil, format.Usagef("%s is a %v, not an adapter", path, kind)
	}
	return adapter.Open(path)
}

// openAdapters opens adapter arguments, PATH or PATH=FACTOR.
func openAdapters(args []string) ([]merge.Weighted, error) {
	var ws []merge.Weighted
	for _, arg := range args {
		w := parseWeighted(arg)
		ad, err := openAdapter(w.path)
		if err != nil {
			return nil, err
		}
		ws = append(ws, merge.Weighted{Adapter: ad, Factor: w.factor})
	}
	return ws, nil
}

func (a *app) merge(ctx context.Context, basePath string, adapterArgs []string, o *mergeOptions) error {
	inputs := []string{basePath}
	for _, arg := range adapterArgs {
		inputs = append(inputs, parseWeighted(arg).path)
	}
	if err := o.output.check(append(inputs, o.data.path, o.heldOut, o.imatrix, o.gate.policy)...); err != nil {
		return err
	}
	if o.report.path != "" && filepath.Clean(o.report.path) == filepath.Clean(o.output.path) {
		return format.Usagef("--report and --output are both %s", o.report.path)
	}
	o.report.force = o.output.force
	if err := o.report.check(); err != nil {
		return err
	}
	if err := checkPromotion(o.maxError, o.maxGrowth); err != nil {
		return err
	}
	if o.recovery > 0 {
		if err := o.checkRecovery(); err != nil {
			return err
		}
		o.growths = promotionSteps
	}
	report, err := a.mergeFiles(ctx, basePath, adapterArgs, o)
	if err != nil || o.output.dryRun {
		return err
	}
	doc := mergeDoc{Output: o.output.path, Type: o.typ, Method: o.method, Moments: o.known, Report: report}
	if !strings.EqualFold(o.typ, "same") {
		doc.Method, doc.Moments = "", ""
	}
	if report.Total.DeltaRMS == 0 {
		a.say("the change is zero: %s is %s", o.output.path, basePath)
	}
	if o.recovery == 0 {
		a.printSurvival(report, o.tensors)
		a.sayPromoted(report, o)
	}
	measured := o.data
	measured.most = mergeTokens
	if o.heldOut != "" {
		measured.path, measured.most = o.heldOut, 0
	}
	if measured.path != "" {
		if doc.Recovery, err = a.recovery(ctx, basePath, adapterArgs, o.output.path, &measured); err != nil {
			return err
		}
		if o.recovery > 0 {
			if doc.Report, err = a.promoteOn(ctx, basePath, adapterArgs, o, &measured, report, &doc.Recovery); err != nil {
				return err
			}
			a.printSurvival(doc.Report, o.tensors)
		}
		a.printRecovery(doc.Recovery)
	}
	if o.report.path != "" {
		if err := doc.page(basePath, adapterArgs).WriteFile(o.report.path, o.report.force); err != nil {
			return err
		}
	}
	if a.json {
		if err := a.printJSON(doc); err != nil {
			return err
		}
	}
	return o.verdict(&doc)
}

// mergeFiles opens base and adapters and writes the merged model. The report is nil
// in a dry run.
func (a *app) mergeFiles(ctx context.Context, basePath string, adapterArgs []string, o *mergeOptions) (*merge.Report, error) {
	adapters, err := openAdapters(adapterArgs)
	if err != nil {
		return nil, err
	}
	if err := a.chooseMethod(adapters, o); err != nil {
		return nil, err
	}
	base, err := arch.Open(basePath, arch.Options{})
	if err != nil {
		return nil, err
	}
	defer base.Close()
	if base.Stored() {
		return a.mergeStored(ctx, base, adapters, o)
	}
	for _, w := range adapters {
		if err := a.passOpen(&o.gate, base, w.Adapter); err != nil {
			return nil, err
		}
	}
	base.Meta.Delete(adapter.SourceKey) // the merged file is no quantization of that any more
	joined, deltas, err := merge.Join(base, adapters)
	if err != nil {
		return nil, err
	}
	return a.writeMerged(ctx, joined, deltas, adapterArgs, o)
}

// mergeDoc is the JSON of a merge.
type mergeDoc struct {
	Output   string         `json:"output"`
	Type     string         `json:"type"`
	Method   string         `json:"method,omitempty"`
	Moments  string         `json:"moments,omitempty"` // where those of inputs came from: data, adapter
	Report   *merge.Report  `json:"survival"`
	Recovery *recoveryTable `json:"recovery,omitempty"`
}

// writeMerged writes the output in whatever form is asked for.
func (a *app) writeMerged(ctx context.Context, base *arch.Model, deltas merge.Deltas, adapterArgs []string, o *mergeOptions) (*merge.Report, error) {
	same := strings.EqualFold(o.typ, "same") || o.typ == ""
	kind, err := checkpoint.Sniff(base.Path)
	if err != nil {
		return nil, err
	}
	if same && isGGUF(o.output.path) && kind == checkpoint.GGUFModel {
		done, moments, err := a.moments(base, deltas, adapterArgs, o)
		if err != nil {
			return nil, err
		}
		defer done()
		plan, report, err := a.planSame(ctx, base, deltas, moments, o)
		if err != nil {
			return nil, err
		}
		if err := a.writeGGUF(ctx, "merged", &o.output, mergedMeta(base, plan), plan); err != nil {
			return nil, err
		}
		if !o.output.dryRun {
			report.Finish()
		}
		return report, nil
	}
	sum, err := merge.Apply(base, deltas)
	if err != nil {
		return nil, err
	}
	switch {
	case same && !isGGUF(o.output.path) && quant.IsBnB(base):
		err = a.writeBnB(ctx, base, sum, deltas, o)
	case !isGGUF(o.output.path):
		typ := o.typ
		if same {
			typ = "same"
		}
		err = a.writeFolder(ctx, "merged", &o.output, sum, typ)
	case same: // a folder into one file: the types a conversion gives
		_, err = a.convertToGGUF(ctx, "merged", &o.output, sum, "auto")
	default:
		opt := quant.Options{AllowRequantize: true}
		if opt.Recipe.FileType, err = quant.ParseFileType(o.typ); err != nil {
			return nil, err
		}
		if opt.Imatrix, err = o.readImatrix(); err != nil {
			return nil, err
		}
		src := quant.Source{Meta: sum.Meta, Views: sum.Views}
		if kind != checkpoint.GGUFModel {
			src.StoredAs = convert.FloatTypes(sum)
		}
		plan, meta, perr := quant.NewPlan(src, opt)
		if perr != nil {
			return nil, perr
		}
		err = a.writeGGUF(ctx, "merged", &o.output, meta, plan)
	}
	if err != nil || o.output.dryRun {
		return nil, err
	}
	merged, err := arch.Open(o.output.path, arch.Options{NoVocab: true})
	if err != nil {
		return nil, err
	}
	defer merged.Close()
	return merge.Measure(ctx, base, merged, deltas, a.threads)
}

// planSame plans a merge into the same types, or for nest and promote into types
// that hold the base's values.
func (a *app) planSame(ctx context.Context, base *arch.Model, deltas merge.Deltas, moments merge.Moments, o *mergeOptions) (*format.Plan, *merge.Report, error) {
	opt := merge.Options{Method: o.method, Seed: o.seed, Moments: moments}
	var err error
	if opt.Imatrix, err = o.readImatrix(); err != nil {
		return nil, nil, err
	}
	if o.method != "promote" {
		return merge.NewPlan(base, deltas, opt)
	}
	memory, err := parseSize(o.output.memory)
	if err != nil {
		return nil, nil, err
	}
	want := merge.Promotion{MaxError: o.maxError, MaxGrowth: o.maxGrowth}
	if o.recovery > 0 {
		want.MaxError, want.MaxGrowth = 0, o.growths[0]*o.maxGrowth
	}
	return merge.Promote(ctx, base, deltas, opt, want, a.runOptions("tried", memory))
}

// verdict decides whether the adapter was lost.
func (o *mergeOptions) verdict(doc *mergeDoc) error {
	if o.noCheck {
		return nil
	}
	hint := "--method fit keeps it, best with --data of text like the adapter's own"
	if o.method != "requantize" || !strings.EqualFold(o.typ, "same") {
		hint = "a larger --type such as Q8_0 or F16 keeps it"
	}
	if r := doc.Recovery; r != nil {
		if r.Recovery < o.minRecov {
			if o.recovery > 0 {
				return &format.CheckError{Reason: fmt.Sprintf("the recovery on %s is %.6g within a growth of %s, %.6g is asked for: a larger --max-growth, more --data, or a larger --type", r.Data, r.Recovery, percent(o.maxGrowth, 1), o.recovery)}
			}
			return &format.CheckError{Reason: fmt.Sprintf("the adapter was lost: %.3f of what it does on %s is left, below %.3g; %s", r.Recovery, r.Data, o.minRecov, hint)}
		}
		return nil
	}
	gain := doc.Report.Total.Gain
	if on := doc.Report.Total.GainOnInputs; on != 0 {
		gain = on // what real inputs see counts, not the weights
	}
	if o.trainedFor && doc.Report.Total.Changed > 0 {
		return nil // the file is what was trained, whatever the change's gain
	}
	if doc.Report.Total.DeltaRMS > 0 && gain < o.minGain {
		return &format.CheckError{Reason: fmt.Sprintf("the adapter was lost: its gain is %.3f, below %.3g; %s", gain, o.minGain, hint)}
	}
	return nil
}

// printSurvival shows the report by kind of tensor, or all tensors.
func (a *app) printSurvival(r *merge.Report, all bool) {
	head := []string{"tensors", "type", "codes changed", "gain", "correlation", "error", "delta rms / weight rms"}
	onInputs := r.Total.GainOnInputs != 0
	if onInputs {
		head = append(head, "gain on inputs", "error on inputs")
	}
	rows := [][]string{head}
	line := func(name, typ string, s merge.Survival) {
		ratio := "-"
		if s.WeightRMS > 0 {
			ratio = fmt.Sprintf("%.4f", s.DeltaRMS/s.WeightRMS)
		}
		row := []string{name, typ, percent(float64(s.Changed), float64(s.Elements)), fmt.Sprintf("%.3f", s.Gain),
			fmt.Sprintf("%.3f", s.Correlation), fmt.Sprintf("%.3f", s.Error), ratio}
		if onInputs {
			row = append(row, fmt.Sprintf("%.3f", s.GainOnInputs), fmt.Sprintf("%.3f", s.ErrorOnInputs))
		}
		rows = append(rows, row)
	}
	list := r.ByKind()
	if all {
		list = r.Tensors
	}
	for _, t := range list {
		line(t.Name, t.Type, t.Survival)
	}
	line("all", "", r.Total)
	a.table(rows)
}
