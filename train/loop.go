package train

import (
	"context"
	"fmt"
	"time"

	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// next takes the samples of the next step.
func (r *runner) next() []data.Sample {
	n := r.perEpoch
	var samples []data.Sample
	for i := range r.cfg.take(n)(r.state.Sequences) {
		at := r.state.Sequences + i
		if at/n != r.epoch {
			r.epoch = at / n
			r.order = data.Mix(r.parts, r.cfg.Shuffle, r.cfg.Seed, r.epoch)
		}
		samples = append(samples, r.train[r.order[at%n]])
	}
	return samples
}

// loop goes from the present step to the last. Whatever is due after a step is part
// of the state, so that the loop can be left and entered again at any point.
func (r *runner) loop(ctx context.Context) error {
	s, c := &r.state, &r.cfg
	saved := s.Step
	evals, saves := c.every(c.EvalEvery, c.EvalsPerEpoch, r.perEpoch), c.every(c.SaveEvery, c.SavesPerEpoch, r.perEpoch)
	for {
		if s.EvalDue {
			if err := r.evaluate(ctx); err != nil {
				return err
			}
			s.EvalDue = false
		}
		last := s.Step == r.steps || s.Stopped
		if s.Step > saved && (last || saves > 0 && s.Step%saves == 0) {
			if err := r.save(); err != nil {
				return err
			}
			saved = s.Step
		}
		if last {
			return nil
		}
		begun := time.Now()
		samples := r.next()
		lr := r.rate(s.Step)
		got, err := r.lora.step(ctx, r.base.Model, r.opt, r.objective, samples, c, s.Step, lr)
		if err != nil {
			return err
		}
		s.Step++
		s.Sequences += len(samples)
		s.Trained += int64(got.trained)
		s.Tokens += int64(got.tokens)
		s.Loss = got.loss
		s.smooth(got.loss)
		s.EvalDue = r.evaluates() && (s.Step == r.steps || evals > 0 && s.Step%evals == 0)
		took := time.Since(begun).Seconds()
		speed := float64(got.tokens) / took
		r.pace, r.perStep = average(r.pace, speed), average(r.perStep, took)
		var growth map[string]float64
		if r.grows(s.Step) {
			growth = r.lora.growth()
			if err := r.base.rowGrowth(r.lora.adapter.Rows, growth); err != nil {
				return err
			}
		}
		err = r.log.write(LogLine{Step: s.Step, Growth: growth, Epoch: float64(s.Sequences) / float64(r.perEpoch), Loss: got.loss, LR: &lr,
			GradNorm: got.norm, Trained: got.trained, Tokens: got.tokens, Preferences: got.preferences, Distill: got.distill, Router: got.router}, speed)
		if err != nil {
			return err
		}
		r.tell(Progress{Phase: "training", Done: s.Step, Total: r.steps, LR: lr, GradNorm: got.norm,
			Left: time.Duration(float64(r.steps-s.Step) * r.perStep * float64(time.Second))})
	}
}

// average is a moving average that begins with its first value.
func average(old, x float64) float64 {
	if old == 0 {
		return x
	}
	return old + float64(0.2*(x-old))
}

// smooth keeps the moving average of the loss.
func (s *state) smooth(loss float64) {
	if s.Step == 1 {
		s.Smooth = loss
		return
	}
	s.Smooth += float64(0.1 * (loss - s.Smooth))
}

// evaluates says whether anything is to be found out on the way.
func (r *runner) evaluates() bool { return len(r.held) > 0 || len(r.cfg.SamplePrompts) > 0 }

// evaluate finds the loss on what was held out, and what the model answers.
func (r *runner) evaluate(ctx context.Context) error {
	texts, err := r.sampleTexts(ctx)
	if err != nil {
		return err
	}
	if len(r.held) == 0 {
		if err := r.log.write(LogLine{Step: r.state.Step, Samples: texts}, 0); err != nil {
			return err
		}
		return r.writeReport()
	}
	evaluate := Evaluate
	switch {
	case !r.objective.plain():
		evaluate = r.objective.evaluate
	case r.objective.teacher != nil:
		evaluate = r.objective.evaluateTaught
	}
	res, err := evaluate(ctx, r.base.Model, r.held, r.fitted.evaluated(), func(done int) {
		r.tell(Progress{Phase: "evaluating", Done: done, Total: len(r.held)})
	}, model.Scaled{Adapter: r.lora.adapter, Weight: 1})
	if err != nil {
		return err
	}
	r.state.EvalLast = &res
	if r.state.EvalFirst == nil {
		r.state.EvalFirst = &res
	}
	if err := r.judge(&res); err != nil {
		return err
	}
	if err := r.log.write(LogLine{Step: r.state.Step, Eval: &res, Samples: texts}, 0); err != nil {
		return err
	}
	return r.writeReport()
}

// judge compares an evaluation with the best so far.
func (r *runner) judge(res *EvalResult) error {
	s, c := &r.state, &r.cfg
	if s.Best != nil && !(res.Loss < s.Best.Loss-c.MinGain) {
		s.Stale++
		if s.Stopped = c.Patience > 0 && s.Stale >= c.Patience; s.Stopped && s.Step < r.steps {
			r.told(Progress{Phase: "training", Done: s.Step, Total: r.steps, Note: fmt.Sprintf(
				"step %d of %d ends the run: the held-out loss was best at step %d (%.4f)", s.Step, r.steps, s.BestStep, s.Best.Loss)})
		}
		return nil
	}
	s.Best, s.BestStep, s.Stale = res, s.Step, 0
	if !c.KeepBest {
		return nil
	}
	return s.saveBest(c.Output, r.lora.params)
}

// save writes a checkpoint of the present step.
func (r *runner) save() error {
	r.tell(Progress{Phase: "saving", Done: r.state.Step, Total: r.steps})
	if err := r.log.sync(); err != nil {
		return err
	}
	r.state.LogSize = r.log.size
	return r.state.save(r.cfg.Output, r.lora.params, r.opt)
}

func (r *runner) tell(p Progress) {
	m := memory()
	p.Loss, p.Smooth, p.Eval = r.state.Loss, r.state.Smooth, r.state.EvalLast
	p.TokensPerSecond, p.Elapsed, p.RSS, p.Peak = r.pace, time.Since(r.t0), m.rss, m.peak
	r.told(p)
}
