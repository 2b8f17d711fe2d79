package model

// Operations are the floating-point operations of passes by the kind of work, a fused
// multiply-add counted as two. The work on rows is not counted.
type Operations [works]float64

// Total adds up all kinds.
func (o Operations) Total() (sum float64) {
	for _, n := range o {
		sum += n
	}
	return sum
}

func (o *Operations) add(p Operations, times float64) {
	for w := range o {
		o[w] += times * p[w]
	}
}

// Costs are what passes cost, see [Model.Costs].
type Costs struct {
	token, trained Operations      // for each token, and for each whose loss is wanted
	seen           map[int]float64 // by window: for each key that a query sees
}

// Costs are the operations that passes need with an adapter whose pairs have ranks, by
// matrix, and opt's KeepLayers and KeepAttention: those of LossAndGrad if backward is
// set, else those of Loss. What masks hide and what a recomputation leaves out is not
// counted. Of a mixture the experts count that a token uses.
func (m *Model) Costs(ranks map[string]int, opt Options, backward bool) *Costs {
	n := len(m.layers)
	if opt.KeepLayers < 0 || opt.KeepLayers >= n {
		opt.KeepLayers = n - 1
	}
	lowest := n
	if backward {
		lowest = m.lowestOf(trainedIn(ranks))
	}
	c := &Costs{seen: map[int]float64{}}
	for i := range m.layers {
		l := &m.layers[i]
		again := i >= lowest && i < n-1-opt.KeepLayers
		below := i > lowest || i == lowest && trainedIn(ranks)(m.embed)
		for _, w := range l.linears() {
			used := 1.
			if w.stacked {
				used = float64(m.MoE.Used) / float64(m.MoE.Experts)
			}
			product, up, down := w.operations(ranks)
			c.token.add(product, used)
			if again {
				if w.leads(l) && l.postFFN == nil {
					product[Frozen] = 0 // its output is not wanted again
				}
				c.token.add(product, used)
			}
			if i < lowest {
				continue
			}
			c.token[LowRank] += used * (2*up + down)
			if below || !w.enters(l) {
				c.token[Frozen] += used * 2 * float64(w.in) * float64(w.out)
				c.token[LowRank] += used * down
			}
		}
		pair := 2 * float64(m.Heads)
		attention := pair * float64(m.KeyDim+m.ValDim)
		if again && !opt.KeepAttention {
			attention *= 2
		}
		if i >= lowest {
			attention += pair * float64(3*m.KeyDim+2*m.ValDim)
		}
		c.seen[m.Layers[i].Window] += attention
	}
	product, up, down := m.head.operations(ranks)
	c.trained.add(product, 1)
	if backward {
		c.trained[LowRank] += 2*up + down
		if lowest < n || trainedIn(ranks)(m.embed) {
			c.trained[Frozen] += 2 * float64(m.head.in) * float64(m.head.out)
			c.trained[LowRank] += down
		}
	}
	return c
}

// operations are those of the product of a token with l, and of one with each half of its pair.
func (l *linear) operations(ranks map[string]int) (product Operations, up, down float64) {
	r := float64(ranks[l.name])
	up, down = 2*r*float64(l.out), 2*r*float64(l.in)
	product[Frozen] = 2*float64(l.in)*float64(l.out) + up // the same product takes the pair's output with it
	product[LowRank] = down
	return product, up, down
}

// enters says whether w takes the input of layer l: below it nothing may want a gradient.
func (w *linear) enters(l *layer) bool { return w == l.qkv || w == l.q || w == l.k || w == l.v }

// leads says whether w gives nothing but the output of layer l's feed-forward.
func (w *linear) leads(l *layer) bool {
	return w == l.down || l.moe != nil && w.stacked && w.name == l.moe.down[0].name
}

// Of is what a pass over sequences of lens tokens costs, of which trained tokens' losses
// are wanted.
func (c *Costs) Of(lens []int, trained int) (o Operations) {
	o.add(c.trained, float64(trained))
	for _, n := range lens {
		o.add(c.token, float64(n))
		for window, each := range c.seen {
			o[Attention] += each * seenIn(n, window)
		}
	}
	return o
}

// seenIn is how many keys all queries of a sequence of n tokens see in all.
func seenIn(n, window int) float64 {
	if window == 0 || window > n {
		window = n
	}
	w := float64(window)
	return w*(w+1)/2 + float64(n-window)*w
}
