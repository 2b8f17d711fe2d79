package train

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/objective"
	"github.com/graft-lora/graft/train/optim"
)

// load is the size of what is run for a sample, or for a pass.
type load struct {
	lens            []int // of its sequences
	tokens, trained int
}

// loadOf is the load of an example with all its answers.
func loadOf(s data.Sample) (l load) {
	for _, a := range answers([]data.Sample{s}) {
		l.tokens += len(a.IDs)
		l.trained += a.Trained()
		from := 0
		for _, d := range a.Docs[min(1, len(a.Docs)):] {
			l.lens = append(l.lens, d-from)
			from = d
		}
		l.lens = append(l.lens, len(a.IDs)-from)
	}
	return l
}

// loadsOf is loadOf of each of samples.
func loadsOf(samples []data.Sample) (list []load) {
	for _, s := range samples {
		list = append(list, loadOf(s))
	}
	return list
}

// ahead is the passes that a run is still going to make.
type ahead struct {
	train []load // of the samples
	held  []load
	epoch func(epoch int) []int // order
	next  int                   // sequence of the run
	steps int                   // to make
	take  func(from int) int    // sequences of the step that begins there

	perEpoch int // sequences of an epoch
}

// mostAhead is how many sequences are looked at; of longer runs the rest is taken to be like them.
const mostAhead = 100_000

// lookAhead prepares the view on what is to come.
func (r *runner) lookAhead() *ahead {
	a := &ahead{perEpoch: r.perEpoch, next: r.state.Sequences, steps: r.steps - r.state.Step}
	a.train, a.held = loadsOf(r.train), loadsOf(r.held)
	a.epoch = func(epoch int) []int { return data.Mix(r.parts, r.cfg.Shuffle, r.cfg.Seed, epoch) }
	a.take = r.cfg.take(r.perEpoch)
	return a
}

// take says how many of n sequences' repetitions the step takes that begins at one of them.
func (c *Config) take(n int) func(from int) int {
	return func(from int) int {
		take := c.Batch * c.Accumulate
		if c.Steps == 0 {
			take = min(take, c.sequences(n)-from)
		}
		return take
	}
}

// training calls f with the samples of each pass of up to limit tokens and returns how
// many times these are all that the run makes.
func (a *ahead) training(limit int, f func(samples []int, l load)) float64 {
	at, epoch := a.next, -1
	var order []int
	for step := range a.steps {
		if at-a.next >= mostAhead {
			return float64(a.steps) / float64(step)
		}
		var samples []int
		for i := range a.take(at) {
			if (at+i)/a.perEpoch != epoch {
				epoch = (at + i) / a.perEpoch
				order = a.epoch(epoch)
			}
			samples = append(samples, order[(at+i)%a.perEpoch])
		}
		at += len(samples)
		eachLoad(a.train, samples, limit, f)
	}
	return 1
}

// evaluation is the same for one evaluation.
func (a *ahead) evaluation(limit int, f func(samples []int, l load)) {
	eachLoad(a.held, upTo(len(a.held)), limit, f)
}

// upTo is 0 … n-1.
func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// eachLoad calls f with each pass of up to limit tokens over some of the samples, whose loads are given.
func eachLoad(loads []load, samples []int, limit int, f func(samples []int, l load)) {
	divide(len(samples), limit, func(i int) int { return loads[samples[i]].tokens }, func(from, to int) {
		var sum load
		for _, i := range samples[from:to] {
			sum.lens = append(sum.lens, loads[i].lens...)
			sum.tokens += loads[i].tokens
			sum.trained += loads[i].trained
		}
		f(samples[from:to], sum)
	})
}

// widen makes s the shape of each pass that it is called with and of those before.
func widen(s *model.Shape) func(samples []int, l load) {
	return func(_ []int, l load) {
		s.Tokens, s.Trained = max(s.Tokens, l.tokens), max(s.Trained, l.trained)
		for _, n := range l.lens {
			s.Longest = max(s.Longest, n)
		}
	}
}

// shape is the largest of all passes of up to limit tokens, those of evaluations, which
// are no larger than those of training, among them.
func (a *ahead) shape(limit int) (s model.Shape) {
	a.training(limit, widen(&s))
	a.evaluation(min(limit, s.Tokens), widen(&s))
	return s
}

// pace is how long passes take: so long, and so long for each operation.
type pace struct{ pass, operation float64 }

func (p pace) of(operations float64) float64 { return p.pass + p.operation*operations }

// rehearse times passes that the run is going to make, the largest one and a small
// one, and leaves nothing behind but the model's buffers in the size that they are
// going to have.
func (r *runner) rehearse(ctx context.Context) (pace, error) {
	costs := r.base.Model.Costs(r.ranks(), r.fitted.opt, true)
	type pass struct {
		samples    []int
		operations float64
	}
	var large, small pass
	var sum, n float64
	r.ahead.training(r.cfg.limit(), func(samples []int, l load) {
		ops := costs.Of(l.lens, l.trained).Total()
		sum, n = sum+ops, n+1
		if ops > large.operations {
			large = pass{samples, ops}
		}
	})
	// The small one is about half as large as they are on average.
	away := func(ops float64) float64 { return math.Abs(ops - sum/n/2) }
	r.ahead.training(r.cfg.limit(), func(samples []int, l load) {
		if ops := costs.Of(l.lens, l.trained).Total(); small.samples == nil || away(ops) < away(small.operations) {
			small = pass{samples, ops}
		}
	})
	plain := &preferences{Objective: supervisedObjective()}
	run := func(p pass) (float64, error) {
		var list []data.Sample
		for _, i := range p.samples {
			list = append(list, r.train[i])
		}
		begun := time.Now()
		_, err := r.lora.gradient(ctx, r.base.Model, plain, list, &r.cfg, 0)
		return time.Since(begun).Seconds(), err
	}
	first, err := run(large) // fills buffers and page cache
	if err != nil {
		return pace{}, err
	}
	long := first
	if first < 5 {
		if long, err = run(large); err != nil {
			return pace{}, err
		}
	}
	if small.operations > 0.8*large.operations {
		return pace{0, long / large.operations}, nil
	}
	short, err := run(small)
	if err != nil {
		return pace{}, err
	}
	p := pace{operation: (long - short) / (large.operations - small.operations)}
	p.pass = short - p.operation*small.operations
	if p.pass < 0 || p.operation <= 0 { // something disturbed one of them
		p = pace{0, (long + short) / (large.operations + small.operations)}
	}
	return p, nil
}

// ranks are those of the adapter, by matrix.
func (r *runner) ranks() map[string]int {
	ranks := map[string]int{}
	for _, n := range r.lora.rowNames {
		ranks[n] = 0
	}
	for _, n := range r.lora.names {
		ranks[n] = r.lora.adapter.Pairs[n].Rank()
		if f := r.lora.adapter.Fixed[n]; f != nil {
			ranks[n] += f.Rank()
		}
	}
	return ranks
}

// expected is how long the run is going to take, and the tokens that it trains on.
type expected struct {
	seconds float64 // evaluations, the reference's opinions and steps of the optimizer included
	train   float64 // of that, training
	tokens  float64
}

// expect says how long the rest of the run takes.
func (r *runner) expect(ctx context.Context) (e expected, err error) {
	p, err := r.rehearse(ctx)
	if err != nil {
		return e, err
	}
	m, a, limit := r.base.Model, r.ahead, r.cfg.limit()
	costs := m.Costs(r.ranks(), r.fitted.opt, true)
	times := a.training(limit, func(_ []int, l load) {
		e.train += p.of(costs.Of(l.lens, l.trained).Total())
		e.tokens += float64(l.tokens)
	})
	e.train, e.tokens = times*e.train, times*e.tokens
	e.train += float64(a.steps) * r.optimizing()
	forward := m.Costs(nil, r.fitted.opt, false)
	evaluation := func(_ []int, l load) { e.seconds += p.of(forward.Of(l.lens, l.trained).Total()) }
	a.evaluation(r.fitted.evaluated(), evaluation)
	e.seconds *= float64(r.evaluations())
	if r.objective.NeedsReference() {
		eachLoad(a.train, upTo(len(a.train)), limit, evaluation)
	}
	// The sketch of inputs at the end, over the first samples.
	var first []int
	for i, tokens := 0, 0; i < len(a.train) && tokens < sketchTokens(r.state.Tokens+int64(e.tokens)); i++ {
		first, tokens = append(first, i), tokens+a.train[i].tokens
	}
	eachLoad(a.train, first, limit, evaluation)
	e.seconds += e.train
	return e, nil
}

// evaluations is how many there are still going to be.
func (r *runner) evaluations() (n int) {
	if len(r.held) == 0 {
		return 0
	}
	if r.state.EvalDue || r.state.Step == 0 {
		n++
	}
	if every := r.cfg.every(r.cfg.EvalEvery, r.cfg.EvalsPerEpoch, r.perEpoch); every > 0 {
		n += r.steps/every - r.state.Step/every
		if r.steps%every == 0 {
			n--
		}
	}
	return n + 1
}

// optimizing is about how long the optimizer's step takes, in seconds: reading the
// gradients and writing them are some part of it.
func (r *runner) optimizing() float64 {
	begun := time.Now()
	optim.Norm(r.lora.params, 2)
	r.lora.grads.Zero()
	return 3 * time.Since(begun).Seconds()
}

// text says what is expected.
func (e expected) text() string {
	return fmt.Sprintf("time about %.0f s, at %.0f tokens/s", e.seconds, e.tokens/e.train)
}

func supervisedObjective() *objective.Objective {
	o, err := objective.New(objective.Settings{})
	if err != nil {
		panic(err) // the plain loss has no settings that could be wrong
	}
	return o
}
