package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// targetFlags ask for a size instead of a file type.
type targetFlags struct {
	size  string
	bits  float64
	types []string
}

func (t *targetFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.size, "target-size", "", "choose the tensors' types so that the file has at most this size: 4.2GiB")
	f.Float64Var(&t.bits, "target-bpw", 0, "choose the tensors' types for this many bits per weight")
	f.StringSliceVar(&t.types, "target-types", nil, "types to choose from, by comma (those near the target)")
}

// given says whether a target was asked for.
func (t *targetFlags) given() bool { return t.size != "" || t.bits != 0 }

func (t *targetFlags) target() (quant.Target, error) {
	target := quant.Target{BitsPerWeight: t.bits}
	if t.bits < 0 || t.bits > 32 || t.size != "" && t.bits != 0 {
		return target, format.Usagef("give --target-size or --target-bpw, a number of bits from 0 to 32")
	}
	var err error
	if t.size != "" {
		if target.Bytes, err = parseSize(t.size); err != nil {
			return target, err
		}
	}
	for _, s := range t.types {
		typ, err := optionalType(s)
		if err != nil {
			return target, err
		}
		if typ != nil {
			target.Types = append(target.Types, *typ)
		}
	}
	return target, nil
}

// planTarget plans a file of the size asked for.
func (a *app) planTarget(ctx context.Context, src quant.Source, opt quant.Options, target quant.Target) (*format.Plan, *gguf.Meta, []quant.TargetChoice, error) {
	target.Progress = func(done, total int) { a.progress("measured %d of %d tensors", done, total) }
	opt, choices, err := quant.PlanTarget(ctx, src, opt, target)
	if err != nil {
		return nil, nil, nil, err
	}
	plan, meta, err := quant.NewPlan(src, opt)
	if err != nil {
		return nil, nil, nil, err
	}
	byName := map[string]*quant.TargetChoice{}
	for i := range choices {
		byName[choices[i].Tensor] = &choices[i]
	}
	for _, o := range plan.Outputs {
		if c := byName[o.Name]; c != nil {
			o.Why = fmt.Sprintf("least loss for the size: %.3g of its output becomes noise", c.Chosen.Error)
		}
	}
	return plan, meta, choices, nil
}

// sensitivities measures on the text given how much noise in each kind of tensor
// matters to the model.
func (a *app) sensitivities(ctx context.Context, path string, o *quantizeOptions, m *quant.Imatrix) (map[string]float64, error) {
	opt := model.Options{Threads: a.threads, Context: o.context}
	base, err := train.OpenBase(path, opt)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	samples, err := base.EvalData(o.data, o.context, data.Options{}, data.Fields{})
	if err != nil {
		return nil, err
	}
	limit := o.limit
	if limit == 0 {
		limit = 8
	}
	samples = samples[:min(limit, len(samples))]
	return base.Sensitivities(ctx, samples, m, 2048, opt, func(kind string) { a.progress("measuring noise in %s", kind) })
}

// printTarget says what each choice costs, and what the types next to it would.
func (a *app) printTarget(choices []quant.TargetChoice) {
	rows := [][]string{{"tensor", "type", "bytes", "noise", "cost", "smaller", "larger"}}
	beside := func(c quant.TargetChoice, i int) string {
		if i < 0 || i >= len(c.Options) {
			return ""
		}
		o := c.Options[i]
		return fmt.Sprintf("%s %+d bytes, cost %.2g", o.Type, o.Bytes-c.Chosen.Bytes, o.Cost)
	}
	for _, c := range choices {
		at := 0
		for i, o := range c.Options {
			if o.Type == c.Chosen.Type {
				at = i
			}
		}
		rows = append(rows, []string{c.Tensor, c.Chosen.Type.String(), count(c.Chosen.Bytes), fmt.Sprintf("%.3g", c.Chosen.Error), fmt.Sprintf("%.3g", c.Chosen.Cost), beside(c, at-1), beside(c, at+1)})
	}
	a.table(rows)
}

// parseBits reads "4.6bpw", a target among file types.
func parseBits(s string) (float64, bool) {
	num, ok := strings.CutSuffix(strings.ToLower(s), "bpw")
	if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(num, 64)
	return f, err == nil && f > 0 && f <= 32
}
