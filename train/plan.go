package train

import (
	"context"
	"math"

	"github.com/graft-lora/graft/train/data"
)

// Plan is what a run is going to do, and what it needs.
type Plan struct {
	Architecture string         `json:"architecture"`
	Objective    string         `json:"objective"`
	Teacher      string         `json:"teacher,omitempty"`      // that it also learns from
	Weights      int64          `json:"weights"`                // of the base
	Parameters   int64          `json:"parameters"`             // trained numbers
	Matrices     int            `json:"matrices"`               // that the adapter changes
	TrainedRows  []TrainedToken `json:"trained_rows,omitempty"` // tokens whose rows are trained
	Data         data.Stats     `json:"data"`
	// Datasets are the files, where they are several.
	Datasets    []DatasetStats `json:"datasets,omitempty"`
	Notes       []string       `json:"notes,omitempty"` // what is cut off or left out
	TrainOn     int            `json:"train_sequences"`
	HeldOut     int            `json:"held_out_sequences"`
	EpochTokens int64          `json:"epoch_tokens"` // run in one time through the data
	Steps       int            `json:"steps"`
	Tokens      int64          `json:"tokens"` // run in training in all
	Memory      int64          `json:"memory"` // resident, at the peak, bytes
	// TokensPerSecond follows from two passes that were timed, and so does Seconds, for
	// all of the run: evaluations, too.
	TokensPerSecond float64 `json:"tokens_per_second"`
	Seconds         float64 `json:"seconds"`
	Disk            int64   `json:"disk"` // of the adapter's files and the checkpoints kept, at most
	LR              float64 `json:"lr"`   // that the run has
	// SuggestedLR and SuggestedRank are rules of thumb, see [Base.SuggestLR] and [SuggestRank].
	SuggestedLR   float64 `json:"suggested_lr"`
	SuggestedRank int     `json:"suggested_rank"`
}

// Percent is the part of the base's weights that is trained, in percent.
func (p *Plan) Percent() float64 { return 100 * float64(p.Parameters) / float64(p.Weights) }

// SuggestLR is a rate for LoRA on a model of this width: ten times what is usual for
// training all of it, 5e-5 at a width of 2000 and more where it is narrower, with the power of
// the width that Thinking Machines fitted for Llama models. Above 2e-3 it is not taken.
func (b *Base) SuggestLR() float64 {
	return math.Min(2e-3, round2(10*5e-5*math.Pow(2000/float64(b.Model.Hidden), 0.781)))
}

// round2 rounds to two digits.
func round2(x float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(x))-1)
	return math.Round(x/unit) * unit
}

// SuggestRank is the smallest usual rank with room for what the data can teach: a
// number of an adapter holds about two bits, a trained token brings about one
// (Schulman et al., LoRA without regret, 2025). perRank is the number of trained
// numbers at rank 1.
func SuggestRank(trained, perRank int64) int {
	for _, r := range []int{8, 16, 32, 64, 128} {
		if 2*perRank*int64(r) >= trained {
			return r
		}
	}
	return 256
}

// lr is the peak rate of the run.
func (r *runner) lr() float64 {
	if r.cfg.AutoLR {
		return r.base.SuggestLR()
	}
	return r.cfg.LR
}

// MakePlan finds out what [Run] would do with c, without writing anything; c needs no Output.
func MakePlan(ctx context.Context, c Config) (Plan, error) {
	if c.Output == "" {
		c.Output = "." // never written to
	}
	c.chooseCompute(Fresh, func(Progress) {})
	r, err := open(c, nil)
	if err != nil {
		return Plan{}, err
	}
	defer r.base.Close()
	if err := r.ready(ctx); err != nil {
		return Plan{}, err
	}
	p := Plan{Architecture: r.base.Source.Arch, Objective: r.objective.Objective.Name, Parameters: r.lora.count(), Matrices: len(r.lora.names), TrainedRows: r.tokens(),
		Data: r.stats, Datasets: r.several(), Notes: append(c.notes[:len(c.notes):len(c.notes)], r.notes...), TrainOn: r.perEpoch, HeldOut: r.heldAll, Steps: r.steps, LR: r.lr(), SuggestedLR: r.base.SuggestLR()}
	p.Weights = r.base.weights()
	var trained int64
	first := 0
	for _, part := range r.parts {
		for i := range r.train[first : first+part.Samples] {
			s := &r.train[first+i]
			p.EpochTokens += int64(part.Weight * float64(s.Size()))
			trained += int64(part.Weight * float64(s.Trained()))
		}
		first += part.Samples
	}
	var perRank int64
	for _, n := range r.lora.names {
		pair := r.lora.adapter.Pairs[n]
		perRank += int64(pair.A.Cols + pair.B.Rows)
	}
	p.SuggestedRank = SuggestRank(trained, perRank)
	if err := r.fit(); err != nil {
		return p, err
	}
	p.Memory = r.fitted.memory
	if r.taught > 0 {
		m, err := r.planTeacher()
		if err != nil {
			return p, err
		}
		p.Memory = max(p.Memory, m)
	}
	width := int64(2)
	if c.Adapter.Float32 {
		width = 4
	}
	state := p.Parameters
	for _, t := range r.opt.State().Tensors {
		state += int64(len(t.Data))
	}
	p.Disk = 2*width*p.Parameters + 4*state*int64(c.KeepCheckpoints)
	if c.KeepBest {
		p.Disk += 4 * p.Parameters
	}
	e, err := r.expect(ctx)
	p.Tokens, p.TokensPerSecond, p.Seconds = int64(e.tokens), e.tokens/e.train, e.seconds
	if r.taught > 0 {
		// The teacher runs once, forward only, on what is trained on and what is held out.
		p.Teacher = r.cfg.Distill.Teacher
		all := append(r.train[:len(r.train):len(r.train)], r.held...)
		tokens := 0
		for i := range all {
			tokens += len(all[i].IDs)
			p.Disk += int64(all[i].Trained()) * int64(4+6*r.cfg.Distill.filled().TopK)
		}
		p.Seconds += float64(tokens) / p.TokensPerSecond / 3 * float64(r.taught) / float64(p.Weights)
	}
	return p, err
}

// weights is the number of weights of the model.
func (b *Base) weights() (sum int64) {
	for _, v := range b.Source.Views {
		n := int64(1)
		for _, d := range v.Shape {
			n *= d
		}
		sum += n
	}
	return sum
}
