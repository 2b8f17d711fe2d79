package optim

// sgd is torch.optim.SGD: weight decay added to the gradient, momentum with
// dampening (which the first step leaves out), Nesterov's form.
//
//	g = g + wd·θ
//	buf = μ·buf + (1−dampening)·g      (first step: buf = g)
//	θ = θ − lr·buf                     (Nesterov: θ − lr·(g + μ·buf))
type sgd struct {
	set    Settings
	params []Param
	step   int64
	buf    slots
}

func newSGD(s Settings, params []Param) Optimizer {
	return &sgd{set: s, params: params, buf: newSlots("momentum_buffer", params, whole)}
}

func (o *sgd) State() State { return saveSlots(o.step, o.params, o.buf) }

func (o *sgd) Load(st State) error {
	step, err := loadSlots(st, o.params, o.buf)
	if err == nil {
		o.step = step
	}
	return err
}

func (o *sgd) Step(lr float64) {
	o.step++
	wd, mu, damp := float32(o.set.WeightDecay), float32(o.set.Momentum), float32(1-o.set.Dampening)
	for i := range o.params {
		p, buf := &o.params[i], o.buf.data[i]
		rate := float32(lr * p.Rate)
		for j, g := range p.Grad {
			g += float32(wd * p.Value[j])
			if o.set.Momentum != 0 {
				if o.step == 1 {
					buf[j] = g
				} else {
					buf[j] = float32(mu*buf[j]) + float32(damp*g)
				}
				if o.set.Nesterov {
					g += float32(mu * buf[j])
				} else {
					g = buf[j]
				}
			}
			p.Value[j] -= float32(rate * g)
		}
	}
}
