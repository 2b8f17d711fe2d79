package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/merge"
)

func newDiffCmd(a *app) *cobra.Command {
	var all, values bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two models by meaning: values, codes, metadata, whatever they are stored as",
		Long: `diff compares two models tensor by tensor: a GGUF file with a Hugging Face folder, a
quantized one with the 16-bit one, a merged one with its base. For each tensor
that differs it prints

  nmse     |B - A|² / |A|²
  cosine   of the two as vectors
  max      the largest difference of two values
  values   how many values differ
  codes    how many codes differ, where both have one quantized type

  graft diff base.gguf merged.gguf
  graft diff --values model-f16.gguf hf-folder      metadata may differ

It exits with status 5 when they differ.` + exitStatus,
		Args: args(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := arch.Open(args[0], arch.Options{})
			if err != nil {
				return err
			}
			defer x.Close()
			y, err := arch.Open(args[1], arch.Options{})
			if err != nil {
				return err
			}
			defer y.Close()
			d, err := merge.Diff(cmd.Context(), x, y, a.threads, func(done, total int) {
				a.progress("compared %d of %d tensors", done, total)
			})
			if err != nil {
				return err
			}
			if values {
				d.Meta = nil
			}
			return a.printDiff(d, all)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "list tensors that are equal too")
	cmd.Flags().BoolVar(&values, "values", false, "compare tensors only, not metadata")
	return cmd
}

func (a *app) printDiff(d *merge.ModelDiff, all bool) error {
	differ := 0
	rows := [][]string{{"tensor", "A", "B", "", "nmse", "cosine", "max", "values", "codes"}}
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
			a.result("metadata %s: %s | %s", m.Key, shortValue(m.A), shortValue(m.B))
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
