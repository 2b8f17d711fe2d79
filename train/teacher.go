package train

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime/debug"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// DistillConfig says from which larger model a run learns, beside the data itself. Numbers
// that are zero are the defaults.
type DistillConfig struct {
	Teacher string `json:"teacher,omitempty" yaml:"teacher,omitempty"` // a model with the same tokens; empty: none
	// TopK is how many of the teacher's predictions are kept for each trained token, 64 if
	// zero; what is left of the probability is kept as one number.
	TopK int `json:"top_k,omitempty" yaml:"top_k,omitempty"`
	// Weight is that of the divergence from the teacher, 0.5 if zero; the plain loss has the rest.
	Weight float64 `json:"weight,omitempty" yaml:"weight,omitempty"`
	// Temperature softens both models' predictions; 1 if zero.
	Temperature float64 `json:"temperature,omitempty" yaml:"temperature,omitempty"`
}

// filled is d with its defaults.
func (d DistillConfig) filled() DistillConfig {
	if d.TopK == 0 {
		d.TopK = 64
	}
	if d.Weight == 0 {
		d.Weight = 0.5
	}
	if d.Temperature == 0 {
		d.Temperature = 1
	}
	return d
}

func (d DistillConfig) check(objective string) error {
	if d.Teacher == "" {
		if d != (DistillConfig{}) {
			return errors.New("train: distillation needs a teacher")
		}
		return nil
	}
	f := d.filled()
	switch {
	case objective != "" && objective != "sft":
		return fmt.Errorf("train: objective %s does not learn from a teacher: distillation goes with sft", objective)
	case f.TopK < 1 || f.TopK > 1<<16:
		return fmt.Errorf("train: top_k of the teacher is %d: it can be 1 to 65536", d.TopK)
	case !(f.Weight > 0 && f.Weight <= 1):
		return fmt.Errorf("train: the teacher's weight is %v: it must be above 0 and at most 1", d.Weight)
	case !(f.Temperature >= 0.01 && f.Temperature <= 100):
		return fmt.Errorf("train: the temperature of distillation is %v: it can be 0.01 to 100", d.Temperature)
	}
	return nil
}

// DistillResult is how far a model is from its teacher.
type DistillResult struct {
	CrossEntropy float64 `json:"cross_entropy"` // the plain loss, mean over the trained tokens
	KL           float64 `json:"kl"`            // mean divergence from the teacher at the temperature, over its top tokens and the rest
}

// soft is what the teacher predicts for samples, in their order.
func (t *teacher) soft(list []data.Sample) (*model.Soft, error) {
	s := &model.Soft{K: t.head.K, Weight: float32(t.Weight), Temperature: float32(t.Temperature)}
	for i := range list {
		at, ok := t.place[data.Digest(list[i:i+1])]
		if !ok {
			return nil, fmt.Errorf("train: the teacher has not seen the sample of %s", describe(list[i:i+1]))
		}
		frame := make([]byte, at.size)
		if _, err := t.file.ReadAt(frame, at.from); err != nil {
			return nil, err
		}
		b, err := t.dec.DecodeAll(frame, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.file.Name(), err)
		}
		n := list[i].Trained()
		for range n * s.K {
			id, used := binary.Uvarint(b)
			if used <= 0 {
				return nil, fmt.Errorf("%s: a frame is too short", t.file.Name())
			}
			s.IDs, b = append(s.IDs, int32(id)), b[used:]
		}
		x := make([]float32, n*(s.K+1))
		if len(b) != 4*len(x) {
			return nil, fmt.Errorf("%s: a frame has %d bytes of probabilities, not %d", t.file.Name(), len(b), 4*len(x))
		}
		for j := range x {
			x[j] = math.Float32frombits(uint32(b[j])<<24 | uint32(b[len(x)+j])<<16 | uint32(b[2*len(x)+j])<<8 | uint32(b[3*len(x)+j]))
		}
		s.LogP, s.Rest = append(s.LogP, x[:n*s.K]...), append(s.Rest, x[n*s.K:]...)
	}
	return s, nil
}

// findTeacher makes what the teacher predicts for all samples ready: from the run's folder
// as far as it is there, else the teacher is run once, alone.
func (r *runner) findTeacher(ctx context.Context) error {
	d := r.cfg.Distill
	if d.Teacher == "" {
		return nil
	}
	d = d.filled()
	d.TopK = min(d.TopK, r.base.Tokenizer.Size())
	path := filepath.Join(r.cfg.Output, TeacherFile)
	want := teacherHeader{Teacher: r.state.Inputs["teacher"], K: d.TopK, Temperature: d.Temperature}
	t, note, err := openTeacher(path, want)
	if err != nil {
		return err
	}
	if note != "" {
		r.told(Progress{Phase: "teacher", Note: note})
	}
	t.DistillConfig = d
	if err := r.askTeacher(ctx, t); err != nil {
		t.Close()
		return err
	}
	r.objective.teacher = t
	return nil
}

// askTeacher runs the teacher on the samples that t has nothing of.
func (r *runner) askTeacher(ctx context.Context, t *teacher) error {
	all := append(r.train[:len(r.train):len(r.train)], r.held...)
	var missing []data.Sample
	asked := map[string]bool{}
	for i := range all {
		key := data.Digest(all[i : i+1])
		if asked[key] {
			continue
		}
		asked[key] = true
		if _, ok := t.place[key]; !ok {
			missing = append(missing, all[i])
		}
	}
	if len(missing) == 0 {
		return nil
	}
	have := len(asked) - len(missing)
	if have > 0 {
		r.told(Progress{Phase: "teacher", Note: fmt.Sprintf("%s has the predictions for %d sequences, %d are still to be made", t.file.Name(), have, len(missing))})
	}
	// The base waits in its file: its pages are not needed now.
	for _, v := range r.base.Source.Views {
		for _, x := range v.From {
			x.Release()
		}
	}
	b, err := r.openTeacherModel(model.Options{})
	if err != nil {
		return err
	}
	defer debug.FreeOSMemory()
	defer func() { b.Close() }()
	fit, err := r.fitTeacher(b, missing)
	if err != nil {
		return err
	}
	streams := ""
	if fit.opt.Stream {
		streams = ", read again for every pass"
	}
	r.told(Progress{Phase: "teacher", Note: fmt.Sprintf("the teacher is asked about %d sequences%s; peak memory about %d MB", len(missing), streams, fit.memory/1e6)})
	r.teacherMemory = fit.memory
	b.Model.Close()
	if b.Model, err = model.New(b.Source, fit.opt); err != nil {
		return err
	}
	vocab := min(b.Tokenizer.Size(), r.base.Tokenizer.Size())
	debug.FreeOSMemory() // what opening the model left behind
	return t.ask(ctx, b.Model, vocab, r.cfg.Threads, missing, fit.limit, func(n int) {
		r.tell(Progress{Phase: "teacher", Done: have + n, Total: len(asked)})
	})
}

// planTeacher is the memory that the teacher is going to take.
func (r *runner) planTeacher() (int64, error) {
	b, err := r.openTeacherModel(model.Options{})
	if err != nil {
		return 0, err
	}
	defer b.Close()
	fit, err := r.fitTeacher(b, append(r.train[:len(r.train):len(r.train)], r.held...))
	return fit.memory, err
}

// packing is the memory, in bytes, of what packs predictions up.
const packing = 6 << 20

// fitTeacher says how the teacher runs on samples in the memory that the run may take: with
// the largest passes that fit, streamed if it does not fit otherwise. The result does
// not depend on it.
func (r *runner) fitTeacher(b *Base, samples []data.Sample) (fitted, error) {
	c := &r.cfg
	opt := c.modelOptions()
	opt.KeepLayers = 0
	whole := c.Batch * c.Context
	held := allocated()
	loads := loadsOf(samples)
	need := func(limit int, opt model.Options) int64 {
		var s model.Shape
		eachLoad(loads, upTo(len(loads)), limit, widen(&s))
		perToken := int64(8*min(c.Distill.filled().TopK, b.Model.Vocab) + 4)
		bytes := held + b.Model.PassMemory(s, nil, opt) + int64(s.Trained)*perToken + int64(b.Model.Vocab)*4*int64(max(opt.Threads, 1)) + packing
		return runtimeMemory + b.mapped(opt.Stream) + bytes + int64(slack*float64(bytes))
	}
	if c.Memory == 0 {
		return fitted{opt: opt, limit: whole, memory: need(whole, opt)}, nil
	}
	least := int64(0)
	for _, opt := range c.smaller() {
		for limit := whole; limit >= 1; limit /= 2 {
			if least = need(limit, opt); margined(least) <= c.Memory {
				return fitted{opt: opt, limit: limit, memory: least}, nil
			}
		}
	}
	return fitted{}, format.Usagef("the teacher needs about %d MB and is given %d: a smaller teacher or a shorter context needs less", margined(least)/1e6, c.Memory/1e6)
}

// openTeacherModel opens the teacher if its tokens are those of the base.
func (r *runner) openTeacherModel(opt model.Options) (*Base, error) {
	b, err := OpenBase(r.cfg.Distill.Teacher, opt)
	if err != nil {
		return nil, err
	}
	if err := sameTokens(b, r.base); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// sameTokens says in which token two models differ. That one has more than the other is
// no difference if the others have no meaning: vocabularies are filled up to round sizes.
func sameTokens(teacher, base *Base) error {
	t, b := teacher.Tokenizer, base.Tokenizer
	for id := range int32(min(t.Size(), b.Size())) {
		if t.Token(id) != b.Token(id) {
			return fmt.Errorf("train: the teacher %s has other tokens than the base %s (token %d is %q there and %q here): distillation needs two models with the same tokenizer",
				teacher.Path, base.Path, id, t.Token(id), b.Token(id))
		}
	}
	if n := min(t.Size(), b.Size()); n < max(t.Size(), b.Size())*9/10 {
		return fmt.Errorf("train: the teacher %s has %d tokens and the base %s %d: distillation needs two models with the same tokenizer", teacher.Path, t.Size(), base.Path, b.Size())
	}
	return nil
}

// evaluateTaught is Evaluate with the teacher's part in the loss.
func (p *preferences) evaluateTaught(ctx context.Context, m *model.Model, samples []data.Sample, limit int, progress func(done int), adapters ...model.Scaled) (EvalResult, error) {
	var all, hard, soft moments
	done := 0
	for _, group := range passes(samples, limit) {
		if err := ctx.Err(); err != nil {
			return EvalResult{}, err
		}
		b := batchOf(group)
		var err error
		if b.Soft, err = p.teacher.soft(group); err != nil {
			return EvalResult{}, err
		}
		loss, err := m.Loss(b, adapters...)
		if err != nil {
			return EvalResult{}, err
		}
		all.add(loss.PerToken)
		hard.add(loss.Hard)
		soft.add(loss.Soft)
		done += len(group)
		if progress != nil {
			progress(done)
		}
	}
	r := EvalResult{Tokens: all.n, Sequences: len(samples), Distill: &DistillResult{}}
	r.Loss, r.LossError = all.mean()
	r.Distill.CrossEntropy, _ = hard.mean()
	r.Distill.KL, _ = soft.mean()
	r.Perplexity = math.Exp(r.Distill.CrossEntropy)
	return r, nil
}
