package optim

import (
	"math"

	"github.com/graft-lora/graft/internal/fmath"
	"github.com/graft-lora/graft/internal/kernel"
)

// adamW is torch.optim.AdamW without its options:
//
//	t += 1
//	θ = θ·(1 − lr·wd)
//	m = m + (1−β1)·(g − m)
//	v = β2·v + (1−β2)·g·g
//	θ = θ − lr/(1−β1^t) · m / (√v/√(1−β2^t) + ε)
//
// Scalars are computed in float64 and rounded to float32 where they meet a tensor.
type adamW struct {
	set    Settings
	params []Param
	step   int64
	m, v   slots
}

func newAdamW(s Settings, params []Param) Optimizer {
	return &adamW{set: s, params: params, m: newSlots("exp_avg", params, whole), v: newSlots("exp_avg_sq", params, whole)}
}

func (o *adamW) State() State { return saveSlots(o.step, o.params, o.m, o.v) }

func (o *adamW) Load(st State) (err error) {
	step, err := loadSlots(st, o.params, o.m, o.v)
	if err == nil {
		o.step = step
	}
	return err
}

func (o *adamW) Step(lr float64) {
	o.step++
	t := float64(o.step)
	s := kernel.AdamWStep{
		W1: float32(1 - o.set.Beta1), B2: float32(o.set.Beta2), W2: float32(1 - o.set.Beta2), Eps: float32(o.set.Eps),
		Root2: float32(math.Sqrt(1 - fmath.Pow(o.set.Beta2, t))),
	}
	correct1 := 1 - fmath.Pow(o.set.Beta1, t)
	for i := range o.params {
		p := &o.params[i]
		rate := lr * p.Rate
		s.Keep = float32(1 - float64(rate*o.set.WeightDecay))
		s.Size = float32(rate / correct1)
		kernel.AdamW(p.Value, o.m.data[i], o.v.data[i], p.Grad, s)
	}
}
