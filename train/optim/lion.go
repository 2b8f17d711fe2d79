package optim

// lion is algorithm 2 of arXiv 2302.06675:
//
//	c = β1·m + (1−β1)·g
//	θ = θ·(1 − lr·wd) − lr·sign(c)     (sign(0) = 0)
//	m = β2·m + (1−β2)·g
type lion struct {
	set    Settings
	params []Param
	step   int64
	m      slots
}

func newLion(s Settings, params []Param) Optimizer {
	return &lion{set: s, params: params, m: newSlots("exp_avg", params, whole)}
}

func (o *lion) State() State { return saveSlots(o.step, o.params, o.m) }

func (o *lion) Load(st State) error {
	step, err := loadSlots(st, o.params, o.m)
	if err == nil {
		o.step = step
	}
	return err
}

func (o *lion) Step(lr float64) {
	o.step++
	b1, w1 := float32(o.set.Beta1), float32(1-o.set.Beta1)
	b2, w2 := float32(o.set.Beta2), float32(1-o.set.Beta2)
	for i := range o.params {
		p, m := &o.params[i], o.m.data[i]
		rate := float32(lr * p.Rate)
		keep := float32(1 - float64(lr*p.Rate*o.set.WeightDecay))
		for j, g := range p.Grad {
			c := float32(b1*m[j]) + float32(w1*g)
			theta := float32(p.Value[j] * keep)
			switch {
			case c > 0:
				theta -= rate
			case c < 0:
				theta += rate
			}
			p.Value[j] = theta
			m[j] = float32(b2*m[j]) + float32(w2*g)
		}
	}
}
