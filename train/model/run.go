package model

import (
	"fmt"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// Loss is what a pass found.
type Loss struct {
	Sum    float64 // of the losses of the trained tokens (times their weights), in nats
	Tokens int     // how many there are
	// PerToken has each trained token's loss, without its weight, in the order of
	// the batch. It is valid until the model's next pass.
	PerToken []float32
	// RouterSum is, where Batch.Router asks for it, the sum over the trained tokens of the loss of
	// the routers in their sequences, how unevenly experts are used there: the number of experts
	// used by a token where use is even. It is not in Sum.
	RouterSum float64
	// Hard and Soft are the parts of PerToken where the batch has a teacher: the loss of
	// the targets, and the divergence from the teacher, neither weighted.
	Hard, Soft []float32
}

// Mean is Sum/Tokens, the loss as it is usually given; 0 without tokens.
func (l Loss) Mean() float64 {
	if l.Tokens == 0 {
		return 0
	}
	return l.Sum / float64(l.Tokens)
}

// Loss runs b forward with the adapters given and returns its loss.
func (m *Model) Loss(b *Batch, adapters ...Scaled) (Loss, error) {
	if err := m.begin(b, adapters, nil); err != nil {
		return Loss{}, err
	}
	m.runForward(nil)
	l := m.lossForward(b)
	m.giveBack(len(m.layers))
	return m.finish(l)
}

// LossAndGrad runs b forward and backward and adds the gradient of Loss.Sum with
// respect to every A and B of a to grads, which [NewGrads] made. Summing batches
// and dividing by their tokens is the caller's. The adapter takes part with weight 1.
func (m *Model) LossAndGrad(b *Batch, a *Adapter, grads Grads) (Loss, error) {
	if b.Targets == nil {
		return Loss{}, fmt.Errorf("model: a batch without targets has no gradient")
	}
	if grads == nil {
		return Loss{}, fmt.Errorf("model: no gradients to add to")
	}
	if err := m.begin(b, []Scaled{{a, 1}}, grads); err != nil {
		return Loss{}, err
	}
	m.work.balance = nil
	if b.Router != 0 && m.MoE.Experts > 0 {
		m.work.balance = m.newBalance()
		defer func() { m.work.balance = nil }()
	}
	m.runForward(b)
	var router float64
	if m.work.balance != nil {
		router = m.work.balance.loss(float64(b.Router))
	}
	if b.Reweigh != nil {
		var err error
		if b, err = m.reweighed(b); err != nil {
			m.giveBack(len(m.layers))
			return Loss{}, err
		}
	}
	loss := m.lossBackward(b)
	m.giveBack(len(m.layers))
	if len(m.work.wanted) > 0 {
		m.runBackward()
	}
	loss.RouterSum = router
	return m.finish(loss)
}

// reweighed is b with the weights that it asks for.
func (m *Model) reweighed(b *Batch) (*Batch, error) {
	w := b.Reweigh(m.lossForward(b).PerToken)
	if len(w) != len(m.work.wanted) {
		return nil, fmt.Errorf("model: %d weights for the losses of %d tokens", len(w), len(m.work.wanted))
	}
	c := *b
	c.Weights = make([]float32, len(b.IDs))
	for i, t := range m.work.wanted {
		c.Weights[t] = w[i]
	}
	return &c, nil
}

// Logits runs b forward and gives f the logits of all its tokens, some rows at a
// time: row r of logits belongs to token first+r. f may change logits, but not keep them.
func (m *Model) Logits(b *Batch, f func(first int, logits kernel.Mat) error, adapters ...Scaled) error {
	if err := m.begin(b, adapters, nil); err != nil {
		return err
	}
	m.runForward(nil)
	defer m.giveBack(len(m.layers))
	x := m.work.residual(m, len(m.layers))
	for first := 0; first < x.Rows; {
		n := min(m.headRows(), x.Rows-first)
		h := m.headInput(x, first, n)
		logits := m.work.logits.mat(n, m.Vocab)
		m.headForward(logits, h)
		if err := m.fail.take(); err != nil {
			return err
		}
		if err := f(first, logits); err != nil {
			return err
		}
		first += n
	}
	return nil
}

// begin prepares a pass.
func (m *Model) begin(b *Batch, adapters []Scaled, grads Grads) error {
	if err := m.lay(b); err != nil {
		return err
	}
	if err := m.bind(adapters, grads, b.Dropout); err != nil {
		return err
	}
	m.prepare(grads != nil)
	return nil
}

// prepare decides which layers keep what.
func (m *Model) prepare(backward bool) {
	w, n := &m.work, len(m.layers)
	w.lowest = n
	if backward {
		w.lowest = m.lowestOf((*linear).trained)
	}
	w.inputs, w.outs = resize(w.inputs, n+1), resize(w.outs, n)
	w.acts = resize(w.acts, 1+m.opt.KeepLayers)
	clear(w.acts[len(w.acts):cap(w.acts)]) // layers that are kept no more
	slots := m.ends
	for i := range m.layers {
		slots = max(slots, m.layers[i].slots)
	}
	for i := range w.acts {
		w.acts[i].us = resize(w.acts[i].us, slots)
	}
	w.uHead = resize(w.uHead, slots)
}

// resize gives s the length n. What it has beyond is not lost until it is written over.
func resize[T any](s []T, n int) []T {
	if n <= cap(s) {
		return s[:n]
	}
	return append(s, make([]T, n-len(s))...)
}

// SetKeepLayers changes [Options].KeepLayers. It must not be called during a pass.
func (m *Model) SetKeepLayers(n int) {
	if n < 0 || n >= len(m.Layers) {
		n = len(m.Layers) - 1
	}
	m.opt.KeepLayers = n
}

// lowestOf is the first layer whose backward pass is needed when the matrices that f
// names are trained: the number of layers if only the head is.
func (m *Model) lowestOf(f func(l *linear) bool) int {
	if f(m.embed) {
		return 0
	}
	for i := range m.layers {
		for _, l := range m.layers[i].linears() {
			if f(l) {
				return i
			}
		}
	}
	return len(m.layers)
}

// linears lists the matrices of the layer that adapters can change.
func (l *layer) linears() []*linear {
	var all []*linear
	for _, w := range []*linear{l.qkv, l.q, l.k, l.v, l.o, l.gateUp, l.gate, l.up, l.down} {
		if w != nil {
			all = append(all, w)
		}
	}
	if l.moe == nil {
		return all
	}
	all = append(append(append(all, l.moe.gate...), l.moe.up...), l.moe.down...)
	if l.moe.shared != nil {
		all = append(all, l.moe.shared.gate, l.moe.shared.up, l.moe.shared.down)
	}
	return all
}

// finish gives the error of a weight that could not be read, if there was one.
func (m *Model) finish(l Loss) (Loss, error) {
	if err := m.fail.take(); err != nil {
		return Loss{}, err
	}
	return l, nil
}

// residual is the residual stream that enters layer i, or leaves the last one.
func (w *workspace) residual(m *Model, i int) kernel.Mat {
	s := &w.inputs[i]
	if i < w.lowest {
		s = &w.below[i%2]
	}
	return s.mat(len(w.ids), m.Hidden)
}

// actsOf is where layer i leaves what its backward pass wants, and whether it stays
// there: the first place is shared by the layers that keep nothing, so of these the
// last one finds its own. Layers that have no backward pass keep nothing.
func (m *Model) actsOf(i int) (a *acts, kept bool) {
	k := placeOf(i, len(m.layers), m.opt.KeepLayers, m.work.lowest)
	return &m.work.acts[k], i >= len(m.layers)-1-m.opt.KeepLayers
}

// placeOf is the place of the acts of layer i of n, when keep of them keep theirs and
// lowest is the first that has a backward pass.
func placeOf(i, n, keep, lowest int) int {
	if i < lowest {
		return 0
	}
	return max(i-(n-1-keep), 0)
}

// runForward runs the layers; noise, if not nil, is the batch that says which is added.
func (m *Model) runForward(noise *Batch) {
	w := &m.work
	x := w.residual(m, 0)
	m.lookUp(x, w.ids)
	if noise != nil {
		m.disturb(x, noise)
	}
	for i := range m.layers {
		if m.OnHidden != nil {
			m.OnHidden(i, x)
		}
		out := w.residual(m, i+1)
		a, _ := m.actsOf(i)
		m.ask(i + 1)
		m.layerForward(i, out, x, a, nil)
		m.giveBack(i)
		x = out
	}
	if m.OnHidden != nil {
		m.OnHidden(len(m.layers), m.headInput(x, 0, x.Rows))
	}
}

// runBackward takes work.g, the gradient of the last residual, down the layers.
func (m *Model) runBackward() {
	w := &m.work
	g := w.g.mat(len(w.ids), m.Hidden)
	for i := len(m.layers) - 1; i >= w.lowest; i-- {
		m.ask(i - 1)
		x := w.residual(m, i)
		a, kept := m.actsOf(i)
		if !kept {
			w.again = true
			m.layerForward(i, w.dh.mat(x.Rows, x.Cols), x, a, nil)
			w.again = false
		}
		m.layerBackward(i, g, x, a, i > w.lowest || m.embed.trained())
		m.giveBack(i)
	}
	if m.embed.trained() {
		m.lookUpBackward(g, w.ids)
	}
}

// ask asks for the weights of layer i, or of the head where there is no such
// layer, if they are streamed.
func (m *Model) ask(i int) {
	if m.opt.Stream && i >= 0 {
		for _, t := range m.storedIn(i) {
			t.Prefetch()
		}
	}
}

// giveBack gives back what ask asked for.
func (m *Model) giveBack(i int) {
	if m.opt.Stream {
		for _, t := range m.storedIn(i) {
			t.Release()
		}
		m.dropMerged(i)
	}
}

func (m *Model) storedIn(i int) []*format.Tensor {
	if i >= len(m.layers) {
		return m.stored
	}
	return m.layers[i].stored
}

// lookUp makes x the scaled embeddings of ids.
func (m *Model) lookUp(x kernel.Mat, ids []int32) {
	weights := m.weights(m.embed)
	m.rows(x.Rows, func(t, _ int) {
		row, id := x.Row(t), int(ids[t])
		weights.DecodeRows(row, id)
		for i := range m.embed.bound {
			if m.merging {
				break
			}
			b := &m.embed.bound[i]
			for j, u := range b.pair.B.Row(id) {
				kernel.Axpy(row, b.scale*u, b.pair.A.Row(j))
			}
			if b.columnNorms != nil {
				kernel.Mul(row, row, b.columnNorms.factor)
			}
		}
		if m.EmbedScale != 1 {
			kernel.Scale(row, m.EmbedScale, row)
		}
	})
}

// lookUpBackward adds to the gradients of the embedding's pair and rows, token by token.
func (m *Model) lookUpBackward(g kernel.Mat, ids []int32) {
	m.lookUpRowsBackward(g, ids)
	for i := range m.embed.bound {
		b := &m.embed.bound[i]
		if b.grad == nil {
			continue
		}
		s, grad := b.scale*m.EmbedScale, b.grad.ofLookUp()
		var was []float32
		for t := range g.Rows {
			id, row := int(ids[t]), g.Row(t)
			if n := b.columnNorms; n != nil {
				was = resize(was, m.Hidden)
				m.embed.w.DecodeRows(was, id)
				for j, u := range b.pair.B.Row(id) {
					kernel.Axpy(was, b.scale*u, b.pair.A.Row(j))
				}
				b.addMagnitude(grad, row, was, m.EmbedScale)
				kernel.Mul(row, row, n.factor)
			}
			for j, u := range b.pair.B.Row(id) {
				kernel.Axpy(grad.A.Row(j), s*u, row)
				grad.B.Row(id)[j] += float32(s * kernel.Dot(b.pair.A.Row(j), row))
			}
		}
	}
}
