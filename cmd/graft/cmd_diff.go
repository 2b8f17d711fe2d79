package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/merge"
)

type diffOptions struct {
	all, values bool
	base        string
	adapters    []string
	spectrum    int
	report      reportFlags
}

func newDiffCmd(a *app) *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two models or two adapters by meaning, whatever they are stored as",
		Long: `diff compares two models tensor by tensor: a GGUF file with a Hugging Face folder, a
quantized one with the 16-bit one, a merged one with its base. For each tensor
that differs it prints

  nmse     |B - A|² / |A|²
  cosine   of the two as vectors
  max      the largest difference of two values
  values   how many values differ
  codes    how many codes differ, where both have one quantized type

  graft diff base.gguf merged.gguf
  graft diff --values model-f16.gguf hf-folder        metadata may differ
  graft diff base.gguf merged.gguf --spectrum 16      how many directions each difference uses
  graft diff base.gguf tuned.gguf --adapter lesson    how much of it the adapter explains
  graft diff lesson lesson/adapter.gguf --base base.gguf
  graft diff base.gguf merged.gguf --report diff.html

Two adapters are compared by what they change, not by their factors: ranks, scales and
formats may differ; --base is needed where their names do. Changes that differ by less
than float16 rounds are the same.

It exits with status 5 when they differ, but with --adapter, which asks how much and not whether.` + exitStatus,
		Args: args(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.report.check(); err != nil {
				return err
			}
			return a.diff(cmd.Context(), args[0], args[1], &o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "list tensors that are equal too")
	f.BoolVar(&o.values, "values", false, "compare tensors only, not metadata")
	f.StringVar(&o.base, "base", "", "of two adapters: the model they belong to")
	f.StringArrayVar(&o.adapters, "adapter", nil, "PATH or PATH=FACTOR: say how much of the difference it explains (repeatable; they act together)")
	f.IntVar(&o.spectrum, "spectrum", 0, "singular values to find of each matrix' difference")
	o.report.add(cmd)
	return cmd
}

func (a *app) diff(ctx context.Context, left, right string, o *diffOptions) error {
	kinds := [2]bool{}
	for i, p := range []string{left, right} {
		kind, err := checkpoint.Sniff(p)
		if err != nil {
			return err
		}
		kinds[i] = kind.Adapter()
	}
	switch {
	case kinds[0] && kinds[1]:
		return a.diffAdapters(left, right, o)
	case kinds[0] || kinds[1]:
		return format.Usagef("one is a model and one an adapter: graft diff BASE TUNED --adapter ADAPTER says how much of a difference an adapter explains")
	case o.base != "":
		return format.Usagef("--base is for two adapters")
	}
	x, err := arch.Open(left, arch.Options{})
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := arch.Open(right, arch.Options{})
	if err != nil {
		return err
	}
	defer y.Close()
	for _, m := range []**arch.Model{&x, &y} {
		if *m, err = flatIfStored(*m); err != nil {
			return err
		}
	}
	told := func(done, total int) { a.progress("compared %d of %d tensors", done, total) }
	d, err := merge.Diff(ctx, x, y, a.threads, told)
	if err != nil {
		return err
	}
	if o.spectrum > 0 {
		if err := d.Spectrum(ctx, x, y, o.spectrum, a.threads); err != nil {
			return err
		}
	}
	if o.values {
		d.Meta = nil
	}
	var explained []*merge.Explained
	var total merge.Explained
	if len(o.adapters) > 0 {
		adapters, err := openAdapters(o.adapters)
		if err != nil {
			return err
		}
		joined, deltas, err := merge.Join(x, adapters)
		if err != nil {
			return err
		}
		sum, err := merge.Apply(joined, deltas)
		if err != nil {
			return err
		}
		rest, err := merge.Diff(ctx, sum, y, a.threads, told)
		if err != nil {
			return err
		}
		explained, total = merge.ExplainedBy(d, rest)
	}
	if o.report.path != "" {
		if err := diffPage(left, right, d, explained, &total).WriteFile(o.report.path, o.report.force); err != nil {
			return err
		}
	}
	if explained != nil {
		return a.printExplained(d, explained, &total)
	}
	return a.printDiff(d, o.all)
}

// diffAdapters compares two adapters.
func (a *app) diffAdapters(left, right string, o *diffOptions) error {
	if len(o.adapters) > 0 || o.spectrum > 0 {
		return format.Usagef("--adapter and --spectrum are for two models")
	}
	x, err := openAdapter(left)
	if err != nil {
		return err
	}
	y, err := openAdapter(right)
	if err != nil {
		return err
	}
	out := adapterOutput{base: o.base}
	done, err := out.resolve(x, y)
	if err != nil {
		return err
	}
	defer done()
	checkpoints := func(form string) bool { return form == "peft" || form == "mlx" } // both name modules as checkpoints do
	if o.base == "" && x.Format != y.Format && !(checkpoints(x.Format) && checkpoints(y.Format)) {
		return format.Usagef("%s is of form %s and %s of %s: their names meet in the model they belong to, --base", left, x.Format, right, y.Format)
	}
	list, err := merge.DiffAdapters(x, y)
	if err != nil {
		return err
	}
	differ := 0
	rows := [][]string{{"matrix", "", "rank", "norm", "norm of the difference", "cosine", "effective rank of it"}}
	for _, p := range list {
		if p.Status != "same" {
			differ++
		} else if !o.all {
			continue
		}
		rows = append(rows, []string{p.Name, p.Status, fmt.Sprintf("%d, %d", p.RankA, p.RankB), fmt.Sprintf("%.4g, %.4g", p.NormA, p.NormB),
			fmt.Sprintf("%.4g", p.Norm), fmt.Sprintf("%.4f", p.Cosine), fmt.Sprintf("%.1f", p.Effective)})
	}
	if o.report.path != "" {
		if err := adapterDiffPage(left, right, list).WriteFile(o.report.path, o.report.force); err != nil {
			return err
		}
	}
	if a.json {
		if err := a.printJSON(map[string]any{"same": differ == 0, "matrices": list}); err != nil {
			return err
		}
	} else if len(rows) > 1 {
		a.table(rows)
	}
	if differ == 0 {
		a.result("the same: %s", matrices(len(list)))
		return nil
	}
	return &format.CheckError{Reason: fmt.Sprintf("they differ: %d of %s", differ, matrices(len(list)))}
}

// printExplained shows how much of a difference adapters account for.
func (a *app) printExplained(d *merge.ModelDiff, list []*merge.Explained, total *merge.Explained) error {
	rows := [][]string{{"tensor", "norm of the difference", "left with the adapter", "explained"}}
	for _, e := range append(list, total) {
		rows = append(rows, []string{e.Name, fmt.Sprintf("%.4g", e.Norm), fmt.Sprintf("%.4g", e.Left), fmt.Sprintf("%.2f %%", 100*e.Share)})
	}
	if a.json {
		return a.printJSON(map[string]any{"tensors": list, "total": total, "diff": d.JSON()})
	}
	a.table(rows)
	a.result("the adapter explains %.2f %% of the difference", 100*total.Share)
	return nil
}

func (a *app) printDiff(d *merge.ModelDiff, all bool) error {
	differ := 0
	rows := [][]string{{"tensor", "A", "B", "", "nmse", "cosine", "max", "values", "codes"}}
	if slices.ContainsFunc(d.Tensors, func(t *merge.TensorDiff) bool { return t.Spectrum != nil }) {
		rows[0] = append(rows[0], "held", "effective rank")
	}
	for _, t := range d.Tensors {
		same := t.Status == "equal" || t.Status == "same values"
		if !same {
			differ++
		}
		if same && !all {
			continue
		}
		row := []string{t.Name, t.TypeA, t.TypeB, t.Status, "", "", "", "", ""}
		switch t.Status {
		case "shape":
			row[3] = fmt.Sprintf("shape: %s, %s", shapeString(t.ShapeA), shapeString(t.ShapeB))
		case "differs":
			row[4], row[5], row[6] = fmt.Sprintf("%.3g", t.NMSE), fmt.Sprintf("%.6f", t.Cosine), fmt.Sprintf("%.3g", t.MaxAbs)
			row[7] = percent(float64(t.Changed), float64(t.Elements))
			if t.Codes >= 0 {
				row[8] = percent(float64(t.Codes), float64(t.Elements))
			}
			if p := t.Spectrum; p != nil {
				row = append(row, fmt.Sprintf("%.2f %% by %d", 100*p.Held, p.Rank), fmt.Sprintf("%.1f", p.Effective))
			}
		}
		rows = append(rows, row)
	}
	if a.json {
		if err := a.printJSON(d.JSON()); err != nil {
			return err
		}
	} else {
		if len(rows) > 1 {
			a.table(rows)
		}
		for _, m := range d.Meta {
			a.result("metadata %s: %s", m.Key, metaDifference(m.A, m.B))
		}
	}
	if d.Same() {
		a.result("the same: %s", plural(len(d.Tensors), "tensor"))
		return nil
	}
	return &format.CheckError{Reason: fmt.Sprintf("they differ: %d of %s, %s", differ, plural(len(d.Tensors), "tensor"), plural(len(d.Meta), "metadata key"))}
}

// shortValue prints a metadata value on one line.
func shortValue(v gguf.Value) string {
	if v == nil {
		return "absent"
	}
	s := strings.ReplaceAll(fmt.Sprint(v), "\n", "\\n")
	if _, elem, _ := gguf.TypeOf(v); s != "" && s[0] == '[' {
		s = elem.String() + s
	}
	if r := []rune(s); len(r) > 80 {
		s = string(r[:77]) + "..."
	}
	return s
}

func matrices(n int) string {
	if n == 1 {
		return "1 matrix"
	}
	return count(int64(n)) + " matrices"
}
