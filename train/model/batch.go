package model

import (
	"fmt"
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// Batch is sequences laid end to end. A token sees itself and those before it in
// its own sequence.
type Batch struct {
	IDs []int32
	// Lens are the lengths of the sequences, which sum to len(IDs); nil means one.
	Lens []int
	// Targets[t] is the token that position t is to predict, or negative where the
	// loss is not wanted. Nil where there is no loss. See [ShiftLabels].
	Targets []int32
	// Weights multiply the loss of each target (and its gradient); nil means 1.
	Weights []float32
	Dropout Dropout
}

// Untrained is the label of a token whose loss is not wanted, as other trainers have it.
const Untrained = -100

// ShiftLabels turns labels, which stand at the tokens they are the ids of, into
// targets, which stand one before: that of a sequence's last token is Untrained.
func ShiftLabels(labels []int32, lens []int) []int32 {
	if lens == nil {
		lens = []int{len(labels)}
	}
	targets := make([]int32, 0, len(labels))
	for _, n := range lens {
		if n > 0 {
			targets = append(targets, labels[1:n]...)
			targets = append(targets, Untrained)
		}
		labels = labels[n:]
	}
	return targets
}

// span is a sequence of a batch: tokens first to first+n.
type span struct{ first, n int }

// lay checks the batch and lays it out: sequences, positions, and the tokens whose loss is wanted.
func (m *Model) lay(b *Batch) error {
	w := &m.work
	w.ids, w.again = b.IDs, false
	w.spans, w.pos, w.wanted = w.spans[:0], w.pos[:0], w.wanted[:0]
	if len(b.IDs) == 0 {
		return fmt.Errorf("model: a batch without tokens")
	}
	for t, id := range b.IDs {
		if id < 0 || int(id) >= m.Vocab {
			return fmt.Errorf("model: token %d of the batch is %d, the vocabulary has %d", t, id, m.Vocab)
		}
	}
	lens := b.Lens
	if lens == nil {
		lens = []int{len(b.IDs)}
	}
	longest := 0
	for _, n := range lens {
		if n < 0 || n > len(b.IDs)-len(w.pos) {
			return fmt.Errorf("model: the sequences of the batch are not its %d tokens", len(b.IDs))
		}
		if n > 0 {
			w.spans = append(w.spans, span{len(w.pos), n})
		}
		for i := range n {
			w.pos = append(w.pos, i)
		}
		longest = max(longest, n)
	}
	if len(w.pos) != len(b.IDs) {
		return fmt.Errorf("model: the sequences of the batch are %d of its %d tokens", len(w.pos), len(b.IDs))
	}
	if b.Targets != nil && len(b.Targets) != len(b.IDs) || b.Weights != nil && len(b.Weights) != len(b.IDs) {
		return fmt.Errorf("model: %d targets and %d weights for %d tokens", len(b.Targets), len(b.Weights), len(b.IDs))
	}
	for t, id := range b.Targets {
		if int(id) >= m.Vocab {
			return fmt.Errorf("model: target %d of the batch is %d, the vocabulary has %d", t, id, m.Vocab)
		}
		if id >= 0 {
			w.wanted = append(w.wanted, t)
		}
	}
	m.growAngles(longest)
	return nil
}

// angles are the cosines and sines of one kind of rope: position p has those from
// p·half on.
type angles struct {
	cos, sin []float32
	known    int // positions
}

// growAngles makes the tables reach position n-1.
func (m *Model) growAngles(n int) {
	for kind := range m.work.angles {
		a := &m.work.angles[kind]
		freqs := m.freqs[kind]
		for ; a.known < n; a.known++ {
			for _, f := range freqs {
				sin, cos := math.Sincos(float64(a.known) * f)
				a.cos = append(a.cos, float32(cos*m.mscale[kind]))
				a.sin = append(a.sin, float32(sin*m.mscale[kind]))
			}
		}
	}
}

// frequencies makes the frequency of each rotated pair of dimensions.
func (ld *loader) frequencies() {
	m := ld.m
	m.freqs[RopeGlobal], m.mscale[RopeGlobal] = ld.ropeOf(m.Global)
	m.freqs[RopeLocal], m.mscale[RopeLocal] = ld.ropeOf(m.Local)
}

// ropeOf gives the frequencies of r and what cosines and sines are multiplied by.
// The formulas are those of transformers' modeling_rope_utils, which llama.cpp
// shares: linear divides all by the factor; yarn (Peng et al. 2023, section 3) blends the two
// along a ramp between the dimensions that turn BetaFast and BetaSlow times in the original context;
// llama 3 and longrope bring a divisor for each dimension.
func (ld *loader) ropeOf(r Rope) (freqs []float64, mscale float64) {
	m, s := ld.m, r.Scaling
	half := m.RopeDim / 2
	freqs, mscale = make([]float64, half), 1
	for i := range freqs {
		freqs[i] = math.Pow(r.Base, -float64(2*i)/float64(m.RopeDim))
	}
	divide := func(name string) {
		if d := ld.vector(name, half); d != nil {
			for i := range freqs {
				if !(d[i] > 0) {
					ld.bad(name, "divisor %v", d[i])
					return
				}
				freqs[i] /= float64(d[i])
			}
		}
	}
	switch {
	case s.LongShortTable:
		used, other := "rope_factors_short.weight", "rope_factors_long.weight"
		if m.opt.Context > s.Original {
			used, other = other, used
		}
		divide(used)
		ld.used[other] = true
	case s.Type == "longrope":
		ld.bad("rope_factors_long.weight", "the tensor is missing")
	case s.Type == "linear":
		for i := range freqs {
			freqs[i] /= s.Factor
		}
	case s.Type == "yarn":
		lo, hi := yarnRamp(s, m.RopeDim, r.Base)
		for i := range freqs {
			ramp := min(max((float64(i)-lo)/max(hi-lo, 1e-3), 0), 1)
			keep := (1 - ramp) * s.ExtFactor
			freqs[i] = freqs[i]/s.Factor*(1-keep) + freqs[i]*keep
		}
		mscale = s.MScale
	}
	if s.FreqDivisors {
		divide("rope_freqs.weight")
	}
	if s.AttnFactor != 0 {
		mscale *= s.AttnFactor
	}
	if math.IsNaN(mscale) || math.IsInf(mscale, 0) {
		ld.bad(ld.src.Arch+".rope.scaling.factor", "%v", s.Factor)
	}
	return freqs, mscale
}

// yarnRamp gives the dimensions between which frequencies are blended.
func yarnRamp(s RopeScaling, dim int, base float64) (lo, hi float64) {
	at := func(turns float64) float64 {
		return float64(dim) * math.Log(float64(s.Original)/(turns*2*math.Pi)) / (2 * math.Log(base))
	}
	return max(math.Floor(at(s.BetaFast)), 0), min(math.Ceil(at(s.BetaSlow)), float64(dim-1))
}

// rotate turns the heads of one token's queries or keys by its position's angles,
// or back again when inverse is set.
func (m *Model) rotate(x []float32, headDim int, kind RopeKind, pos int, inverse bool) {
	half := m.RopeDim / 2
	a := &m.work.angles[kind]
	cos, sin := a.cos[pos*half:(pos+1)*half], a.sin[pos*half:(pos+1)*half]
	turn := kernel.Rope
	if inverse {
		turn = kernel.RopeBackward
	}
	for h := 0; h < len(x); h += headDim {
		turn(x[h:h+headDim], cos, sin, m.NeoX)
	}
}
