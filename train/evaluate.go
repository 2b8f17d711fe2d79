package train

import (
	"context"
	"math"

	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// EvalResult is the loss of a model on a text.
type EvalResult struct {
	Loss       float64 `json:"loss"`       // mean over the trained tokens, in nats
	LossError  float64 `json:"loss_error"` // standard error of the mean
	Perplexity float64 `json:"perplexity"` // e^Loss
	Tokens     int     `json:"tokens"`     // that were predicted
	Sequences  int     `json:"sequences"`
}

// PerplexityError is the standard error of the perplexity, to first order.
func (r EvalResult) PerplexityError() float64 { return r.Perplexity * r.LossError }

// moments sums losses and their squares.
type moments struct {
	n       int
	sum, sq float64
}

func (m *moments) add(losses []float32) {
	for _, l := range losses {
		x := float64(l)
		m.sum += x
		m.sq += float64(x * x)
	}
	m.n += len(losses)
}

// mean is the mean with its standard error.
func (m *moments) mean() (mean, err float64) {
	if m.n == 0 {
		return 0, 0
	}
	mean = m.sum / float64(m.n)
	if m.n > 1 {
		err = math.Sqrt(math.Max(0, m.sq/float64(m.n)-mean*mean) / float64(m.n-1))
	}
	return mean, err
}

// Evaluate gives the loss of m with adapters on the trained tokens of samples. limit
// is how many tokens are run at once, and so a bound on memory. progress, if not nil,
// is called with the number of samples that are done.
func Evaluate(ctx context.Context, m *model.Model, samples []data.Sample, limit int, progress func(done int), adapters ...model.Scaled) (EvalResult, error) {
	var all moments
	done := 0
	for _, group := range passes(samples, limit) {
		if err := ctx.Err(); err != nil {
			return EvalResult{}, err
		}
		loss, err := m.Loss(batchOf(group), adapters...)
		if err != nil {
			return EvalResult{}, err
		}
		all.add(loss.PerToken)
		done += len(group)
		if progress != nil {
			progress(done)
		}
	}
	r := EvalResult{Tokens: all.n, Sequences: len(samples)}
	r.Loss, r.LossError = all.mean()
	r.Perplexity = math.Exp(r.Loss)
	return r, nil
}
