package htmlreport

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Chart draws lines over a common axis. Points whose numbers are not finite break
// their line.
type Chart struct {
	Caption        string
	XLabel, YLabel string
	Series         []Series
	// YLo and YHi bound what is shown, when one is above the other: else the points do.
	YLo, YHi float64
}

// Series is a line of a chart.
type Series struct {
	Name  string
	X, Y  []float64
	Dots  bool // its points are marked, and each tells its numbers
	Faint bool // drawn behind, thin
}

const (
	chartWidth, chartHeight = 720, 300
	plotLeft, plotRight     = 64, 12
	plotTop, plotBottom     = 12, 44
	seriesColours           = 6 // that page.html has
)

type lineView struct {
	Path  string
	Class string
	Dots  []dotView
	Name  string
}

type dotView struct {
	X, Y float64
	Tip  string
}

type chartView struct {
	*Chart
	W, H, Left, Right, Top, Bottom, MidX, MidY int
	Lines                                      []lineView
	XTicks, YTicks                             []labelView
}

func (c *Chart) view() (string, any) {
	v := &chartView{Chart: c, W: chartWidth, H: chartHeight, Left: plotLeft, Right: chartWidth - plotRight, Top: plotTop, Bottom: chartHeight - plotBottom}
	v.MidX, v.MidY = (v.Left+v.Right)/2, (v.Top+v.Bottom)/2
	x, y := newAxis(), newAxis()
	for _, s := range c.Series {
		for i := range min(len(s.X), len(s.Y)) {
			if finite(s.X[i]) && finite(s.Y[i]) {
				x.see(s.X[i])
				y.see(s.Y[i])
			}
		}
	}
	if c.YHi > c.YLo {
		y = axis{c.YLo, c.YHi}
	} else {
		y = y.wider()
	}
	x = x.orUnit()
	px := func(a float64) float64 {
		return round(float64(v.Left) + float64((a-x.lo)/(x.hi-x.lo)*float64(v.Right-v.Left)))
	}
	py := func(a float64) float64 {
		at := float64(v.Bottom) - float64((a-y.lo)/(y.hi-y.lo)*float64(v.Bottom-v.Top))
		return round(min(max(at, float64(v.Top)), float64(v.Bottom)))
	}
	for _, t := range x.ticks(8) {
		v.XTicks = append(v.XTicks, labelView{px(t), float64(v.Bottom), number(t)})
	}
	for _, t := range y.ticks(6) {
		v.YTicks = append(v.YTicks, labelView{float64(v.Left), py(t), number(t)})
	}
	for k, s := range c.Series {
		l := lineView{Name: s.Name, Class: fmt.Sprintf("c%d", k%seriesColours)}
		if s.Faint {
			l.Class += " faint"
		}
		var path strings.Builder
		pen := "M"
		for i := range min(len(s.X), len(s.Y)) {
			if !finite(s.X[i]) || !finite(s.Y[i]) {
				pen = "M"
				continue
			}
			fmt.Fprintf(&path, "%s%s %s", pen, number(px(s.X[i])), number(py(s.Y[i])))
			pen = "L"
			if s.Dots {
				l.Dots = append(l.Dots, dotView{px(s.X[i]), py(s.Y[i]), fmt.Sprintf("%s: %s %s, %s %s", s.Name, c.XLabel, number(s.X[i]), c.YLabel, number(s.Y[i]))})
			}
		}
		l.Path = path.String()
		v.Lines = append(v.Lines, l)
	}
	return "chart", v
}

// axis is a range of numbers.
type axis struct{ lo, hi float64 }

func newAxis() axis { return axis{math.Inf(1), math.Inf(-1)} }

func (a *axis) see(x float64) { a.lo, a.hi = min(a.lo, x), max(a.hi, x) }

// orUnit is a, or a range about its only point.
func (a axis) orUnit() axis {
	switch {
	case a.lo > a.hi:
		return axis{0, 1}
	case a.lo == a.hi:
		return axis{a.lo - 0.5, a.hi + 0.5}
	}
	return a
}

// wider is a with a margin.
func (a axis) wider() axis {
	a = a.orUnit()
	d := (a.hi - a.lo) / 20
	return axis{a.lo - d, a.hi + d}
}

// ticks are round numbers within a, about n of them.
func (a axis) ticks(n int) []float64 {
	const little = 1e-9 // that rounding may take
	step := math.Pow(10, math.Floor(math.Log10((a.hi-a.lo)/float64(n))))
	for _, f := range []float64{1, 2, 5, 10} {
		if (a.hi-a.lo)/(f*step) <= float64(n)+little {
			step *= f
			break
		}
	}
	var out []float64
	for i := math.Ceil(a.lo/step - little); i <= a.hi/step+little; i++ {
		out = append(out, float64(i*step)+0) // no -0
	}
	return out
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func round(x float64) float64 { return math.Round(x*100) / 100 }

// number prints x with as many digits as it needs, six at most.
func number(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }
