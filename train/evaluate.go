package train

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/fmath"
	"github.com/graft-lora/graft/internal/tokenizer"
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
	// Preferences is given by objectives that learn from them; Loss is then a mean
	// over examples, and Perplexity 0.
	Preferences *PreferenceResult `json:"preferences,omitempty"`
	// Distill is given where there is a teacher: Loss is then the one that is trained for,
	// and Perplexity that of the plain loss.
	Distill *DistillResult `json:"distill,omitempty"`
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
		m.one(float64(l))
	}
}

func (m *moments) one(x float64) {
	m.n++
	m.sum += x
	m.sq += float64(x * x)
}

// mean is the mean with its standard error.
func (m *moments) mean() (mean, err float64) {
	if m.n == 0 {
		return 0, 0
	}
	mean = m.sum / float64(m.n)
	if m.n > 1 {
		err = math.Sqrt(math.Max(0, m.sq/float64(m.n)-float64(mean*mean)) / float64(m.n-1))
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
	return evalResult(all, len(samples)), nil
}

func evalResult(all moments, sequences int) EvalResult {
	r := EvalResult{Tokens: all.n, Sequences: sequences}
	r.Loss, r.LossError = all.mean()
	r.Perplexity = fmath.Exp(r.Loss)
	return r
}

// Windows cuts a text into windows of n tokens as llama-perplexity does: the tokens of
// the whole text, whatever does not fill a window left out, BOS in place of a window's first
// token if the model wants one, and the loss taken on its second half only, so that
// every prediction has a context. A text that does not fill a window is an error.
func (b *Base) Windows(text string, n int) ([]data.Sample, error) {
	if n < 4 {
		return nil, fmt.Errorf("train: windows of %d tokens", n)
	}
	ids := b.Tokenizer.Encode(text, tokenizer.EncodeOptions{AddSpecial: true})
	if len(ids) < n {
		return nil, format.Usagef("the text has %d tokens, which do not fill a window of %d: give a longer text, or a smaller --context", len(ids), n)
	}
	var windows []data.Sample
	for ; len(ids) >= n; ids = ids[n:] {
		s := data.Sample{IDs: slices.Clone(ids[:n]), Train: make([]bool, n)}
		if b.Tokenizer.AddsBOS() {
			s.IDs[0] = b.Tokenizer.BOS()
		}
		for i := n/2 + 1; i < n; i++ {
			s.Train[i] = true
		}
		windows = append(windows, s)
	}
	return windows, nil
}

// EvalData reads what a model is evaluated on: a text in windows of context tokens,
// or records, of which the answers count.
func (b *Base) EvalData(path string, context int, o data.Options, f data.Fields) ([]data.Sample, error) {
	isRecords, err := data.IsRecords(path)
	if err != nil {
		return nil, err
	}
	if !isRecords {
		text, err := data.ReadText(path)
		if err != nil {
			return nil, err
		}
		samples, err := b.Windows(text, context)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return samples, nil
	}
	set, err := b.Encoder(context, o).Read(path, f)
	if err != nil {
		return nil, err
	}
	return set.Samples, nil
}
