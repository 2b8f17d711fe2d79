package optim

import (
	"math"

	"github.com/graft-lora/graft/internal/fmath"
)

// adafactor is torch.optim.Adafactor (Shazeer and Stern 2018, arXiv 1804.04235): the
// second moment of a matrix is kept as its row and column means.
//
//	w = t^−0.8, ρ = min(lr, 1/√t), α = max(1e-3, rms(θ))·ρ
//	θ = θ·(1 − lr·wd)
//	r = r + w·(mean over the row of g² − r), c likewise over columns
//	v = r·cᵀ / mean(r)                        (a vector: v = v + w·(g² − v))
//	u = g/√v,  θ = θ − α/max(1, rms(u))·u
//
// Means are summed in float64 and rounded.
type adafactor struct {
	set    Settings
	params []Param
	step   int64
	row    slots // Rows; for a vector nothing
	col    slots // Cols: for a vector the whole second moment
}

// Constants that torch has as defaults: the least of a mean, and of a parameter's size.
const (
	adafactorDecay = -0.8
	adafactorEps1  = 0x1p-23
	adafactorEps2  = 1e-3
)

func newAdafactor(s Settings, params []Param) Optimizer {
	return &adafactor{set: s, params: params,
		row: newSlots("row_var", params, func(p *Param) int {
			if p.Rows == 1 {
				return 0
			}
			return p.Rows
		}),
		col: newSlots("col_var", params, func(p *Param) int { return p.Cols })}
}

func (o *adafactor) State() State { return saveSlots(o.step, o.params, o.row, o.col) }

func (o *adafactor) Load(st State) error {
	step, err := loadSlots(st, o.params, o.row, o.col)
	if err == nil {
		o.step = step
	}
	return err
}

func (o *adafactor) Step(lr float64) {
	o.step++
	t := float64(o.step)
	w := float32(fmath.Pow(t, adafactorDecay))
	for i := range o.params {
		p := &o.params[i]
		rate := lr * p.Rate
		alpha := math.Max(adafactorEps2, rms(p.Value)) * math.Min(rate, 1/math.Sqrt(t))
		keep := float32(1 - float64(rate*o.set.WeightDecay))
		row, col := o.row.data[i], o.col.data[i]
		o.moments(p, row, col, w)
		mean := float32(1)
		if len(row) > 0 {
			sum := 0.0
			for _, r := range row {
				sum += float64(r)
			}
			mean = max(float32(sum/float64(len(row))), adafactorEps1)
		}
		// The update takes the gradient's place, which nobody needs any more.
		for k, g := range p.Grad {
			v := col[k%p.Cols]
			if len(row) > 0 {
				v = float32(row[k/p.Cols]*v) / mean
			}
			v = max(v, adafactorEps1*adafactorEps1)
			p.Grad[k] = float32(1/math.Sqrt(float64(v))) * g
		}
		size := float32(alpha / math.Max(1, rms(p.Grad)))
		for k, u := range p.Grad {
			p.Value[k] = float32(p.Value[k]*keep) - float32(size*u)
		}
	}
}

// moments takes the gradient into the row and column means.
func (o *adafactor) moments(p *Param, row, col []float32, w float32) {
	cols := make([]float64, p.Cols)
	for r := range p.Rows {
		sum := 0.0
		for c, g := range p.Grad[r*p.Cols : (r+1)*p.Cols] {
			sq := float64(float64(g) * float64(g))
			sum += sq
			cols[c] += sq
		}
		if len(row) > 0 {
			row[r] += float32(w * (float32(sum/float64(p.Cols)) - row[r]))
		}
	}
	for c := range col {
		col[c] += float32(w * (float32(cols[c]/float64(p.Rows)) - col[c]))
	}
}

// rms is the root of the mean square.
func rms(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(float64(v) * float64(v))
	}
	return math.Sqrt(sum / float64(max(1, len(x))))
}
