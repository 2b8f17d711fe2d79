package main

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/internal/htmlreport"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/train"
)

// reportFlags name a page to write.
type reportFlags struct {
	path  string
	force bool
}

func (r *reportFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.path, "report", "", "write what is found as a web page of one file")
	if f.Lookup("force") == nil {
		f.BoolVar(&r.force, "force", false, "replace a report that exists")
	}
}

// check fails early when the page exists already, or cannot be written.
func (r *reportFlags) check() error {
	if r.path == "" {
		return nil
	}
	return replaceable(r.path, r.force, "a report", "<!doctype html")
}

// usualPlace orders the matrices of a layer as data goes through them; those that it does
// not know stand at the end.
func usualPlace(kind string) int {
	order := []string{"attn_qkv", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp", "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"}
	if i := slices.Index(order, kind); i >= 0 {
		return i
	}
	return len(order)
}

// heatMaps shows survival by layer and kind of tensor: its gain, and what is wrong
// with it.
func heatMaps(r *merge.Report) []htmlreport.Part {
	var rows, cols []string
	row, col := map[string]int{}, map[string]int{}
	type place struct{ row, col int }
	cells, ordered := map[place]*merge.TensorSurvival{}, map[place]*merge.TensorSurvival{}
	for _, t := range r.Tensors {
		rest, ok := strings.CutPrefix(t.Name, "blk.")
		layer, kind, more := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(layer); !ok || !more || err != nil || n < 0 {
			continue
		}
		kind = strings.TrimSuffix(kind, ".weight")
		if _, ok := row[kind]; !ok {
			row[kind], rows = len(rows), append(rows, kind)
		}
		if _, ok := col[layer]; !ok {
			col[layer], cols = len(cols), append(cols, layer)
		}
		cells[place{row[kind], col[layer]}] = t
	}
	if len(cells) == 0 {
		return nil
	}
	slices.SortStableFunc(rows, func(a, b string) int { return cmp.Compare(usualPlace(a), usualPlace(b)) })
	for i, kind := range rows {
		was := row[kind]
		for j := range cols {
			if t := cells[place{was, j}]; t != nil {
				ordered[place{i, j}] = t
			}
		}
	}
	onInputs := r.Total.GainOnInputs != 0
	gain := &htmlreport.HeatMap{RowsName: "tensor", ColsName: "layer", Rows: rows, Cols: cols, Lo: 0, Hi: 1, Form: "%.3f", LegendLow: "lost", LegendHi: "full strength",
		Caption: "Gain: how much of the wanted change is there (in the weights)"}
	wrong := &htmlreport.HeatMap{RowsName: "tensor", ColsName: "layer", Rows: rows, Cols: cols, Lo: 1.5, Hi: 0, Form: "%.3f", LegendLow: "more noise than change", LegendHi: "exact",
		Caption: "Error: what differs from the wanted change, relative to it (in the weights)"}
	if onInputs {
		gain.Caption = "Gain: how much of the wanted change is there in the outputs on real inputs"
		wrong.Caption = "Error: what differs from the wanted change of the outputs on real inputs, relative to it"
		wrong.Lo = 1
	}
	for i := range rows {
		g, w, tips := make([]float64, len(cols)), make([]float64, len(cols)), make([]string, len(cols))
		for j := range cols {
			t := ordered[place{i, j}]
			if g[j], w[j] = math.NaN(), math.NaN(); t == nil {
				continue
			}
			g[j], w[j] = gainOf(t.Survival), t.Error
			if onInputs {
				w[j] = t.ErrorOnInputs
			}
			tips[j] = fmt.Sprintf("%s\n%s of codes changed\ndelta rms / weight rms %.4f", t.Type, percent(float64(t.Changed), float64(t.Elements)), t.DeltaRMS/t.WeightRMS)
		}
		gain.Values, wrong.Values, gain.Tips, wrong.Tips = append(gain.Values, g), append(wrong.Values, w), append(gain.Tips, tips), append(wrong.Tips, tips)
	}
	return []htmlreport.Part{gain, wrong}
}

// survivalTable is a report's list of tensors as a table.
func survivalTable(list []*merge.TensorSurvival, total *merge.Survival) *htmlreport.Table {
	t := &htmlreport.Table{Columns: []htmlreport.Column{{Name: "tensors"}, {Name: "type"}, {Name: "codes changed", Number: true},
		{Name: "gain", Number: true, Tip: "<realised, wanted> / <wanted, wanted> in the weights: 1 is full strength, 0 is lost"},
		{Name: "correlation", Number: true, Tip: "of the realised and the wanted change"},
		{Name: "error", Number: true, Tip: "|realised - wanted| / |wanted|"},
		{Name: "delta / weight", Number: true, Tip: "root mean squares"},
		{Name: "gain on inputs", Number: true, Tip: "the gain of the outputs on real inputs"}, {Name: "error on inputs", Number: true}}}
	line := func(name, typ string, s merge.Survival) {
		num := func(f string, x float64, ok bool) htmlreport.Cell {
			if !ok {
				return htmlreport.Cell{Text: "–", Faint: true}
			}
			return htmlreport.Cell{Text: fmt.Sprintf(f, x)}
		}
		t.Rows = append(t.Rows, []htmlreport.Cell{{Text: name, Strong: typ == ""}, {Text: typ}, {Text: percent(float64(s.Changed), float64(s.Elements))},
			num("%.3f", s.Gain, true), num("%.3f", s.Correlation, true), num("%.3f", s.Error, true), num("%.4f", s.DeltaRMS/s.WeightRMS, s.WeightRMS > 0),
			num("%.3f", s.GainOnInputs, s.GainOnInputs != 0), num("%.3f", s.ErrorOnInputs, s.GainOnInputs != 0)})
	}
	for _, x := range list {
		line(x.Name, x.Type, x.Survival)
	}
	if total != nil {
		line("all", "", *total)
	}
	return t
}

// page is the report of a merge.
func (d *mergeDoc) page(base string, adapters []string) *htmlreport.Page {
	names := make([]string, len(adapters))
	for i, a := range adapters {
		names[i] = filepath.Base(a)
	}
	p := &htmlreport.Page{
		Title: fmt.Sprintf("%s merged into %s", strings.Join(names, " and "), filepath.Base(base)),
		Lead:  "What became of the adapter's change in the codes of the merged file.",
		Foot:  "Written by graft merge --report, graft " + train.Version() + ".",
	}
	total := d.Report.Total
	if d.Recovery != nil {
		p.Facts = append(p.Facts, htmlreport.Fact{Name: "recovery on text", Value: fmt.Sprintf("%.3f", d.Recovery.Recovery), Large: true})
	}
	if total.GainOnInputs != 0 {
		p.Facts = append(p.Facts, htmlreport.Fact{Name: "gain on inputs", Value: fmt.Sprintf("%.3f", total.GainOnInputs), Large: true})
	}
	p.Facts = append(p.Facts, htmlreport.Fact{Name: "gain in the weights", Value: fmt.Sprintf("%.3f", total.Gain), Large: true},
		htmlreport.Fact{Name: "codes changed", Value: percent(float64(total.Changed), float64(total.Elements)), Large: true},
		htmlreport.Fact{Name: "size of the file", Value: size(fileSize(d.Output)), Large: true},
		htmlreport.Fact{Name: "base", Value: base}, htmlreport.Fact{Name: "adapters", Value: strings.Join(adapters, ", ")}, htmlreport.Fact{Name: "output", Value: d.Output})
	if d.Method != "" {
		p.Facts = append(p.Facts, htmlreport.Fact{Name: "method", Value: d.Method})
	} else {
		p.Facts = append(p.Facts, htmlreport.Fact{Name: "type", Value: d.Type})
	}
	if r := d.Recovery; r != nil {
		p.Facts = append(p.Facts, htmlreport.Fact{Name: "measured on", Value: r.Data})
		t := &htmlreport.Table{Columns: []htmlreport.Column{{Name: ""}, {Name: "loss", Number: true}, {Name: "±", Number: true}, {Name: "perplexity", Number: true}, {Name: "KL to the adapter", Number: true}, {Name: "same top token", Number: true}}}
		for _, x := range []sideResult{r.Base, r.Adapter, r.Merged} {
			row := htmlreport.Texts(x.Name, fmt.Sprintf("%.4f", x.Loss), fmt.Sprintf("%.4f", x.LossError), fmt.Sprintf("%.3f", x.Perplexity), "–", "–")
			if v := x.Divergence; v != nil {
				row[4].Text, row[5].Text = fmt.Sprintf("%.5f", v.KL), fmt.Sprintf("%.2f %%", 100*v.SameTop)
			}
			t.Rows = append(t.Rows, row)
		}
		p.Sections = append(p.Sections, htmlreport.Section{Heading: "On text", Parts: []htmlreport.Part{t},
			Words: []string{"Recovery is (base − merged) / (base − adapter) of the loss: 1 when the merged file does what the adapter did beside its base."}})
	}
	p.Sections = append(p.Sections, htmlreport.Section{Heading: "Survival by layer and tensor", Parts: heatMaps(d.Report)},
		htmlreport.Section{Heading: "By kind of tensor", Parts: []htmlreport.Part{survivalTable(d.Report.ByKind(), &total)}},
		htmlreport.Section{Heading: "Every tensor", Folded: true, Parts: []htmlreport.Part{survivalTable(d.Report.Tensors, nil)}})
	return p
}

// page is the report of eval --ship.
func (d *shipDoc) page(aware bool) *htmlreport.Page {
	base, adapter := d.Rows[0], d.Rows[1]
	p := &htmlreport.Page{
		Title: fmt.Sprintf("Shipping %s on %s", filepath.Base(d.Adapters[0]), filepath.Base(d.Base)),
		Lead:  "The adapter beside its base, and every way to make one file of the two.",
		Foot:  "Written by graft eval --ship --report, graft " + train.Version() + ".",
		Facts: []htmlreport.Fact{{Name: "loss of the base", Value: fmt.Sprintf("%.4f", base.Loss), Large: true}, {Name: "loss with the adapter", Value: fmt.Sprintf("%.4f", adapter.Loss), Large: true}},
	}
	best := d.best()
	if best != nil && best.Recovery != nil {
		p.Facts = append(p.Facts, htmlreport.Fact{Name: "best recovery in the base's size: " + best.Name, Value: fmt.Sprintf("%.3f", *best.Recovery), Large: true})
	}
	p.Facts = append(p.Facts, htmlreport.Fact{Name: "base", Value: d.Base}, htmlreport.Fact{Name: "adapters", Value: strings.Join(d.Adapters, ", ")}, htmlreport.Fact{Name: "data", Value: d.Data})
	if d.HeldOut != "" {
		p.Facts = append(p.Facts, htmlreport.Fact{Name: "measured on", Value: d.HeldOut})
	} else {
		p.Facts = append(p.Facts, htmlreport.Fact{Name: "measured on", Value: "the second half of the data; moments of inputs are from the first"})
	}
	p.Facts = append(p.Facts, htmlreport.Fact{Name: "measured over", Value: plural(base.Sequences, "sequence") + ", " + plural(base.Tokens, "token")})
	t := &htmlreport.Table{Columns: []htmlreport.Column{{Name: ""}}}
	tips := []string{"", "mean over the tokens, in nats", "standard error of the loss", "(base − this) / (base − adapter) of the loss", "mean over the tokens, in nats", "part of the tokens whose most likely prediction is the adapter's", "how much of the wanted change is there: on real inputs where a method used them, else in the weights"}
	for i, c := range shipColumns {
		t.Columns = append(t.Columns, htmlreport.Column{Name: c, Number: true, Tip: tips[i]})
	}
	for _, r := range d.Rows {
		row := []htmlreport.Cell{{Text: r.Name, Strong: r == best}}
		if r.Cannot != "" {
			t.Rows = append(t.Rows, append(row, htmlreport.Cell{Text: "no", Faint: true}))
			continue
		}
		for _, f := range r.fields() {
			row = append(row, htmlreport.Cell{Text: f, Faint: f == "-"})
		}
		if r.Recovery != nil {
			row[4].Share, row[4].Strong = *r.Recovery, r == best
		}
		t.Rows = append(t.Rows, row)
	}
	words := []string{"Recovery is (base − this) / (base − adapter) of the loss on text that neither training nor the moments have seen, if the files are so."}
	if aware {
		words = append(words, "The adapter was trained to be merged: its row is what was trained, the merge by method aware.")
	}
	for _, r := range d.Rows {
		if r.Cannot != "" {
			words = append(words, r.Name+": "+r.Cannot)
		}
	}
	p.Sections = append(p.Sections, htmlreport.Section{Heading: "What each form does", Words: words, Parts: []htmlreport.Part{t}})
	for _, r := range d.Rows {
		if r.Survival != nil && r.Method != "" {
			p.Sections = append(p.Sections, htmlreport.Section{Heading: "Survival: " + r.Name, Folded: r != best, Parts: append(heatMaps(r.Survival), survivalTable(r.Survival.ByKind(), &r.Survival.Total))})
		}
	}
	return p
}
