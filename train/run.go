package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/atomicfile"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/objective"
	"github.com/graft-lora/graft/train/optim"
	"go.yaml.in/yaml/v3"
)

// Names of the files in a run's folder.
const (
	ConfigFile = "run.yaml"     // the settings, to run it again
	LogFile    = "log.jsonl"    // a [LogLine] for each step and evaluation
	RecordFile = "run.json"     // the [Record], written last
	CurveFile  = "loss.svg"     // the loss over the steps
	GGUFFile   = "adapter.gguf" // the adapter, beside PEFT's two files
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
	if err == nil {
		err = base.UseTokens(&c.Adapter)
	}
	if err == nil {
		err = r.read()
	}
	if err == nil && c.RouterLoss > 0 && base.Model.MoE.Experts == 0 {
		err = format.Usagef("router_loss: %s has no experts", c.Base)
	}
	if err == nil && c.Adapter.From != "" {
		err = r.startFrom(c.Adapter.From)
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

// ResumeConfig gives the settings that the run in dir was begun with, whose Output is dir.
func ResumeConfig(dir string) (Config, error) {
	c, err := LoadConfig(filepath.Join(dir, ConfigFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s holds no run to resume: %w", dir, err)
	}
	c.Output = dir
	return c, err
}

// begin looks at the output folder: what to go on from, or an empty folder.
func begin(c *Config, mode Mode, told func(Progress)) (*state, error) {
	// transformers would take what is written there for a part of the model.
	if base, err := os.Stat(c.Base); err == nil {
		if out, err := os.Stat(c.Output); err == nil && os.SameFile(base, out) {
			return nil, format.Usagef("%s is the base's own folder: the adapter goes into another", c.Output)
		}
	}
	config := filepath.Join(c.Output, ConfigFile)
	_, err := os.Stat(config)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if there && mode == Fresh {
		return nil, fmt.Errorf("%s holds a run already: resume it, or replace it: %w", c.Output, fs.ErrExist)
	}
	if mode == Resume {
		if !there {
			return nil, fmt.Errorf("%s holds no run to resume: %w", c.Output, fs.ErrNotExist)
		}
		if err := removeTemporary(c.Output, filepath.Join(c.Output, "checkpoints")); err != nil {
			return nil, err
		}
		s, damaged, err := latest(c.Output)
		for _, d := range damaged {
			told(Progress{Phase: "reading", Note: d + " is damaged and passed over"})
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // killed before its first checkpoint: begin again
		}
		if err != nil {
			return nil, err
		}
		if names := differs(s.Config, *c); len(names) > 0 {
			return nil, fmt.Errorf("%s was begun with other settings, which cannot change on the way: %v", c.Output, names)
		}
		return s, nil
	}
	if err := os.MkdirAll(c.Output, 0o777); err != nil {
		return nil, err
	}
	if err := removeCheckpoints(c.Output, mode); err != nil {
		return nil, err
	}
	for _, name := range []string{LogFile, ReferenceFile, TeacherFile, ReportFile, EventsFile, RecordFile, CurveFile, GGUFFile, MomentsFile, "adapter_config.json", "adapter_model.safetensors"} {
		path := filepath.Join(c.Output, name)
		if _, err := os.Stat(path); err == nil && mode != Replace {
			return nil, fmt.Errorf("%s is there already: %w", path, fs.ErrExist)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return nil, err
	}
	return nil, atomicfile.WriteFile(config, b, true)
}

// removeCheckpoints removes the checkpoints of an earlier run, if mode allows it, and
// nothing else that may stand in their folder.
func removeCheckpoints(dir string, mode Mode) error {
	list, err := checkpoints(dir)
	if err != nil || len(list) == 0 {
		return err
	}
	if mode != Replace {
		return fmt.Errorf("%s is there already: %w", list[0], fs.ErrExist)
	}
	for _, path := range append(list, bestPath(dir)) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return removeTemporary(dir, filepath.Join(dir, "checkpoints"))
}

// removeTemporary removes the temporary files that a killed run leaves in its folders.
func removeTemporary(dirs ...string) error {
	for _, dir := range dirs {
		list, err := filepath.Glob(filepath.Join(escape(dir), ".*.tmp"))
		if err != nil {
			return err
		}
		for _, path := range list {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
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

// startFrom takes an adapter that exists for the one to train.
func (r *runner) startFrom(path string) (err error) {
	if r.inputs["adapter"], err = digestPath(path); err != nil {
		return err
	}
	a, err := r.base.LoadAdapter(path)
	if err != nil {
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
