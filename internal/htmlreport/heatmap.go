package htmlreport

import (
	"fmt"
	"math"
)

// HeatMap shows a number for each pair of a row and a column as a colour. The colours go
// from dark blue (Lo) over green to yellow (Hi) and grow lighter on the way, so that they are told
// apart without colour vision too; what is beyond Lo and Hi has the colour of the end, and
// what is missing is left empty. Hovering over a cell shows its number.
type HeatMap struct {
	Caption   string
	RowsName  string // what rows are: "tensor"
	ColsName  string // what columns are: "layer"
	Rows      []string
	Cols      []string
	Values    [][]float64 // by row and column; NaN where there is none
	Lo, Hi    float64
	Form      string     // of a number, for fmt; "%.3g" if ""
	Tips      [][]string // more to be said of each cell, or nil
	LegendLow string     // what Lo means: "lost"
	LegendHi  string
}

const (
	cellWidth, cellHeight = 22, 22
	headHeight            = 40
	letterWidth           = 7.2 // of the labels, about
)

// cellView is a cell where it stands.
type cellView struct {
	X, Y  int
	Fill  string
	Tip   string
	Value float64
}

type labelView struct {
	X, Y float64
	Text string
}

// heatView is a heat map with places in pixels.
type heatView struct {
	*HeatMap
	Width, Height int
	CellW, CellH  int
	Left          int
	Middle        int
	Cells         []cellView
	RowLabels     []labelView
	ColLabels     []labelView
	Steps         []cellView // of the legend
	LoText        string
	HiText        string
}

func (h *HeatMap) view() (string, any) {
	longest := 0
	for _, r := range h.Rows {
		longest = max(longest, len([]rune(r)))
	}
	v := &heatView{HeatMap: h, CellW: cellWidth - 2, CellH: cellHeight - 2, Left: int(float64(longest)*letterWidth) + 12}
	v.Width = v.Left + len(h.Cols)*cellWidth + 8
	v.Height = headHeight + len(h.Rows)*cellHeight + 4
	v.Middle = v.Left + len(h.Cols)*cellWidth/2
	// Labels of columns that would touch are left out.
	every := 1
	for _, c := range h.Cols {
		every = max(every, int(math.Ceil((float64(float64(len([]rune(c)))*letterWidth)+4)/cellWidth)))
	}
	for j, c := range h.Cols {
		if j%every == 0 {
			v.ColLabels = append(v.ColLabels, labelView{float64(v.Left + j*cellWidth + v.CellW/2), headHeight - 6, c})
		}
	}
	for i, r := range h.Rows {
		y := headHeight + i*cellHeight
		v.RowLabels = append(v.RowLabels, labelView{float64(v.Left - 8), float64(y) + 14.5, r})
		for j := range min(len(h.Cols), len(h.Values[i])) {
			x := h.Values[i][j]
			if math.IsNaN(x) || math.IsInf(x, 0) {
				continue
			}
			tip := fmt.Sprintf("%s, %s %s: %s", r, h.ColsName, h.Cols[j], h.form(x))
			if h.Tips != nil && h.Tips[i][j] != "" {
				tip += "\n" + h.Tips[i][j]
			}
			v.Cells = append(v.Cells, cellView{X: v.Left + j*cellWidth, Y: y, Fill: h.fill(x), Tip: tip, Value: x})
		}
	}
	const steps = 24
	for i := range steps {
		x := h.Lo + (h.Hi-h.Lo)*float64(i)/(steps-1)
		v.Steps = append(v.Steps, cellView{X: 8 * i, Fill: h.fill(x)})
	}
	v.LoText, v.HiText = number(h.Lo), number(h.Hi)
	if h.LegendLow != "" {
		v.LoText += " " + h.LegendLow
	}
	if h.LegendHi != "" {
		v.HiText += " " + h.LegendHi
	}
	return "heat", v
}

func (h *HeatMap) form(x float64) string {
	f := h.Form
	if f == "" {
		f = "%.3g"
	}
	return fmt.Sprintf(f, x)
}

func (h *HeatMap) fill(x float64) string {
	t := 1.0
	if h.Hi != h.Lo {
		t = (x - h.Lo) / (h.Hi - h.Lo)
	}
	return Shade(t)
}

// anchors are colours of equal distance on the scale, lightness rising from end to end.
var anchors = [][3]float64{{44, 22, 86}, {49, 71, 140}, {33, 119, 140}, {34, 160, 124}, {122, 196, 76}, {240, 222, 70}}

// Shade is the colour of a share between 0 and 1 on the scale of heat maps, as CSS has it.
func Shade(t float64) string {
	t = float64(min(max(t, 0), 1) * float64(len(anchors)-1))
	i := min(int(t), len(anchors)-2)
	t -= float64(i)
	var c [3]int
	for k := range c {
		c[k] = int(math.Round(anchors[i][k] + float64(t*(anchors[i+1][k]-anchors[i][k]))))
	}
	return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2])
}
