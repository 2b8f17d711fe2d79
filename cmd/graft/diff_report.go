package main

import (
	"fmt"
	"path/filepath"

	"github.com/graft-lora/graft/internal/htmlreport"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/train"
)

// diffPage is the report of a comparison of two models, and of what adapters explain of it.
func diffPage(left, right string, d *merge.ModelDiff, explained []*merge.Explained, total *merge.Explained) *htmlreport.Page {
	differ := 0
	t := &htmlreport.Table{Columns: []htmlreport.Column{{Name: "tensor"}, {Name: "A"}, {Name: "B"}, {Name: ""},
		{Name: "nmse", Number: true, Tip: "|B − A|² / |A|²"}, {Name: "cosine", Number: true}, {Name: "max", Number: true, Tip: "the largest difference of two values"},
		{Name: "values", Number: true, Tip: "how many values differ"}, {Name: "codes", Number: true, Tip: "how many codes differ, where both have one quantized type"},
		{Name: "held", Number: true, Tip: "share of the squared difference that the singular values found hold"}, {Name: "effective rank", Number: true}}}
	for _, x := range d.Tensors {
		if x.Status == "equal" || x.Status == "same values" {
			continue
		}
		differ++
		row := htmlreport.Texts(x.Name, x.TypeA, x.TypeB, x.Status, "–", "–", "–", "–", "–", "–", "–")
		switch x.Status {
		case "shape":
			row[3].Text = fmt.Sprintf("shape: %s, %s", shapeString(x.ShapeA), shapeString(x.ShapeB))
		case "differs":
			row[4].Text, row[5].Text, row[6].Text = fmt.Sprintf("%.3g", x.NMSE), fmt.Sprintf("%.6f", x.Cosine), fmt.Sprintf("%.3g", x.MaxAbs)
			row[7].Text = percent(float64(x.Changed), float64(x.Elements))
			if x.Codes >= 0 {
				row[8].Text = percent(float64(x.Codes), float64(x.Elements))
			}
			if s := x.Spectrum; s != nil {
				row[9].Text, row[10].Text = fmt.Sprintf("%.2f %%", 100*s.Held), fmt.Sprintf("%.1f", s.Effective)
			}
		}
		t.Rows = append(t.Rows, row)
	}
	p := &htmlreport.Page{
		Title: fmt.Sprintf("%s beside %s", filepath.Base(right), filepath.Base(left)),
		Lead:  "What two models differ by, tensor by tensor, whatever they are stored as.",
		Foot:  "Written by graft diff --report, graft " + train.Version() + ".",
		Facts: []htmlreport.Fact{{Name: "tensors that differ", Value: fmt.Sprintf("%d of %d", differ, len(d.Tensors)), Large: true},
			{Name: "metadata keys that differ", Value: fmt.Sprint(len(d.Meta)), Large: true}, {Name: "A", Value: left}, {Name: "B", Value: right}},
	}
	if explained != nil {
		p.Facts = append(p.Facts, htmlreport.Fact{Name: "explained by the adapter", Value: fmt.Sprintf("%.2f %%", 100*total.Share), Large: true})
		e := &htmlreport.Table{Columns: []htmlreport.Column{{Name: "tensor"}, {Name: "norm of the difference", Number: true}, {Name: "left with the adapter", Number: true}, {Name: "explained", Number: true}}}
		for _, x := range append(explained, total) {
			row := htmlreport.Texts(x.Name, fmt.Sprintf("%.4g", x.Norm), fmt.Sprintf("%.4g", x.Left), fmt.Sprintf("%.2f %%", 100*x.Share))
			row[3].Share = max(0, x.Share)
			e.Rows = append(e.Rows, row)
		}
		p.Sections = append(p.Sections, htmlreport.Section{Heading: "What the adapter explains", Parts: []htmlreport.Part{e},
			Words: []string{"The share of the squared difference that is gone when the adapter is added to A."}})
	}
	p.Sections = append(p.Sections, htmlreport.Section{Heading: "Tensors", Parts: []htmlreport.Part{t}})
	if len(d.Meta) > 0 {
		m := &htmlreport.Table{Columns: []htmlreport.Column{{Name: "key"}, {Name: "A | B"}}}
		for _, x := range d.Meta {
			m.Rows = append(m.Rows, htmlreport.Texts(x.Key, metaDifference(x.A, x.B)))
		}
		p.Sections = append(p.Sections, htmlreport.Section{Heading: "Metadata, tokenizer and template", Parts: []htmlreport.Part{m}})
	}
	return p
}

// adapterDiffPage is the report of a comparison of two adapters.
func adapterDiffPage(left, right string, list []*merge.PairDiff) *htmlreport.Page {
	differ := 0
	t := &htmlreport.Table{Columns: []htmlreport.Column{{Name: "matrix"}, {Name: ""}, {Name: "rank A", Number: true}, {Name: "rank B", Number: true}, {Name: "norm A", Number: true}, {Name: "norm B", Number: true},
		{Name: "norm of the difference", Number: true}, {Name: "cosine", Number: true}, {Name: "effective rank of it", Number: true}}}
	for _, x := range list {
		if x.Status != "same" {
			differ++
		}
		t.Rows = append(t.Rows, htmlreport.Texts(x.Name, x.Status, fmt.Sprint(x.RankA), fmt.Sprint(x.RankB), fmt.Sprintf("%.4g", x.NormA), fmt.Sprintf("%.4g", x.NormB),
			fmt.Sprintf("%.4g", x.Norm), fmt.Sprintf("%.4f", x.Cosine), fmt.Sprintf("%.1f", x.Effective)))
	}
	return &htmlreport.Page{
		Title:    fmt.Sprintf("%s beside %s", filepath.Base(right), filepath.Base(left)),
		Lead:     "What two adapters change, compared from their factors.",
		Foot:     "Written by graft diff --report, graft " + train.Version() + ".",
		Facts:    []htmlreport.Fact{{Name: "matrices that differ", Value: fmt.Sprintf("%d of %d", differ, len(list)), Large: true}, {Name: "A", Value: left}, {Name: "B", Value: right}},
		Sections: []htmlreport.Section{{Heading: "Matrices", Parts: []htmlreport.Part{t}}},
	}
}
