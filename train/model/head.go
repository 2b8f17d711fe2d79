package model

import "github.com/graft-lora/graft/internal/kernel"

// headRows is how many tokens' logits are held at a time.
func (m *Model) headRows() int { return headRowsOf(m.opt.HeadMemory, m.Vocab) }

func headRowsOf(memory int64, vocab int) int { return int(max(memory/int64(4*vocab), 16)) }

// headInput makes the normed residuals of n tokens from first on.
func (m *Model) headInput(x kernel.Mat, first, n int) kernel.Mat {
	h := m.work.final.mat(n, m.Hidden)
	m.normRows(h, x.Sub(first, first+n, 0, m.Hidden), m.norm, &m.work.rFinal)
	return h
}

// headForward makes the logits, scaled and capped, of the normed residuals h.
func (m *Model) headForward(logits, h kernel.Mat) {
	x := m.headScaled(h)
	if again := m.work.again; x.Data != nil && &x.Data[0] != &h.Data[0] {
		m.observe(m.head, h) // what enters the matrix that the adapter makes, not the factor
		m.work.again = true
		m.forward(x, m.work.uHead, part{m.head, logits})
		m.work.again = again
	} else {
		m.forward(x, m.work.uHead, part{m.head, logits})
	}
	if m.LogitScale == 1 && m.FinalSoftcap == 0 {
		return
	}
	m.rows(h.Rows, func(t, _ int) {
		row := logits.Row(t)
		if m.LogitScale != 1 {
			kernel.Scale(row, m.LogitScale, row)
		}
		if m.FinalSoftcap != 0 {
			kernel.Softcap(row, row, m.FinalSoftcap)
		}
	})
}

// eachWanted calls f with the normed residuals of the tokens whose loss is wanted,
// some rows at a time: row r of h is token work.wanted[first+r].
func (m *Model) eachWanted(f func(first int, h kernel.Mat)) {
	w := &m.work
	x := w.residual(m, len(m.layers))
	for first := 0; first < len(w.wanted); {
		n := min(m.headRows(), len(w.wanted)-first)
		rows := w.tokens.mat(n, m.Hidden)
		m.rows(n, func(r, _ int) { copy(rows.Row(r), x.Row(w.wanted[first+r])) })
		w.places = w.wanted[first : first+n]
		f(first, m.headInput(rows, 0, n))
		first += n
	}
	w.places = nil
}

// lossForward is the loss of the residuals that the layers left.
func (m *Model) lossForward(b *Batch) Loss {
	w := &m.work
	losses := m.lossesOf(b)
	m.work.workers(m.pool.Threads())
	m.eachWanted(func(first int, h kernel.Mat) {
		logits := w.logits.mat(h.Rows, m.Vocab)
		m.headForward(logits, h)
		m.pool.For(h.Rows, func(r, worker int) {
			target := int(b.Targets[w.wanted[first+r]])
			if b.Soft != nil {
				losses[first+r] = m.softLoss(b, first+r, logits.Row(r), target, worker)
				return
			}
			losses[first+r] = kernel.CrossEntropy(nil, logits.Row(r), target, 1)
		})
	})
	return m.sumLoss(b, losses)
}

// lossBackward is lossForward, and leaves in work.g the gradient of the residuals.
// The head's gradients are added here.
func (m *Model) lossBackward(b *Batch) Loss {
	w := &m.work
	losses := m.lossesOf(b)
	g := w.g.mat(len(w.ids), m.Hidden)
	m.rows(g.Rows, func(t, _ int) { clear(g.Row(t)) })
	below := w.lowest < len(m.layers) || m.embed.trained()
	m.eachWanted(func(first int, h kernel.Mat) {
		logits := w.logits.mat(h.Rows, m.Vocab)
		m.headForward(logits, h)
		m.pool.For(h.Rows, func(r, worker int) {
			t, row := w.wanted[first+r], logits.Row(r)
			if b.Soft != nil {
				losses[first+r] = m.softCrossEntropy(b, first+r, row, int(b.Targets[t]), weightOf(b, t), worker)
				return
			}
			losses[first+r] = m.crossEntropy(row, int(b.Targets[t]), weightOf(b, t), worker)
		})
		m.lap(RowWise)
		dh := w.dfinal.mat(h.Rows, m.Hidden)
		if !below {
			dh = kernel.Mat{}
		}
		m.headRowsBackward(logits, h)
		m.backward(dh, m.headScaled(h), m.work.uHead, false, part{m.head, logits})
		if !below {
			return
		}
		m.headScaledBackward(dh, h)
		rows := w.tokens.mat(h.Rows, m.Hidden)
		m.normBackward(dh, dh, rows, m.norm, &w.rFinal, false)
		m.rows(h.Rows, func(r, _ int) { copy(g.Row(w.wanted[first+r]), dh.Row(r)) })
	})
	return m.sumLoss(b, losses)
}

// crossEntropy returns the loss of a row of logits and turns the row into the
// gradient of weight times it, with respect to the head's products.
func (m *Model) crossEntropy(row []float32, target int, weight float32, worker int) float32 {
	if m.FinalSoftcap == 0 {
		return kernel.CrossEntropy(row, row, target, weight*m.LogitScale)
	}
	capped := m.work.attn[worker].capped.mat(1, m.Vocab).Data
	copy(capped, row)
	loss := kernel.CrossEntropy(row, row, target, weight*m.LogitScale)
	kernel.SoftcapBackward(row, row, capped, m.FinalSoftcap)
	return loss
}

func weightOf(b *Batch, t int) float32 {
	if b.Weights == nil {
		return 1
	}
	return b.Weights[t]
}

func (m *Model) lossesOf(b *Batch) []float32 {
	w, n := &m.work, len(m.work.wanted)
	w.losses = resize(w.losses, n)
	if b.Soft != nil {
		w.hard, w.soft = resize(w.hard, n), resize(w.soft, n)
	}
	return w.losses
}

func (m *Model) sumLoss(b *Batch, losses []float32) Loss {
	l := Loss{Tokens: len(losses), PerToken: losses}
	for i, x := range losses {
		l.Sum += float64(float64(x) * float64(weightOf(b, m.work.wanted[i])))
	}
	if b.Soft != nil {
		l.Hard, l.Soft = m.work.hard, m.work.soft
	}
	return l
}
