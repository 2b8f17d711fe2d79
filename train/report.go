package train

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/internal/htmlreport"
	"go.yaml.in/yaml/v3"
)

// reportPath is where the report goes.
func (c *Config) reportPath() string {
	if c.Report != "" {
		return c.Report
	}
	return filepath.Join(c.Output, ReportFile)
}

// writeReport writes the report of the log so far.
func (r *runner) writeReport() error {
	lines, err := ReadLog(filepath.Join(r.cfg.Output, LogFile))
	if err != nil {
		return err
	}
	return r.report(lines).WriteFile(r.cfg.reportPath(), true)
}

// points are a line of a chart under construction.
type points struct{ x, y []float64 }

func (p *points) add(x int, y float64) { p.x, p.y = append(p.x, float64(x)), append(p.y, y) }

func (p *points) series(name string) htmlreport.Series {
	return htmlreport.Series{Name: name, X: p.x, Y: p.y}
}

// report is the page of a run: its curves, how the adapter grew, and what it answered.
func (r *runner) report(lines []LogLine) *htmlreport.Page {
	c := &r.cfg
	page := &htmlreport.Page{
		Title: c.title() + " on " + filepath.Base(c.Base),
		Foot:  "graft train, version " + Version(),
		Facts: []htmlreport.Fact{{Name: "steps", Value: fmt.Sprintf("%d of %d", r.state.Step, r.steps), Large: true}},
	}
	var loss, smooth, held, rate, norm, speed, pace, hard, kl, heldKL, right, chosen, rejected, router points
	var s state
	average := 0.0
	for _, l := range lines {
		if l.Eval != nil {
			held.add(l.Step, l.Eval.Loss)
			if d := l.Eval.Distill; d != nil {
				heldKL.add(l.Step, d.KL)
			}
		}
		if !l.isStep() {
			continue
		}
		s.Step++
		s.smooth(l.Loss)
		loss.add(l.Step, l.Loss)
		smooth.add(l.Step, s.Smooth)
		rate.add(l.Step, *l.LR)
		norm.add(l.Step, l.GradNorm)
		if t := l.Timing; t != nil {
			speed.add(l.Step, t.TokensPerSecond)
			if average == 0 {
				average = t.TokensPerSecond
			}
			average += float64(0.1 * (t.TokensPerSecond - average))
			pace.add(l.Step, average)
		}
		if l.Router != 0 {
			router.add(l.Step, l.Router)
		}
		if d := l.Distill; d != nil {
			hard.add(l.Step, d.CrossEntropy)
			kl.add(l.Step, d.KL)
		}
		if p := l.Preferences; p != nil {
			right.add(l.Step, p.Accuracy)
			chosen.add(l.Step, p.Chosen)
			rejected.add(l.Step, p.Rejected)
		}
	}
	fact := func(name, value string, large bool) {
		page.Facts = append(page.Facts, htmlreport.Fact{Name: name, Value: value, Large: large})
	}
	if first, last := r.state.EvalFirst, r.state.EvalLast; first != nil && last != nil {
		fact("held-out loss", fmt.Sprintf("%.4f → %.4f", first.Loss, last.Loss), true)
	} else if len(smooth.y) > 0 {
		fact("loss", fmt.Sprintf("%.4f → %.4f", loss.y[0], smooth.y[len(smooth.y)-1]), true)
	}
	if len(pace.y) > 0 {
		fact("tokens a second", fmt.Sprintf("%.0f", pace.y[len(pace.y)-1]), true)
	}
	fact("trained numbers", fmt.Sprintf("%d in %d matrices%s", r.lora.total, len(r.lora.names), r.tokensText()), false)
	fact("sequences", fmt.Sprintf("%d to train on, %d held out", len(r.train), r.heldAll), false)
	fact("tokens so far", fmt.Sprintf("%d, of which %d trained", r.state.Tokens, r.state.Trained), false)
	if b := r.state.Best; b != nil {
		fact("best evaluation", fmt.Sprintf("step %d, loss %.4f", r.state.BestStep, b.Loss), false)
	}
	fact("peak memory", fmt.Sprintf("%.1f MiB", float64(memory().peak)/(1<<20)), false)
	for _, n := range r.notes {
		fact("note", n, false)
	}

	chart := func(y string, list ...htmlreport.Series) *htmlreport.Chart {
		out := &htmlreport.Chart{XLabel: "step", YLabel: y}
		for _, s := range list {
			if len(s.X) > 0 {
				out.Series = append(out.Series, s)
			}
		}
		return out
	}
	each := loss.series("step")
	each.Faint = true
	out := held.series("held out")
	out.Dots = true
	unit := "nats per token"
	if len(right.x) > 0 {
		unit = "per example"
	}
	page.Sections = append(page.Sections, htmlreport.Section{Heading: "Loss", Parts: []htmlreport.Part{chart("loss ("+unit+")", each, smooth.series("moving average"), out)}})
	if len(right.x) > 0 {
		page.Sections = append(page.Sections, htmlreport.Section{Heading: "Preferences", Parts: []htmlreport.Part{
			chart("part ranked right", right.series("step")), chart("mean reward", chosen.series("chosen"), rejected.series("rejected"))}})
	}
	if len(kl.x) > 0 {
		d := heldKL.series("divergence, held out")
		d.Dots = true
		page.Sections = append(page.Sections, htmlreport.Section{Heading: "Teacher", Words: []string{"The divergence is that from the teacher's predictions at the temperature of the run."},
			Parts: []htmlreport.Part{chart("nats per token", kl.series("divergence"), hard.series("plain loss"), d)}})
	}
	if len(router.x) > 0 {
		page.Sections = append(page.Sections, htmlreport.Section{Heading: "Routers", Words: []string{fmt.Sprintf(
			"How unevenly experts are used: %d where they are used evenly. %v times this is added to the loss.", r.base.Model.MoE.Used, c.RouterLoss)},
			Parts: []htmlreport.Part{chart("loss of routers", router.series("step"))}})
	}
	fast := speed.series("step")
	fast.Faint = true
	page.Sections = append(page.Sections, htmlreport.Section{Heading: "Rate, gradient, speed", Parts: []htmlreport.Part{
		chart("learning rate", rate.series("rate")), chart("gradient norm before clipping", norm.series("norm")),
		chart("tokens a second", fast, pace.series("moving average"))}})
	if g := growthSection(lines); g != nil {
		page.Sections = append(page.Sections, *g)
	}
	if s := samplesSection(lines); s != nil {
		page.Sections = append(page.Sections, *s)
	}
	if text, err := yaml.Marshal(c); err == nil {
		page.Sections = append(page.Sections, htmlreport.Section{Heading: "Settings", Parts: []htmlreport.Part{htmlreport.Pre(text)}})
	}
	return page
}

// layerAndKind divides the name of a matrix: "blk.3.attn_q.weight" is layer 3's attn_q.
func layerAndKind(name string) (layer int, kind string) {
	parts := strings.Split(strings.TrimSuffix(name, ".weight"), ".")
	if len(parts) > 2 && parts[0] == "blk" {
		if n, err := strconv.Atoi(parts[1]); err == nil {
			return n, strings.Join(parts[2:], ".")
		}
	}
	return -1, strings.Join(parts, ".")
}

// growthSection shows how large the adapter's changes are, by kind of matrix over the
// steps, and of each matrix at the end.
func growthSection(lines []LogLine) *htmlreport.Section {
	var last map[string]float64
	kinds := map[string]*points{}
	var order []string
	layers := 0
	for _, l := range lines {
		if l.Growth == nil {
			continue
		}
		last = l.Growth
		squares := map[string]float64{}
		for name, v := range l.Growth {
			layer, kind := layerAndKind(name)
			squares[kind] += float64(v * v)
			layers = max(layers, layer+1)
		}
		for kind, v := range squares {
			if kinds[kind] == nil {
				kinds[kind] = &points{}
				order = append(order, kind)
			}
			kinds[kind].add(l.Step, math.Sqrt(v))
		}
	}
	if last == nil {
		return nil
	}
	slices.Sort(order)
	// The lines are as many as there are colours: those that came to be the largest.
	size := func(kind string) float64 { y := kinds[kind].y; return y[len(y)-1] }
	largest := slices.Clone(order)
	slices.SortStableFunc(largest, func(a, b string) int { return int(math.Copysign(1, size(b)-size(a))) })
	lineChart := &htmlreport.Chart{XLabel: "step", YLabel: "norm of the change"}
	for _, kind := range largest[:min(6, len(largest))] {
		lineChart.Series = append(lineChart.Series, kinds[kind].series(kind))
	}
	sec := &htmlreport.Section{Heading: "How the adapter grew",
		Words: []string{"The size of a change is the Frobenius norm of scale·B·A. The lines take all layers of a kind together; the map has each matrix as it is at the end."},
		Parts: []htmlreport.Part{lineChart}}
	m := &htmlreport.HeatMap{RowsName: "matrix", ColsName: "layer", LegendLow: "unchanged", LegendHi: "changed most"}
	for i := range layers {
		m.Cols = append(m.Cols, strconv.Itoa(i))
	}
	for _, kind := range order {
		row := make([]float64, layers)
		found := false
		for i := range row {
			row[i] = math.NaN()
			for _, name := range []string{fmt.Sprintf("blk.%d.%s.weight", i, kind), fmt.Sprintf("blk.%d.%s", i, kind)} {
				if v, ok := last[name]; ok {
					row[i], found = v, true
					m.Hi = max(m.Hi, v)
				}
			}
		}
		if found {
			m.Rows, m.Values = append(m.Rows, kind), append(m.Values, row)
		}
	}
	if len(m.Rows) > 0 && m.Hi > 0 {
		sec.Parts = append(sec.Parts, m)
	}
	return sec
}

// samplesSection shows what the model answered to each prompt, evaluation by evaluation.
func samplesSection(lines []LogLine) *htmlreport.Section {
	tables := map[string]*htmlreport.Table{}
	sec := &htmlreport.Section{Heading: "Answers on the way", Words: []string{"The most likely token each time, with the adapter as it was after the step."}}
	for _, l := range lines {
		for _, s := range l.Samples {
			t := tables[s.Prompt]
			if t == nil {
				t = &htmlreport.Table{Caption: s.Prompt, Columns: []htmlreport.Column{{Name: "step", Number: true}, {Name: "answer"}}}
				tables[s.Prompt] = t
				sec.Parts = append(sec.Parts, t)
			}
			text := s.Text
			if !s.Stopped {
				text += " …"
			}
			t.Rows = append(t.Rows, htmlreport.Texts(strconv.Itoa(l.Step), text))
		}
	}
	if len(sec.Parts) == 0 {
		return nil
	}
	return sec
}
