package train

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/graft-lora/graft/internal/atomicfile"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/objective"
)

// opinion is the log-probability, in nats, that a model gives to each answer of an
// example; zero where the example has no such answer.
type opinion struct {
	Chosen     float64 `json:"chosen"`
	Rejected   float64 `json:"rejected,omitempty"`
	Mismatched float64 `json:"mismatched,omitempty"`
}

// preferences is an objective at work: the examples' opinions of the reference are
// found by the tokens of the example.
type preferences struct {
	*objective.Objective
	reference map[string]opinion
	teacher   *teacher // nil without one
}

// ReadExamples makes the samples that an objective learns from.
func ReadExamples(enc *data.Encoder, o *objective.Objective, path string, f data.Fields) (*data.Set, error) {
	switch o.Kind() {
	case objective.Pairs:
		return enc.ReadPreferences(path, f)
	case objective.Labels:
		return enc.ReadLabelled(path, f)
	}
	return enc.Read(path, f)
}

// answers lists samples in the order in which they are run: every example's chosen
// answer, then its rejected one.
func answers(group []data.Sample) (list []data.Sample) {
	for _, s := range group {
		list = append(list, s)
		if s.Rejected != nil {
			list = append(list, *s.Rejected)
		}
	}
	return list
}

// logProbs sums the losses of the trained tokens of each sample, negated.
func logProbs(list []data.Sample, losses []float32) []float64 {
	sums := make([]float64, len(list))
	for i, s := range list {
		n := s.Trained()
		for _, l := range losses[:n] {
			sums[i] -= float64(l)
		}
		losses = losses[n:]
	}
	return sums
}

// opinions runs samples, the answers to prompts that are not theirs among them if
// mismatched is set, and gives what m with adapters thinks of each.
func opinions(ctx context.Context, m *model.Model, samples []data.Sample, limit int, mismatched bool, progress func(done int), adapters ...model.Scaled) ([]opinion, error) {
	out := make([]opinion, 0, len(samples))
	for _, group := range passes(samples, limit) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		list := answers(group)
		loss, err := m.Loss(batchOf(list), adapters...)
		if err != nil {
			return nil, err
		}
		sums := logProbs(list, loss.PerToken)
		for _, s := range group {
			o := opinion{Chosen: sums[0]}
			sums = sums[1:]
			if s.Rejected != nil {
				o.Rejected, sums = sums[0], sums[1:]
			}
			out = append(out, o)
		}
		if progress != nil {
			progress(len(out))
		}
	}
	if !mismatched {
		return out, nil
	}
	values, err := mismatches(ctx, m, samples, limit, adapters...)
	for i := range values {
		out[i].Mismatched = values[i]
	}
	return out, err
}

// mismatches gives the log-probabilities of the answers to prompts that are not theirs.
func mismatches(ctx context.Context, m *model.Model, samples []data.Sample, limit int, adapters ...model.Scaled) ([]float64, error) {
	var list []data.Sample
	var of []int
	for i, s := range samples {
		if s.Mismatched != nil {
			list, of = append(list, *s.Mismatched), append(of, i)
		}
	}
	out := make([]float64, len(samples))
	at := 0
	for _, group := range passes(list, limit) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		loss, err := m.Loss(batchOf(group), adapters...)
		if err != nil {
			return nil, err
		}
		for _, v := range logProbs(group, loss.PerToken) {
			out[of[at]] = v
			at++
		}
	}
	return out, nil
}

// referenceFile is the cache of the reference's opinions in a run's folder.
type referenceFile struct {
	Base     string    `json:"base_sha256"`
	Samples  string    `json:"samples_sha256"`
	Opinions []opinion `json:"opinions"` // of the examples that are trained on, then of those held out
}

// findReference gives what the model without the adapter thinks of all examples: from
// the run's folder if it is there, else computed once and left there.
func (r *runner) findReference(ctx context.Context) error {
	if !r.objective.NeedsReference() {
		return nil
	}
	path := filepath.Join(r.cfg.Output, ReferenceFile)
	want := referenceFile{Base: r.state.Inputs["base"], Samples: r.samples}
	all := append(r.train[:len(r.train):len(r.train)], r.held...)
	var f referenceFile
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) || f.Base != want.Base || f.Samples != want.Samples || len(f.Opinions) > len(all) {
		f = want // nothing, or another run's, or damaged: it is made anew
	}
	if len(f.Opinions) < len(all) {
		if err := r.askReference(ctx, &f, path, all); err != nil {
			return err
		}
	}
	r.objective.reference = map[string]opinion{}
	for i := range all {
		r.objective.reference[data.Digest(all[i:i+1])] = f.Opinions[i]
	}
	return nil
}

// askReference adds to f, and to its file, the opinions of all examples that it lacks. What
// was found is stored every few seconds and when ctx ends, so that a run that is interrupted here goes on.
func (r *runner) askReference(ctx context.Context, f *referenceFile, path string, all []data.Sample) error {
	store := func() error {
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		return atomicfile.WriteFile(path, append(b, '\n'), true)
	}
	stored := time.Now()
	for _, group := range passes(all[len(f.Opinions):], r.cfg.limit()) {
		have := len(f.Opinions)
		found, err := opinions(ctx, r.base.Model, group, r.cfg.limit(), r.objective.Kind() == objective.Labels, func(done int) {
			r.tell(Progress{Phase: "reference", Done: have + done, Total: len(all)})
		})
		if err != nil {
			if ctx.Err() != nil && have > 0 {
				err = errors.Join(err, store())
			}
			return err
		}
		f.Opinions = append(f.Opinions, found...)
		if time.Since(stored) > 3*time.Second {
			if err := store(); err != nil {
				return err
			}
			stored = time.Now()
		}
	}
	return store()
}

// example is a sample with what the policy and the reference think of it.
func (p *preferences) example(s *data.Sample, policy opinion) objective.Example {
	ref := p.of(s)
	e := objective.Example{Chosen: objective.Completion{LogP: policy.Chosen, Ref: ref.Chosen, Tokens: s.Trained()}, Bad: s.Bad}
	if s.Rejected != nil {
		e.Rejected = objective.Completion{LogP: policy.Rejected, Ref: ref.Rejected, Tokens: s.Rejected.Trained()}
	}
	return e
}

// of is the reference's opinion of a sample.
func (p *preferences) of(s *data.Sample) opinion {
	if p.reference == nil {
		return opinion{}
	}
	return p.reference[data.Digest([]data.Sample{*s})]
}

// kl is how far the policy is from the reference on the samples of a step.
func (p *preferences) kl(ctx context.Context, m *model.Model, samples []data.Sample, limit int, adapters ...model.Scaled) (float64, error) {
	if p.Kind() != objective.Labels {
		return 0, nil
	}
	policy, err := mismatches(ctx, m, samples, limit, adapters...)
	if err != nil {
		return 0, err
	}
	var list []objective.Completion
	for i := range samples {
		if s := &samples[i]; s.Mismatched != nil {
			list = append(list, objective.Completion{LogP: policy[i], Ref: p.of(s).Mismatched, Tokens: s.Mismatched.Trained()})
		}
	}
	return p.KL(list), nil
}

// PreferenceResult is how examples of preferences fare, on average.
type PreferenceResult struct {
	Accuracy float64 `json:"accuracy,omitempty"` // part of the pairs whose chosen answer has the larger reward; of labelled answers, those on the right side of KL
	Chosen   float64 `json:"reward_chosen,omitempty"`
	Rejected float64 `json:"reward_rejected,omitempty"` // of labelled answers: of the bad ones
	KL       float64 `json:"kl,omitempty"`
}

// tally sums what becomes of examples.
type tally struct {
	p                           *preferences
	kl                          float64
	loss, squares               float64
	n, good, bad, right, tokens int
	chosen, rejected            float64
}

func (t *tally) add(s *data.Sample, policy opinion) objective.Result {
	res := t.p.Example(t.p.example(s, policy), t.kl)
	t.n++
	t.tokens += s.Trained()
	loss := res.Loss - t.p.NLL*policy.Chosen/float64(s.Trained())
	t.loss += loss
	t.squares += float64(loss * loss)
	right := res.ChosenReward > res.RejectedReward
	switch {
	case t.p.Kind() == objective.Pairs:
		t.tokens += s.Rejected.Trained()
		t.good, t.bad = t.good+1, t.bad+1
		t.chosen += res.ChosenReward
		t.rejected += res.RejectedReward
	case s.Bad:
		t.bad++
		t.rejected += res.ChosenReward
		right = res.ChosenReward < t.p.Beta*t.kl
	default:
		t.good++
		t.chosen += res.ChosenReward
		right = res.ChosenReward > t.p.Beta*t.kl
	}
	if right {
		t.right++
	}
	return res
}

func (t *tally) result() *PreferenceResult {
	return &PreferenceResult{Accuracy: float64(t.right) / float64(t.n), Chosen: t.chosen / float64(max(t.good, 1)),
		Rejected: t.rejected / float64(max(t.bad, 1)), KL: t.kl}
}

// evaluate gives the objective's loss on samples: the mean over examples, the plain
// loss in it that of each chosen answer.
func (p *preferences) evaluate(ctx context.Context, m *model.Model, samples []data.Sample, limit int, progress func(done int), adapters ...model.Scaled) (EvalResult, error) {
	kl, err := p.kl(ctx, m, samples, limit, adapters...)
	if err != nil {
		return EvalResult{}, err
	}
	policy, err := opinions(ctx, m, samples, limit, false, progress, adapters...)
	if err != nil {
		return EvalResult{}, err
	}
	t := tally{p: p, kl: kl}
	for i := range samples {
		t.add(&samples[i], policy[i])
	}
	n := float64(t.n)
	r := EvalResult{Loss: t.loss / n, Tokens: t.tokens, Sequences: len(samples), Preferences: t.result()}
	if t.n > 1 {
		r.LossError = math.Sqrt(math.Max(0, t.squares/n-float64(r.Loss*r.Loss)) / (n - 1))
	}
	return r, nil
}

// stepLoss is the objective over the samples of one step.
type stepLoss struct {
	tally
	examples float64 // of the step
	nll      float64 // weight of a chosen token's plain loss, times examples
	plain    float64 // sum of the plain losses, so weighted
}

// begin prepares a step: what its examples share.
func (p *preferences) begin(ctx context.Context, m *model.Model, samples []data.Sample, limit int, adapter *model.Adapter) (*stepLoss, error) {
	kl, err := p.kl(ctx, m, samples, limit, model.Scaled{Adapter: adapter, Weight: 1})
	if err != nil {
		return nil, err
	}
	tokens := 0
	for i := range samples {
		tokens += samples[i].Trained()
	}
	l := &stepLoss{tally: tally{p: p, kl: kl}, examples: float64(len(samples))}
	if p.NLL > 0 {
		l.nll = p.NLL * l.examples / float64(tokens)
	}
	return l, nil
}

// weights are those of the tokens of a group, given their losses: the derivative of
// the step's loss, times the number of its examples, by each token's loss.
func (l *stepLoss) weights(group, list []data.Sample, losses []float32) []float32 {
	sums := logProbs(list, losses)
	weights := make([]float32, 0, len(losses))
	put := func(n int, w float64) {
		for range n {
			weights = append(weights, float32(w))
		}
	}
	for i := range group {
		s := &group[i]
		o := opinion{Chosen: sums[0]}
		sums = sums[1:]
		if s.Rejected != nil {
			o.Rejected, sums = sums[0], sums[1:]
		}
		res := l.add(s, o)
		l.plain -= float64(l.nll * o.Chosen)
		// The tally's own plain loss is by example; that of a step is by token.
		l.loss += l.p.NLL * o.Chosen / float64(s.Trained())
		put(s.Trained(), l.nll-res.Chosen)
		if s.Rejected != nil {
			put(s.Rejected.Trained(), -res.Rejected)
		}
	}
	return weights
}

// value is the loss of the step.
func (l *stepLoss) value() float64 { return (l.loss + l.plain) / l.examples }

// plain says whether every token counts by itself, which needs none of this.
func (p *preferences) plain() bool { return p.Kind() == objective.Tokens }
