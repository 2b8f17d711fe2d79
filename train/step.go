package train

import (
	"context"
	"fmt"
	"math"

	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/optim"
)

// batchOf lays samples end to end. The packed documents of a sample are sequences of
// their own.
func batchOf(samples []data.Sample) *model.Batch {
	b := &model.Batch{}
	var labels []int32
	for _, s := range samples {
		b.IDs = append(b.IDs, s.IDs...)
		labels = append(labels, s.Labels()...)
		from := 0
		for _, d := range s.Docs[min(1, len(s.Docs)):] {
			b.Lens = append(b.Lens, d-from)
			from = d
		}
		b.Lens = append(b.Lens, len(s.IDs)-from)
	}
	b.Targets = model.ShiftLabels(labels, b.Lens)
	return b
}

// targets is how many targets [batchOf] gives a sample: one for each trained token but for those
// that begin a document, which nothing predicts.
func targets(s data.Sample) int {
	n := s.Trained()
	for _, d := range append([]int{0}, s.Docs[min(1, len(s.Docs)):]...) {
		if d < len(s.Train) && s.Train[d] {
			n--
		}
	}
	return n
}

// passes divides samples, in order, into groups of up to limit tokens, or one sample.
// The model gives a group's gradient as the sum of its sequences' in order, so the
// division changes nothing but speed and memory.
func passes(samples []data.Sample, limit int) (groups [][]data.Sample) {
	divide(len(samples), limit, func(i int) int { return samples[i].Size() }, func(from, to int) {
		groups = append(groups, samples[from:to])
	})
	return groups
}

// divide calls f with the borders of groups of n things whose sizes add up to limit at most.
func divide(n, limit int, size func(i int) int, f func(from, to int)) {
	from, sum := 0, 0
	for i := range n {
		if i > from && sum+size(i) > limit {
			f(from, i)
			from, sum = i, 0
		}
		sum += size(i)
	}
	if from < n {
		f(from, n)
	}
}

// stepResult is what one optimizer step found.
type stepResult struct {
	loss            float64
	norm            float64
	trained, tokens int
	preferences     *PreferenceResult // nil for the plain loss
	distill         *DistillResult    // nil without a teacher
	router          float64           // the loss of the routers, where it takes part
}

// step makes one optimizer step on samples: the loss is the sum over their trained
// tokens divided by the number of these, or the mean over the examples of
// preferences, however they are divided into passes.
func (l *lora) step(ctx context.Context, m *model.Model, opt optim.Optimizer, p *preferences, samples []data.Sample, c *Config, step int, lr float64) (stepResult, error) {
	r, err := l.gradient(ctx, m, p, samples, c, step)
	if err != nil {
		return r, err
	}
	l.poolGradients()
	if c.ClipNorm > 0 {
		r.norm = optim.ClipNorm(l.params, c.ClipNorm, 2)
	} else {
		r.norm = optim.Norm(l.params, 2)
	}
	if !finite(r.loss) || !finite(r.norm) {
		return r, fmt.Errorf("train: step %d: the loss is %v and the gradient's norm %v: the rate is too high, or the data (%s) is at fault", step+1, r.loss, r.norm, describe(samples))
	}
	opt.Step(lr)
	l.poolValues()
	l.sync()
	return r, nil
}

// gradient makes the gradients those of the step's loss.
func (l *lora) gradient(ctx context.Context, m *model.Model, p *preferences, samples []data.Sample, c *Config, step int) (stepResult, error) {
	var r stepResult
	l.grads.Zero()
	sum := 0.0
	var hard, soft moments // of the parts of the loss that a teacher makes
	var examples *stepLoss
	if !p.plain() {
		var err error
		if examples, err = p.begin(ctx, m, samples, c.limit(), l.adapter); err != nil {
			return r, err
		}
	}
	for _, group := range passes(samples, c.limit()) {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		list := answers(group)
		b := batchOf(list)
		if examples != nil {
			b.Reweigh = func(losses []float32) []float32 { return examples.weights(group, list, losses) }
		}
		b.Dropout = model.Dropout{P: float32(c.Adapter.Dropout), Seed: c.Seed, Step: uint64(step)}
		b.Noise = model.Noise{Alpha: float32(c.NEFTune), Seed: c.Seed, Step: uint64(step)}
		b.Before = r.tokens
		b.Router = float32(c.RouterLoss)
		if p.teacher != nil {
			var err error
			if b.Soft, err = p.teacher.soft(list); err != nil {
				return r, err
			}
		}
		loss, err := m.LossAndGrad(b, l.adapter, l.grads)
		if err != nil {
			return r, err
		}
		hard.add(loss.Hard)
		soft.add(loss.Soft)
		sum += loss.Sum
		r.router += loss.RouterSum
		r.trained += loss.Tokens
		r.tokens += len(b.IDs)
	}
	l.grads.Join()
	if r.trained == 0 {
		return r, fmt.Errorf("train: step %d has no token to train on: %s", step+1, describe(samples))
	}
	r.loss = sum / float64(r.trained)
	r.router /= float64(r.trained)
	mean := float32(1 / float64(r.trained))
	if p.teacher != nil {
		r.distill = &DistillResult{}
		r.distill.CrossEntropy, _ = hard.mean()
		r.distill.KL, _ = soft.mean()
	}
	if examples != nil {
		r.loss, r.preferences = examples.value(), examples.result()
		mean = float32(1 / examples.examples)
	}
	for i := range l.params {
		g := l.params[i].Grad
		for j := range g {
			g[j] *= mean
		}
	}
	return r, nil
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// describe says where samples come from.
func describe(samples []data.Sample) string {
	s := samples[0].Path
	for i, x := range samples {
		for _, l := range x.Lines {
			s += fmt.Sprintf(":%d", l)
		}
		if i == 7 {
			return s + " …"
		}
	}
	return s
}
