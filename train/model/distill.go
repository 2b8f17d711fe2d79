package model

import (
	"fmt"

	"github.com/graft-lora/graft/internal/kernel"
)

// Soft is what a teacher predicts at the trained tokens of a batch: of each, its K most
// likely tokens with their probabilities, and the rest of the probability as one sum.
// Where a batch has it, the loss of a token is
//
//	(1-Weight)·CE + Weight·T²·KL,  KL = Σ p·log(p/q) over the K tokens and the rest
//
// with p the teacher's and q the model's probabilities at temperature T, those of all
// other tokens summed in the rest. KL is 0 where the two agree on these K+1 numbers, and
// never above the divergence over the whole vocabulary; T² keeps the size of its gradient
// (Hinton et al., arXiv 1503.02531).
type Soft struct {
	K           int
	IDs         []int32   // K of each trained token, in the batch's order
	LogP        []float32 // of each of IDs: the logarithm of its probability at Temperature
	Rest        []float32 // of each trained token: the logarithm of the other tokens' sum; -Inf for none
	Weight      float32   // 0 to 1
	Temperature float32   // above 0
}

// check says what of s does not fit n trained tokens and a vocabulary.
func (s *Soft) check(n, vocab int) error {
	switch {
	case s.K < 1 || s.K > vocab || len(s.IDs) != n*s.K || len(s.LogP) != n*s.K || len(s.Rest) != n:
		return fmt.Errorf("model: a teacher's %d predictions (%d probabilities, %d rests) for %d tokens, %d each", len(s.IDs), len(s.LogP), len(s.Rest), n, s.K)
	case !(s.Weight >= 0 && s.Weight <= 1) || !(s.Temperature > 0):
		return fmt.Errorf("model: a teacher with weight %v at temperature %v", s.Weight, s.Temperature)
	}
	for _, id := range s.IDs {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("model: a teacher predicts token %d, the vocabulary has %d", id, vocab)
		}
	}
	return nil
}

// leastRest keeps the logarithm of a rest finite.
const leastRest = 1e-37

// tempered makes e the exponentials of the row z at temperature t, over that of its
// largest element, and returns the logarithm of that and the sum.
func tempered(e, z []float32, t float32) (top, sum float32) {
	kernel.Scale(e, 1/t, z)
	top = kernel.MaxVal(e)
	return top, kernel.SumExp(e, e, top)
}

// TopLogP gives the k most likely tokens of a row of logits at temperature t, the most
// likely first (of equals the first), the logarithms of their probabilities, and that
// of the sum of all others. Of the row, tokens below vocab count by themselves and those
// beyond in the rest. scratch has the length of z.
func TopLogP(ids []int32, logP []float32, z []float32, vocab int, t float32, scratch []float32) (rest float32) {
	e, k := scratch[:len(z)], len(ids)
	top, sum := tempered(e, z, t)
	topK(ids, z[:vocab])
	log := kernel.Log(sum)
	for i, id := range ids[:k] {
		logP[i] = logOf(z[id], t, top, log)
		e[id] = 0
	}
	return restOf(e, log, k)
}

// logOf is the logarithm of the probability of a token: both models round it alike.
func logOf(z, t, top, log float32) float32 {
	return float32(z*(1/t)) - top - log
}

// restOf is the logarithm of the sum of what is left in e.
func restOf(e []float32, log float32, k int) float32 {
	if k == len(e) {
		return kernel.Log(0)
	}
	return kernel.Log(max(kernel.Sum(e), leastRest)) - log
}

// topK puts the places of the largest elements of z into ids, in falling order, by a heap
// whose root is the least of those held.
func topK(ids []int32, z []float32) {
	less := func(a, b int32) bool { return z[a] < z[b] || z[a] == z[b] && a > b }
	sift := func(i, n int) {
		for {
			c := 2*i + 1
			if c >= n {
				return
			}
			if c+1 < n && less(ids[c+1], ids[c]) {
				c++
			}
			if !less(ids[c], ids[i]) {
				return
			}
			ids[i], ids[c] = ids[c], ids[i]
			i = c
		}
	}
	n := len(ids)
	for i := range ids {
		ids[i] = int32(i)
	}
	for i := n/2 - 1; i >= 0; i-- {
		sift(i, n)
	}
	for i := n; i < len(z); i++ {
		if less(ids[0], int32(i)) {
			ids[0] = int32(i)
			sift(0, n)
		}
	}
	for n--; n > 0; n-- {
		ids[0], ids[n] = ids[n], ids[0]
		sift(0, n)
	}
}

// soften returns the KL of token i's predictions, given the row z of its logits. Where g
// is not nil it becomes the gradient of weight·T²·KL with respect to z; without it scratch is used.
func (s *Soft) soften(g, z []float32, i int, weight float32, scratch []float32) float32 {
	e := g
	if g == nil {
		e = scratch[:len(z)]
	}
	ids, logP := s.IDs[i*s.K:(i+1)*s.K], s.LogP[i*s.K:(i+1)*s.K]
	top, sum := tempered(e, z, s.Temperature)
	log := kernel.Log(sum)
	var kl float64
	for j, id := range ids {
		p, q := kernel.Exp(logP[j]), logOf(z[id], s.Temperature, top, log)
		kl += float64(float64(p) * float64(logP[j]-q))
		e[id] = 0
	}
	rest := restOf(e, log, s.K)
	p := kernel.Exp(s.Rest[i])
	if s.K < len(z) && p > 0 {
		kl += float64(float64(p) * float64(s.Rest[i]-rest))
	}
	if g == nil {
		return float32(kl)
	}
	// dKL/du is q-p for the K tokens and q·(1 - p/q of the rest) for the others, with
	// u = z/T; T² and 1/T leave T.
	w := weight * s.Temperature
	kernel.Scale(g, w/sum*(1-kernel.Exp(s.Rest[i]-rest)), g)
	for j, id := range ids {
		q := kernel.Exp(logOf(z[id], s.Temperature, top, log))
		g[id] = w * (q - kernel.Exp(logP[j]))
	}
	return float32(kl)
}

// mixed is the loss of token i of work.wanted whose logits are row, with both its parts.
func (m *Model) mixed(s *Soft, i int, ce, kl float32) float32 {
	m.work.hard[i], m.work.soft[i] = ce, kl
	t := s.Temperature
	return float32((1-s.Weight)*ce) + float32(float32(float32(s.Weight*t)*t)*kl)
}

// softLoss is the loss of a row of logits under b.Soft.
func (m *Model) softLoss(b *Batch, i int, row []float32, target, worker int) float32 {
	scratch := m.work.attn[worker].soft.mat(1, m.Vocab).Data
	return m.mixed(b.Soft, i, kernel.CrossEntropy(nil, row, target, 1), b.Soft.soften(nil, row, i, 1, scratch))
}

// softCrossEntropy is softLoss, and turns the row into the gradient of weight times it,
// with respect to the head's products.
func (m *Model) softCrossEntropy(b *Batch, i int, row []float32, target int, weight float32, worker int) float32 {
	a := &m.work.attn[worker]
	g := a.soft.mat(1, m.Vocab).Data
	kl := b.Soft.soften(g, row, i, float32(weight*m.LogitScale)*b.Soft.Weight, nil)
	var capped []float32
	if m.FinalSoftcap != 0 {
		capped = a.capped.mat(1, m.Vocab).Data
		copy(capped, row)
	}
	ce := kernel.CrossEntropy(row, row, target, float32(weight*m.LogitScale)*(1-b.Soft.Weight))
	kernel.Add(row, g)
	if m.FinalSoftcap != 0 {
		kernel.SoftcapBackward(row, row, capped, m.FinalSoftcap)
	}
	return m.mixed(b.Soft, i, ce, kl)
}

// Predictions runs b forward and gives f the logits at its trained tokens, in their
// order and some at a time: the first row belongs to the trained token numbered first.
// f may change logits, but not keep them.
func (m *Model) Predictions(b *Batch, f func(first int, logits kernel.Mat), adapters ...Scaled) error {
	if err := m.begin(b, adapters, nil); err != nil {
		return err
	}
	m.runForward(nil)
	m.eachWanted(func(first int, h kernel.Mat) {
		logits := m.work.logits.mat(h.Rows, m.Vocab)
		m.headForward(logits, h)
		f(first, logits)
	})
	m.giveBack(len(m.layers))
	_, err := m.finish(Loss{})
	return err
}
