package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/fmath"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// ladderRow is what one type makes of a model.
type ladderRow struct {
	Type       string            `json:"type"`
	Bytes      int64             `json:"bytes"`
	Bits       float64           `json:"bits_per_weight"`
	Perplexity float64           `json:"perplexity"`
	Divergence *train.Divergence `json:"divergence,omitempty"` // from the source; nil for the source itself
}

// quantizeCompare quantizes the source to each type in turn, in a temporary folder,
// and says what each has become.
func (a *app) quantizeCompare(ctx context.Context, path string, o *quantizeOptions) error {
	if o.data == "" {
		return format.Usagef("--compare measures on a text: name it with --data")
	}
	if o.output.path != "" || o.typ != "" || o.target.given() {
		return format.Usagef("--compare writes no file: -o, --type and targets do not go with it (name a target as 4.6bpw)")
	}
	src, done, err := a.openQuantSource(path, false)
	if err != nil {
		return err
	}
	defer done()
	base, err := train.OpenBase(path, model.Options{Threads: a.threads, Context: o.context})
	if err != nil {
		return err
	}
	defer base.Close()
	samples, err := base.EvalData(o.data, o.context, data.Options{}, data.Fields{})
	if err != nil {
		return err
	}
	if o.limit > 0 && o.limit < len(samples) {
		samples = samples[:o.limit]
	}
	source, err := comparison(side{name: "source", base: base}, samples)
	if err != nil {
		return err
	}
	defer source.Close()
	dir, err := os.MkdirTemp("", "graft-compare-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var rows []ladderRow
	for _, name := range o.compare {
		row, err := a.ladderRow(ctx, src, source, len(samples), filepath.Join(dir, "model.gguf"), name, o)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, row)
	}
	reference := ladderRow{Type: "source", Perplexity: fmath.Exp(rows[0].Divergence.Reference)}
	var elements int64
	for _, v := range src.Views {
		n, err := format.Elements(v.Shape)
		if err != nil {
			return err
		}
		elements += n
		for _, t := range v.From {
			reference.Bytes += t.Size
		}
	}
	reference.Bits = 8 * float64(reference.Bytes) / float64(max(elements, 1))
	return a.printLadder(path, o.data, append([]ladderRow{reference}, rows...))
}

// ladderRow makes one row: it writes the file, measures it and removes it.
func (a *app) ladderRow(ctx context.Context, src quant.Source, source *train.Comparison, samples int, file, name string, o *quantizeOptions) (ladderRow, error) {
	row := ladderRow{Type: name}
	one := *o
	one.typ = name
	var bits float64
	if b, ok := parseBits(name); ok {
		one.typ, bits = "", b
	}
	opt, err := one.options()
	if err != nil {
		return row, err
	}
	var plan *format.Plan
	var meta *gguf.Meta
	if bits > 0 {
		one.target.bits = bits
		target, err := one.target.target()
		if err != nil {
			return row, err
		}
		plan, meta, _, err = a.planTarget(ctx, src, opt, target)
		if err != nil {
			return row, err
		}
	} else if plan, meta, err = quant.NewPlan(src, opt); err != nil {
		return row, err
	}
	out := outputFlags{path: file, memory: o.output.memory}
	if err := a.writeGGUF(ctx, name, &out, meta, plan); err != nil {
		return row, err
	}
	defer os.Remove(file)
	st, err := os.Stat(file)
	if err != nil {
		return row, err
	}
	row.Bytes = st.Size()
	if row.Bits, err = bitsOf(plan); err != nil {
		return row, err
	}
	other, err := train.OpenBase(file, model.Options{Threads: a.threads, Context: o.context})
	if err != nil {
		return row, err
	}
	defer other.Close()
	_, d, err := source.With(ctx, train.Side{Model: other.Model}, func(done int) { a.progress("%s: %d of %d", name, done, samples) })
	row.Divergence, row.Perplexity = &d, fmath.Exp(d.Other)
	return row, err
}

func (a *app) printLadder(path, text string, rows []ladderRow) error {
	if a.json {
		return a.printJSON(map[string]any{"path": path, "data": text, "results": rows})
	}
	table := [][]string{{"type", "size", "bits per weight", "perplexity", "KL to the source", "±", "same top token"}}
	for _, r := range rows {
		row := []string{r.Type, size(r.Bytes), fmt.Sprintf("%.3f", r.Bits), fmt.Sprintf("%.4f", r.Perplexity), "", "", ""}
		if d := r.Divergence; d != nil {
			row[4], row[5], row[6] = fmt.Sprintf("%.6f", d.KL), fmt.Sprintf("%.6f", d.KLError), fmt.Sprintf("%.2f %%", 100*d.SameTop)
		}
		table = append(table, row)
	}
	a.table(table)
	return nil
}
