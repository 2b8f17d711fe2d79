package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/model"
)

type debugOptions struct {
	ids, labels string
	adapters    []string
	output      string
	force       bool
	asMerged    bool
}

func newDebugCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Logits and gradients as files, to compare with other implementations",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return format.Usagef("graft debug logits or graft debug gradients")
		},
	}
	cmd.AddCommand(newDebugLogitsCmd(a), newDebugGradientsCmd(a))
	return cmd
}

func (o *debugOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.ids, "ids", "", "token ids, separated by spaces or commas")
	f.StringArrayVar(&o.adapters, "adapter", nil, "PATH or PATH=FACTOR")
	f.StringVarP(&o.output, "output", "o", "", "safetensors file to write")
	f.BoolVar(&o.force, "force", false, "replace an output that exists")
}

func newDebugLogitsCmd(a *app) *cobra.Command {
	var o debugOptions
	cmd := &cobra.Command{
		Use:   "logits MODEL --ids \"1 2 3\" -o FILE.safetensors",
		Short: "Write the logits of a sequence: tensor logits [tokens, vocabulary], float32",
		Long: `logits runs a sequence of token ids through a model and writes its logits.

  graft debug logits model.gguf --ids "1 2 3" -o logits.safetensors
  graft debug logits model.gguf --adapter lesson=0.5 --ids "1 2 3" -o logits.safetensors` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.debugLogits(args[0], &o) },
	}
	o.add(cmd)
	addAsMerged(cmd, &o.asMerged)
	return cmd
}

func newDebugGradientsCmd(a *app) *cobra.Command {
	var o debugOptions
	cmd := &cobra.Command{
		Use:   "gradients MODEL --ids \"1 2 3\" --adapter A -o FILE.safetensors",
		Short: "Write the gradients of an adapter: PEFT names, and the scalar loss",
		Long: `gradients runs a sequence forward and backward and writes the derivatives of the mean loss
with respect to every A and B of one adapter, and to its rows of tokens, under PEFT's names and in its
layout, and the loss.

  graft debug gradients model.gguf --adapter lesson --ids "1 2 3" -o gradients.safetensors
  graft debug gradients model.gguf --adapter lesson --ids "1 2 3" --labels "-100 2 3" -o gradients.safetensors

A label of -100 is not trained; without --labels every token is.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.debugGradients(args[0], &o) },
	}
	o.add(cmd)
	cmd.Flags().StringVar(&o.labels, "labels", "", "labels, one for each id")
	return cmd
}

// parseIDs reads token ids that must be below vocab; allowed lets -100 through.
func parseIDs(s string, vocab int, allowUntrained bool) ([]int32, error) {
	var ids []int32
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\t' }) {
		n, err := strconv.ParseInt(f, 10, 32)
		untrained := allowUntrained && n == model.Untrained
		if err != nil || !untrained && (n < 0 || n >= int64(vocab)) {
			return nil, format.Usagef("%q is no token of a vocabulary of %d", f, vocab)
		}
		ids = append(ids, int32(n))
	}
	if len(ids) == 0 {
		return nil, format.Usagef("give token ids with --ids \"1 2 3\"")
	}
	return ids, nil
}

// openPlain opens a model without its tokenizer.
func (a *app) openPlain(path string) (*arch.Model, *model.Model, error) {
	src, err := arch.Open(path, arch.Options{NoVocab: true})
	if err != nil {
		return nil, nil, err
	}
	m, err := model.New(src, model.Options{Threads: a.threads})
	if err != nil {
		src.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return src, m, nil
}

func (a *app) debugLogits(path string, o *debugOptions) error {
	out := outputFlags{path: o.output, force: o.force}
	if err := out.check(path); err != nil {
		return err
	}
	src, m, err := a.openPlain(path)
	if err != nil {
		return err
	}
	defer src.Close()
	base := &train.Base{Path: path, Source: src, Model: m}
	defer func() { base.Model.Close() }()
	adapters, err := a.useAdapters(nil, base, o.adapters, o.asMerged)
	if err != nil {
		return err
	}
	m = base.Model // with the tokens that adapters bring
	ids, err := parseIDs(o.ids, m.Vocab, false)
	if err != nil {
		return err
	}
	plan := &format.Plan{Outputs: []*format.Output{{Name: "logits", Type: format.F32, Shape: []int64{int64(len(ids)), int64(m.Vocab)},
		Units: int64(len(ids)), UnitBytes: 4 * int64(m.Vocab)}}}
	w, err := safetensors.Create(o.output, plan, nil, safetensors.WriteOptions{Force: o.force})
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := w.Begin(0); err != nil {
		return err
	}
	err = m.Logits(&model.Batch{IDs: ids}, func(_ int, logits kernel.Mat) error {
		for i := range logits.Rows {
			if _, err := w.Write(floatBytes(logits.Row(i))); err != nil {
				return err
			}
		}
		return nil
	}, adapters...)
	if err != nil {
		return err
	}
	return w.Close()
}

func (a *app) debugGradients(path string, o *debugOptions) error {
	out := outputFlags{path: o.output, force: o.force}
	if err := out.check(path); err != nil {
		return err
	}
	if len(o.adapters) != 1 {
		return format.Usagef("name one adapter with --adapter")
	}
	src, m, err := a.openPlain(path)
	if err != nil {
		return err
	}
	defer src.Close()
	file, err := openAdapter(parseWeighted(o.adapters[0]).path)
	if err != nil {
		return err
	}
	base := &train.Base{Path: path, Source: src, Model: m}
	defer func() { base.Model.Close() }()
	ad, err := base.UseAdapter(file)
	if err != nil {
		return err
	}
	m = base.Model // with the tokens that the adapter brings
	ids, err := parseIDs(o.ids, m.Vocab, false)
	if err != nil {
		return err
	}
	labels := ids
	if o.labels != "" {
		if labels, err = parseIDs(o.labels, m.Vocab, true); err != nil {
			return err
		}
		if len(labels) != len(ids) {
			return format.Usagef("%d labels for %d ids", len(labels), len(ids))
		}
	}
	grads := model.NewGrads(ad)
	loss, err := m.LossAndGrad(&model.Batch{IDs: ids, Targets: model.ShiftLabels(labels, nil)}, ad, grads)
	if err != nil {
		return err
	}
	if loss.Tokens == 0 {
		return format.Usagef("no token is trained: the first label never counts, and -100 does not")
	}
	plan := gradientPlan(file, grads, loss)
	w, err := safetensors.Create(o.output, plan, nil, safetensors.WriteOptions{Force: o.force})
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := format.Run(context.Background(), plan, w, format.RunOptions{}); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	a.result("loss %.6f over %s", loss.Mean(), plural(loss.Tokens, "token"))
	if a.json {
		return a.printJSON(map[string]any{"loss": loss.Mean(), "tokens": loss.Tokens, "output": o.output})
	}
	return nil
}

// gradientPlan holds the gradients of the mean loss in the layout of the adapter's
// own matrices.
func gradientPlan(file *adapter.Adapter, grads model.Grads, loss model.Loss) *format.Plan {
	plan := &format.Plan{}
	put := func(name string, shape []int64, data []float32) {
		b := floatBytes(data)
		plan.Outputs = append(plan.Outputs, &format.Output{Name: name, Type: format.F32, Shape: shape, Units: 1, UnitBytes: int64(len(b)),
			Fill: func(dst []byte, _ int64) error { copy(dst, b); return nil }})
	}
	for _, p := range file.Pairs {
		g := grads[p.Target]
		q := p.Clone()
		q.SetFactors(meanGrad(g.A, loss.Tokens), meanGrad(g.B, loss.Tokens), 1)
		keyA, keyB, ma, mb := file.PEFTTensors(q)
		put(keyA, []int64{int64(ma.Rows), int64(ma.Cols)}, ma.Data)
		put(keyB, []int64{int64(mb.Rows), int64(mb.Cols)}, mb.Data)
	}
	if file.Tokens != nil {
		for _, r := range file.Tokens.Rows {
			g := meanGrad(grads[r.Target].Rows, loss.Tokens)
			put(file.PEFTTokens(r), []int64{int64(g.Rows), int64(g.Cols)}, g.Data)
		}
	}
	put("loss", nil, []float32{float32(loss.Mean())})
	return plan
}

func meanGrad(g kernel.Mat, tokens int) adapter.Matrix {
	m := adapter.Matrix{Rows: g.Rows, Cols: g.Cols}
	for i := range g.Rows {
		for _, v := range g.Row(i) {
			m.Data = append(m.Data, v/float32(tokens))
		}
	}
	return m
}

func floatBytes(x []float32) []byte {
	b := make([]byte, 0, 4*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}
