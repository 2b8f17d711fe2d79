package train

import (
	"bytes"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Curve draws the loss over the steps of a log as an SVG: each step, the moving
// average, and the evaluations.
func Curve(lines []LogLine, title string) ([]byte, error) {
	var raw, smooth, eval plotter.XYs
	var s state
	for _, l := range lines {
		if l.Eval != nil {
			eval = append(eval, plotter.XY{X: float64(l.Step), Y: l.Eval.Loss})
		}
		if !l.isStep() {
			continue
		}
		s.Step++
		s.smooth(l.Loss)
		raw = append(raw, plotter.XY{X: float64(l.Step), Y: l.Loss})
		smooth = append(smooth, plotter.XY{X: float64(l.Step), Y: s.Smooth})
	}
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text, p.Y.Label.Text = "step", "loss (nats per token)"
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	for _, c := range []struct {
		name  string
		data  plotter.XYs
		color color.RGBA
		width vg.Length
		dots  bool
	}{
		{"step", raw, color.RGBA{0xa6, 0xc8, 0xe4, 0xff}, 1, false},
		{"moving average", smooth, color.RGBA{0x1f, 0x6f, 0xb4, 0xff}, 2, false},
		{"held out", eval, color.RGBA{0xd6, 0x5f, 0x0e, 0xff}, 1.5, true},
	} {
		if len(c.data) == 0 {
			continue
		}
		line, points, err := plotter.NewLinePoints(c.data)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = c.color, c.width
		points.Color, points.Shape, points.Radius = c.color, draw.CircleGlyph{}, 3
		if c.dots {
			p.Add(line, points)
			p.Legend.Add(c.name, line, points)
		} else {
			p.Add(line)
			p.Legend.Add(c.name, line)
		}
	}
	canvas := vgsvg.New(8*vg.Inch, 4.5*vg.Inch)
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return b.Bytes(), err
}
