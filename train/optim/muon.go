package optim

import (
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// muon is torch.optim.Muon (Jordan et al. 2024) with its iteration in float32: the
// momentum of a matrix is made orthogonal before it is taken off.
//
//	buf = buf + (1−μ)·(g − buf)
//	u = NewtonSchulz(Nesterov: g + μ·(buf − g), else buf)
//	θ = θ·(1 − lr·wd) − lr·s·u,   s = √max(1, rows/cols), or 0.2·√max(rows, cols) to match AdamW's steps
type muon struct {
	set    Settings
	params []Param
	step   int64
	buf    slots
}

// The quintic of the iteration, and the least norm that is divided by.
const (
	muonA, muonB, muonC = 3.4445, -4.775, 2.0315
	muonSteps           = 5
	muonEps             = 1e-7
)

func newMuon(s Settings, params []Param) Optimizer {
	return &muon{set: s, params: params, buf: newSlots("momentum_buffer", params, whole)}
}

func (o *muon) State() State { return saveSlots(o.step, o.params, o.buf) }

func (o *muon) Load(st State) error {
	step, err := loadSlots(st, o.params, o.buf)
	if err == nil {
		o.step = step
	}
	return err
}

func (o *muon) Step(lr float64) {
	o.step++
	w, mu := float32(1-o.set.Momentum), float32(o.set.Momentum)
	for i := range o.params {
		p, buf := &o.params[i], o.buf.data[i]
		u := kernel.NewMat(p.Rows, p.Cols)
		for k, g := range p.Grad {
			buf[k] += float32(w * (g - buf[k]))
			u.Data[k] = buf[k]
			if o.set.Nesterov {
				// torch's lerp counts from the nearer end.
				u.Data[k] = buf[k] - float32((buf[k]-g)*(1-mu))
			}
		}
		u = orthogonal(u)
		rate := lr * p.Rate
		scale := math.Sqrt(math.Max(1, float64(p.Rows)/float64(p.Cols)))
		if o.set.MatchRMS {
			scale = 0.2 * math.Sqrt(float64(max(p.Rows, p.Cols)))
		}
		keep, size := float32(1-float64(rate*o.set.WeightDecay)), float32(rate*scale)
		for k := range p.Value {
			p.Value[k] = float32(p.Value[k]*keep) - float32(size*u.Data[k])
		}
	}
}

// orthogonal is the Newton-Schulz iteration X = a·X + (b·G + c·G²)·X with G = X·Xᵀ,
// from X of norm 1, on the side with fewer rows. It may use x's memory.
func orthogonal(x kernel.Mat) kernel.Mat {
	if x.Rows > x.Cols {
		return transpose(orthogonal(transpose(x)))
	}
	norm := float32(math.Max(rms(x.Data)*math.Sqrt(float64(len(x.Data))), muonEps))
	for k := range x.Data {
		x.Data[k] /= norm
	}
	g, gg := kernel.NewMat(x.Rows, x.Rows), kernel.NewMat(x.Rows, x.Rows)
	y := kernel.NewMat(x.Rows, x.Cols)
	for range muonSteps {
		kernel.GemmNT(nil, g, x, x, false)
		kernel.GemmNN(nil, gg, g, g, false)
		for k := range g.Data {
			g.Data[k] = float32(muonB*g.Data[k]) + float32(muonC*gg.Data[k])
		}
		kernel.GemmNN(nil, y, g, x, false)
		for k := range x.Data {
			x.Data[k] = float32(muonA*x.Data[k]) + y.Data[k]
		}
	}
	return x
}

func transpose(x kernel.Mat) kernel.Mat {
	t := kernel.NewMat(x.Cols, x.Rows)
	for i := range x.Rows {
		for j, v := range x.Row(i) {
			t.Data[j*t.Cols+i] = v
		}
	}
	return t
}
