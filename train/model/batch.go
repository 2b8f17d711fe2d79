package model

import (
	"fmt"
	"math"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
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
	// Reweigh, if not nil, is called by LossAndGrad after the pass forward with the
	// losses of the trained tokens, in their order, and returns their weights, in
	// place of Weights: losses that are no sum over tokens are made so. It costs the
	// head's products once more.
	Reweigh func(losses []float32) []float32
	// Router is the weight of the loss of routers, of LossAndGrad only; see [Loss].RouterSum.
	Router float32
	// Soft is what a teacher predicts, in addition to the targets; nil without one.
	Soft    *Soft
	Dropout Dropout // of LossAndGrad only
	Noise   Noise   // of LossAndGrad only
	// Before is how many tokens of the same step earlier batches had: Dropout and Noise
	// are then what they would be if all were one batch.
	Before int
}

// Noise is NEFTune's (arXiv 2310.05914): what enters the first layer gets numbers
// uniform in ±Alpha/√(n·Hidden) added, n the length of the token's sequence. They are
// functions of Seed, Step, the token's place in the step and the column.
type Noise struct {
	Alpha float32 // 0 is none; 5 is usual
	Seed  uint64
	Step  uint64 // to be different for every step of a run
}

// disturb adds b's noise to x, which enters the first layer.
func (m *Model) disturb(x kernel.Mat, b *Batch) {
	if b.Noise.Alpha == 0 {
		return
	}
	s := rng.New(b.Noise.Seed, "neftune").At(b.Noise.Step)
	for _, sp := range m.work.spans {
		size := float32(float64(b.Noise.Alpha) / math.Sqrt(float64(sp.n*m.Hidden)))
		m.rows(sp.n, func(t, _ int) {
			at := s.At(uint64(b.Before + sp.first + t))
			row := x.Row(sp.first + t)
			for i := range row {
				row[i] += float32((2*at.Uniform(uint64(i)) - 1) * size)
			}
		})
	}
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
	w.ids, w.again, w.before = b.IDs, false, b.Before
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
	if b.Soft != nil {
		if err := b.Soft.check(len(w.wanted), m.Vocab); err != nil {
			return err
		}
	}
	m.growAngles(longest)
	return nil
}
