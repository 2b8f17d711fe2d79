package train

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/objective"
	"github.com/graft-lora/graft/train/optim"
)

// Mode says what Run does with a folder that holds a run already.
type Mode int

// Ways to begin.
const (
	Fresh   Mode = iota // the folder must hold no run
	Replace             // what an earlier run left there is removed
	Resume              // go on from the newest whole checkpoint, or begin if there is none yet
)

// Progress is told to a person while a run goes on.
type Progress struct {
	Phase           string // "reading", "reference", "evaluating", "training", "saving"
	Done, Total     int    // of the phase: steps, or sequences
	Loss            float64
	Smooth          float64 // moving average of the loss
	LR              float64
	GradNorm        float64
	TokensPerSecond float64 // over the latest steps
	Elapsed, Left   time.Duration
	RSS, Peak       int64       // resident memory, bytes
	Eval            *EvalResult // the latest evaluation
	Note            string      // something to be told once, else ""
}

// Result is what a run came to.
type Result struct {
	Steps           int          `json:"steps"`
	Sequences       int          `json:"sequences"` // trained on, repetitions counted
	Tokens          int64        `json:"tokens"`
	Trained         int64        `json:"trained_tokens"`
	Loss            float64      `json:"loss"`        // of the last step
	Smooth          float64      `json:"smooth_loss"` // moving average at the end
	EvalFirst       *EvalResult  `json:"eval_first,omitempty"`
	EvalLast        *EvalResult  `json:"eval_last,omitempty"`
	EvalBest        *EvalResult  `json:"eval_best,omitempty"` // of step BestStep, whose adapter was written if KeepBest says so
	BestStep        int          `json:"best_step,omitempty"`
	Parameters      int64        `json:"parameters"` // trained numbers
	Seconds         float64      `json:"seconds"`    // of this process
	TokensPerSecond float64      `json:"tokens_per_second"`
	PeakRSS         int64        `json:"peak_rss"`
	Expected        Expected     `json:"expected"` // before the first step
	Files           []FileDigest `json:"files"`    // the adapter in its forms
}

// Expected is what was expected of a run, or of what was left of it when it was resumed.
type Expected struct {
	Memory  int64   `json:"memory"`  // resident at the peak, bytes
	Seconds float64 `json:"seconds"` // from the first step on
}

// runner is a run under way.
type runner struct {
	cfg      Config
	base     *Base
	train    []data.Sample // of all files, one after another
	parts    []data.Part   // of them
	perEpoch int           // sequences that come in an epoch
	datasets []DatasetStats
	taught   int64 // weights of the teacher
	// teacherMemory is what the teacher was expected to take, if it was asked.
	teacherMemory int64
	stats         data.Stats // of all files
	notes         []string   // what is cut off or left out
	held          []data.Sample
	heldAll       int // before EvalLimit
	inputs        map[string][]FileDigest
	samples       string // digest of train and held
	lora          *lora
	objective     *preferences
	opt           optim.Optimizer
	rate          optim.Schedule
	schedule      optim.ScheduleSettings
	steps         int
	state         state
	log           *runLog
	ahead         *ahead
	fitted        fitted
	expected      Expected
	order         []int // of the epoch
	epoch         int   // that order is of; -1 before the first
	t0            time.Time
	pace          float64 // tokens per second, moving average
	perStep       float64 // seconds per step, moving average
	told          func(Progress)
}

// Run trains an adapter and writes it, with a log and a record of the run, into
// c.Output. progress, if not nil, is called from this goroutine about what goes on.
//
// The adapter and the log (but for the timing in it) are functions of the files and
// the settings: not of threads, memory or kernel tier, nor of interruptions. When ctx
// ends, the run saves a checkpoint and returns the context's error; after a kill,
// Resume goes on from the last checkpoint.
func Run(ctx context.Context, c Config, mode Mode, progress func(Progress)) (Result, error) {
	c.fill()
	if err := c.Check(); err != nil {
		return Result{}, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	for _, note := range c.notes {
		progress(Progress{Phase: "reading", Note: note})
	}
	c.chooseCompute(mode, progress)
	from, err := begin(&c, mode, progress)
	if err != nil {
		return Result{}, err
	}
	r, err := open(c, progress)
	if err != nil {
		if mode != Resume {
			// The run has not begun: its folder is free for another try.
			os.Remove(filepath.Join(c.Output, ConfigFile))
			os.Remove(c.Output) // if that was all
		}
		return Result{}, err
	}
	defer r.base.Close()
	return r.run(ctx, from)
}

// open opens the base and reads the data of a run.
func open(c Config, progress func(Progress)) (*runner, error) {
	c.fill()
	if err := c.Check(); err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	base, err := OpenHeld(c.Base, c.Hold, c.modelOptions())
	if err != nil {
		return nil, err
	}
	r, err := newRunner(base, c, progress)
	if err == nil {
		err = base.checkSpecial(c.special)
	}
	var from *model.Adapter
	if err == nil {
		from, err = base.Prepare(&c.Adapter)
	}
	if err == nil {
		err = r.read()
	}
	if err == nil && c.RouterLoss > 0 && base.Model.MoE.Experts == 0 {
		err = format.Usagef("router_loss: %s has no experts", c.Base)
	}
	if err == nil && from != nil {
		err = r.startFrom(from)
	}
	if err != nil {
		base.Close()
		return nil, err
	}
	return r, nil
}

// newRunner prepares a run of c on base.
func newRunner(base *Base, c Config, progress func(Progress)) (*runner, error) {
	o, err := objective.New(c.Objective)
	if err != nil {
		return nil, err
	}
	return &runner{cfg: c, base: base, objective: &preferences{Objective: o}, told: progress, epoch: -1, t0: time.Now(), inputs: map[string][]FileDigest{}}, nil
}

// read makes the samples, and the digests of all that goes in.
func (r *runner) read() error {
	c := &r.cfg
	r.told(Progress{Phase: "reading"})
	var err error
	if r.inputs["base"], err = digestFiles(r.base.files()...); err != nil {
		return err
	}
	enc, err := r.encoder()
	if err != nil {
		return err
	}
	if err := r.readData(enc); err != nil {
		return err
	}
	if c.Distill.Teacher != "" {
		t, err := r.openTeacherModel(model.Options{})
		if err != nil {
			return err
		}
		files := t.files()
		r.taught = t.weights()
		t.Close()
		if r.inputs["teacher"], err = digestFiles(files...); err != nil {
			return err
		}
	}
	if c.HeldOut != "" {
		if r.inputs["held_out"], err = digestFiles(c.HeldOut); err != nil {
			return err
		}
		held, err := r.readSet(enc, r.inputs["held_out"][0], c.Fields)
		if err != nil {
			return err
		}
		if err := enc.Check(held, c.HeldOut); err != nil {
			return err
		}
		for _, note := range held.Stats.Notes() {
			r.notes = append(r.notes, c.HeldOut+": "+note)
			r.told(Progress{Phase: "reading", Note: c.HeldOut + ": " + note})
		}
		r.held = held.Samples
	}
	return nil
}

// encoder makes the samples of the run, with the template that it asks for.
func (r *runner) encoder() (_ *data.Encoder, err error) {
	c := &r.cfg
	if c.ChatTemplate != "" {
		if r.inputs["chat_template"], err = digestFiles(c.ChatTemplate); err != nil {
			return nil, err
		}
		if err := r.base.UseTemplate(c.ChatTemplate); err != nil {
			return nil, err
		}
	}
	return r.base.Encoder(c.Context, c.Samples), nil
}

// startFrom takes an adapter that exists, that of the settings, for the one to train.
func (r *runner) startFrom(a *model.Adapter) (err error) {
	if r.inputs["adapter"], err = digestPath(r.cfg.Adapter.From); err != nil {
		return err
	}
	if a.Rows == nil {
		if a.Rows, err = r.startRows(); err != nil {
			return err
		}
	}
	r.lora, err = wrapLoRA(r.base.Model, a, &r.cfg.Adapter, r.cfg.Seed)
	return err
}

// run trains, from a checkpoint or from the beginning, and writes what came of it.
func (r *runner) run(ctx context.Context, from *state) (Result, error) {
	if err := r.prepare(ctx, from); err != nil {
		return Result{}, err
	}
	defer r.log.Close()
	// The teacher comes first: the buffers of the passes are not there yet.
	if err := r.findTeacher(ctx); err != nil {
		return Result{}, err
	}
	if t := r.objective.teacher; t != nil {
		defer t.Close()
	}
	if r.steps > r.state.Step {
		e, err := r.expect(ctx)
		if err != nil && ctx.Err() == nil {
			return Result{}, err
		}
		if err == nil {
			r.expected = Expected{max(r.fitted.memory, r.teacherMemory), e.seconds}
			r.told(Progress{Phase: "reading", Note: e.text()})
		}
	}
	if err := r.findReference(ctx); err != nil {
		return Result{}, err
	}
	// What reading the data left behind would stay resident: steps allocate next to
	// nothing, so that the collector would not come by again.
	debug.FreeOSMemory()
	if err := r.loop(ctx); err != nil {
		if ctx.Err() != nil && r.opt != nil {
			// Interrupted: nothing of the steps made is lost.
			if serr := r.save(); serr != nil {
				return Result{}, errors.Join(err, serr)
			}
		}
		return Result{}, err
	}
	return r.finish(ctx)
}

// ready makes the adapter, the optimizer and the schedule.
func (r *runner) ready(ctx context.Context) (err error) {
	c := &r.cfg
	if r.perEpoch == 0 {
		return fmt.Errorf("%s: nothing is left to train on", c.title())
	}
	r.samples = data.Digest(r.train) + "+" + data.Digest(r.held)
	r.heldAll = len(r.held)
	if c.EvalLimit > 0 && len(r.held) > c.EvalLimit {
		r.held = r.held[:c.EvalLimit]
	}
	r.steps = c.steps(r.perEpoch)
	if r.rate, r.schedule, err = c.schedule(r.steps, r.lr()); err != nil {
		return err
	}
	if r.lora == nil {
		ac, note := c.Adapter, ""
		if ac.QALoRA {
			if ac, note, err = r.base.poolTargets(ac); err != nil {
				return err
			}
			if note != "" {
				r.told(Progress{Phase: "reading", Note: note})
			}
		}
		rows, err := r.startRows()
		if err != nil {
			return err
		}
		if r.lora, err = newLoRA(ctx, r.base.Model, &ac, c.Seed, r.train, rows); err != nil {
			return err
		}
		if r.lora.note != "" {
			r.told(Progress{Phase: "reading", Note: r.lora.note})
			r.notes = append(r.notes, r.lora.note)
		}
		if c.Adapter.Invocation != "" {
			if r.lora.adapter.Invocation, err = r.base.invocation(c.Adapter.Invocation); err != nil {
				return err
			}
		}
	}
	if c.Adapter.QALoRA {
		if err := r.lora.pool(r.base, c.Adapter.From); err != nil {
			return err
		}
	}
	r.lora.setRatio(c.LRRatio)
	r.opt, err = optim.New(c.Optimizer, r.lora.params)
	return err
}

// prepare makes what a run needs and goes to where it is to go on.
func (r *runner) prepare(ctx context.Context, from *state) error {
	c := &r.cfg
	if err := r.ready(ctx); err != nil {
		return err
	}
	r.state = state{Config: *c, Samples: r.samples, Inputs: map[string]string{}, EvalDue: r.evaluates()}
	for role, files := range r.inputs {
		r.state.Inputs[role] = digestOf(files)
	}
	if from != nil {
		for role, d := range r.state.Inputs {
			if from.Inputs[role] != d {
				return fmt.Errorf("%s: the %s is not the one that the run was begun with", c.Output, role)
			}
		}
		if from.Samples != r.samples {
			return fmt.Errorf("%s: the tokens of the data are not those that the run was begun with", c.Output)
		}
		if err := from.restore(r.lora.params, r.opt); err != nil {
			return err
		}
		r.lora.sync()
		from.Config, from.Inputs = r.state.Config, r.state.Inputs
		r.state = *from
	}
	err := r.fit()
	if err != nil {
		return err
	}
	r.told(Progress{Phase: "reading", Note: fmt.Sprintf("%s; %speak memory about %d MB", r.plan(), r.fitted.text, r.fitted.memory/1e6)})
	r.log, err = openLog(filepath.Join(c.Output, LogFile), r.state.LogSize)
	return err
}

// plan says in words what is going to happen.
func (r *runner) plan() string {
	tokens, trained := 0, 0
	for _, s := range r.train {
		tokens += s.Size()
		trained += s.Trained()
		if s.Rejected != nil {
			trained += s.Rejected.Trained()
		}
	}
	text := fmt.Sprintf("%d numbers are trained in %d matrices%s; %d sequences of %d tokens, of which %d are trained; %d steps of %d sequences",
		r.lora.count(), len(r.lora.names), r.tokensText(), len(r.train), tokens, trained, r.steps, r.cfg.Batch*r.cfg.Accumulate) + r.lora.leftOut()
	if r.heldAll > 0 {
		text += fmt.Sprintf("; %d held out, %d of them evaluated", r.heldAll, len(r.held))
	}
	return text
}
