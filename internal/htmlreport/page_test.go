package htmlreport

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// hostile is a text that would break out of any place that does not escape it.
const hostile = `"><script>alert(1)</script>' onload='x' {{.}} </svg></style>`

func sample() *Page {
	return &Page{
		Title: hostile, Lead: hostile, Foot: hostile,
		Facts: []Fact{{Name: hostile, Value: hostile}, {Name: "recovery", Value: "0.993", Large: true}},
		Sections: []Section{{Heading: hostile, Words: []string{hostile}, Parts: []Part{
			&Table{Caption: hostile, Columns: []Column{{Name: hostile, Tip: hostile}, {Name: "gain", Number: true}},
				Rows: [][]Cell{Texts(hostile, "1"), {{Text: "b", Faint: true}, {Text: "0.5", Share: 0.5, Strong: true}}}},
			&HeatMap{Caption: hostile, RowsName: hostile, ColsName: hostile, Rows: []string{hostile, "attn_k"}, Cols: []string{"0", "1", hostile},
				Values: [][]float64{{0, 0.5, 2}, {math.NaN(), math.Inf(1), 1}}, Lo: 0, Hi: 1, LegendLow: hostile, LegendHi: hostile,
				Tips: [][]string{{hostile, "", ""}, {"", "", ""}}},
			&Chart{Caption: hostile, XLabel: hostile, YLabel: hostile, Series: []Series{
				{Name: hostile, X: []float64{0, 1, 2, 3}, Y: []float64{1, math.NaN(), 2, 3}, Dots: true}, {Name: "b", X: []float64{0}, Y: []float64{4}, Faint: true}}},
			Pre(hostile),
		}}, {Heading: hostile, Folded: true}},
	}
}

func render(t *testing.T, p *Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestEscapes renders texts that try to become markup, and parses the
// page: no element or attribute comes of them, and all of them are there to be read.
func TestEscapes(t *testing.T) {
	out := render(t, sample())
	known := map[string]bool{}
	for _, e := range strings.Fields("html head body meta title style main h1 h2 p div b i span dl dt dd section table caption thead tbody tr th td figure figcaption svg g text rect line path circle pre footer details summary") {
		known[e] = true
	}
	texts := 0
	d := xml.NewDecoder(strings.NewReader(out))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch n := token.(type) {
		case xml.StartElement:
			if !known[n.Name.Local] {
				t.Errorf("an element <%s>", n.Name.Local)
			}
			for _, a := range n.Attr {
				if key := a.Name.Local; strings.HasPrefix(key, "on") || key == "href" || key == "src" {
					t.Errorf("<%s> has an attribute %s", n.Name.Local, key)
				}
				texts += strings.Count(a.Value, hostile)
			}
		case xml.CharData:
			texts += strings.Count(string(n), hostile)
		}
	}
	// Title twice, lead, foot, fact 2, heading, words; table 4; heat map 2 names, caption, row, column,
	// 3 tips with the row (one with itself and the column), legend 2; chart 3, 3 dots with 3 each, key; pre.
	if texts < 30 {
		t.Errorf("%d of the texts are there", texts)
	}
}

// TestSelfContained looks for anything that a page would load.
func TestSelfContained(t *testing.T) {
	out := render(t, sample())
	if m := regexp.MustCompile(`(?i)https?:|url\(|@import|<link|<img|<iframe|<script`).FindString(out); m != "" {
		t.Errorf("the page has %q", m)
	}
	if !strings.Contains(out, "default-src 'none'") || !strings.Contains(out, "prefers-color-scheme: dark") {
		t.Error("the page lacks its policy or its dark colours")
	}
	if out != render(t, sample()) {
		t.Error("the same page has other bytes")
	}
}

func TestHeatMap(t *testing.T) {
	h := &HeatMap{Rows: []string{"q", "k"}, ColsName: "layer", Cols: []string{"0", "1", "2"},
		Values: [][]float64{{0, 1, 5}, {math.NaN(), -1, 0.5}}, Hi: 1}
	_, data := h.view()
	v := data.(*heatView)
	if len(v.Cells) != 5 {
		t.Fatalf("%d cells, want 5: what is not a number has none", len(v.Cells))
	}
	if v.Cells[1].Fill != v.Cells[2].Fill || v.Cells[0].Fill != v.Cells[3].Fill || v.Cells[0].Fill == v.Cells[4].Fill {
		t.Errorf("colours %v", v.Cells)
	}
	if got := v.Cells[4].Tip; got != "k, layer 2: 0.5" {
		t.Errorf("tip %q", got)
	}
	if Shade(0) != "#2c1656" || Shade(1) != "#f0de46" || Shade(math.Nextafter(1, 0)) != Shade(1) {
		t.Errorf("ends %s %s", Shade(0), Shade(1))
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		a    axis
		n    int
		want []float64
	}{
		{axis{0, 10}, 5, []float64{0, 2, 4, 6, 8, 10}},
		{axis{0.95, 1.01}, 6, []float64{0.95, 0.96, 0.97, 0.98, 0.99, 1, 1.01}},
		{axis{-1, 1}, 4, []float64{-1, -0.5, 0, 0.5, 1}},
	} {
		got := c.a.ticks(c.n)
		if len(got) != len(c.want) {
			t.Errorf("ticks of %v: %v", c.a, got)
			continue
		}
		for i := range got {
			if math.Abs(got[i]-c.want[i]) > 1e-9 {
				t.Errorf("ticks of %v: %v, want %v", c.a, got, c.want)
			}
		}
	}
	for _, s := range [][]float64{nil, {1}, {math.NaN(), 1}, {2, 2}} {
		_, data := (&Chart{Series: []Series{{X: s, Y: s}}}).view()
		for _, l := range data.(*chartView).Lines {
			if strings.Contains(l.Path, "NaN") || strings.Contains(l.Path, "Inf") {
				t.Errorf("the line of %v is %q", s, l.Path)
			}
		}
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.html")
	if err := sample().WriteFile(path, false); err != nil {
		t.Fatal(err)
	}
	if err := sample().WriteFile(path, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing over a file: %v", err)
	}
	if err := sample().WriteFile(path, true); err != nil {
		t.Error(err)
	}
}
