package optim

import "math"

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
	return &adamW{set: s, params: params, m: newSlots("exp_avg", params), v: newSlots("exp_avg_sq", params)}
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
	correct1 := 1 - math.Pow(o.set.Beta1, t)
	correct2 := float32(math.Sqrt(1 - math.Pow(o.set.Beta2, t)))
	w1 := float32(1 - o.set.Beta1)
	b2, w2 := float32(o.set.Beta2), float32(1-o.set.Beta2)
	eps := float32(o.set.Eps)
	for i := range o.params {
		p := &o.params[i]
		rate := lr * p.Rate
		keep := float32(1 - float64(rate*o.set.WeightDecay))
		size := float32(rate / correct1)
		adamWTensor(p.Value, p.Grad, o.m.data[i], o.v.data[i], keep, w1, b2, w2, correct2, eps, size)
	}
}

func adamWTensor(theta, grad, m, v []float32, keep, w1, b2, w2, correct2, eps, size float32) {
	grad, m, v = grad[:len(theta)], m[:len(theta)], v[:len(theta)]
	for i, g := range grad {
		mi := m[i] + float32(w1*(g-m[i]))
		vi := float32(b2*v[i]) + float32(float32(w2*g)*g)
		m[i], v[i] = mi, vi
		denom := float32(math.Sqrt(float64(vi)))/correct2 + eps
		theta[i] = float32(theta[i]*keep) - float32(size*(mi/denom))
	}
}
