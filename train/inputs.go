package train

import (
	"context"
	"slices"
	"strings"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// InputMoments computes the second moments of what goes into a model's matrices on
// samples, with adapters active: H = mean of x·xᵀ, as far as a merge asks for it (its
// interface Moments): the diagonal, and momentProbes random projections that the rest is made
// of again, as in a [Sketch]. As few inputs are held as the memory given allows, at least
// one; the samples are run again for the next ones. The same bytes come out for any
// memory and number of threads. It is not safe for concurrent use, and while it
// runs the model must not be used otherwise.
type InputMoments struct {
	model    *model.Model
	adapters []model.Scaled
	samples  []data.Sample
	limit    int
	memory   int64
	wanted   []string // tensors in the order they will be asked for
	sketch   Sketch   // of those held
	Threads  int      // of the sums; 0: one for each processor
	// Progress, if not nil, is told before a pass over the samples which matrices it is for.
	Progress func(first, last string)
}

// momentProbes is the rank of moments that are made of text.
const momentProbes = 128

// NewInputMoments prepares the moments of the inputs of tensors, best named in the
// order in which they will be asked for. limit is how many tokens are run at once,
// memory how many bytes the moments held at a time may have (532·n for n inputs).
func NewInputMoments(m *model.Model, samples []data.Sample, limit int, memory int64, tensors []string, adapters ...model.Scaled) *InputMoments {
	return &InputMoments{model: m, adapters: adapters, samples: samples, limit: limit, memory: memory, wanted: tensors}
}

// inputOf names the input of a matrix: those that read the same have the same.
func inputOf(tensor string) string {
	layer, rest, ok := strings.Cut(strings.TrimPrefix(tensor, "blk."), ".")
	if !ok || !strings.HasPrefix(tensor, "blk.") {
		return tensor
	}
	switch rest {
	case "attn_q.weight", "attn_k.weight", "attn_v.weight":
		return "blk." + layer + ".attn"
	case "ffn_gate.weight", "ffn_up.weight":
		return "blk." + layer + ".ffn"
	}
	return tensor
}

// Moments returns the mean of x·xᵀ over the inputs x of a tensor as diag(rest) + z·zᵀ, neither of
// which is to be changed; z has no rows if the model has no such matrix or no sample
// reached it.
func (s *InputMoments) Moments(ctx context.Context, tensor string) (rest []float32, z kernel.Mat, err error) {
	if _, _, ok := s.model.MatrixDims(tensor); !ok {
		return nil, kernel.Mat{}, nil
	}
	if s.sketch.parts[inputOf(tensor)] == nil {
		if err := s.collect(ctx, tensor); err != nil {
			return nil, kernel.Mat{}, err
		}
	}
	if s.sketch.parts[inputOf(tensor)].tokens == 0 {
		return nil, kernel.Mat{}, nil
	}
	return s.sketch.Moments(ctx, tensor)
}

// collect runs the samples for tensor and as many of those wanted after it as there
// is memory for.
func (s *InputMoments) collect(ctx context.Context, tensor string) error {
	s.sketch = Sketch{parts: map[string]*sketchPart{}}
	left, last, head := s.memory, tensor, false
	hold := func(name string) bool {
		_, n, ok := s.model.MatrixDims(name)
		if !ok || s.sketch.parts[inputOf(name)] != nil {
			return true
		}
		if left -= partBytes(n, momentProbes); left < 0 && len(s.sketch.parts) > 0 {
			return false
		}
		s.sketch.parts[inputOf(name)] = newSketchPart(n, min(momentProbes, n))
		last, head = name, head || isHead(name)
		return true
	}
	hold(tensor)
	if at := slices.Index(s.wanted, tensor); at >= 0 {
		for _, name := range s.wanted[at+1:] {
			if !hold(name) {
				break
			}
		}
	}
	if s.Progress != nil {
		s.Progress(tensor, last)
	}
	return s.sketch.collect(ctx, s.model, s.samples, s.limit, s.Threads, head, s.adapters)
}

// isHead tells the head, tied or not, from the matrices of the layers.
func isHead(tensor string) bool { return !strings.HasPrefix(tensor, "blk.") }

// eachInput runs samples, limit tokens at a time, and gives f what goes into the model's
// matrices, one of those that share an input for all. With head the head runs, too.
func eachInput(ctx context.Context, m *model.Model, samples []data.Sample, limit int, head bool, adapters []model.Scaled, f func(name string, x kernel.Mat) error) error {
	// The tensor that stands for each input: the first of those that share it to be run.
	speaker := map[string]string{}
	var failed error
	m.OnInput = func(name string, x kernel.Mat) {
		if first := speaker[inputOf(name)]; first == "" {
			speaker[inputOf(name)] = name
		} else if first != name {
			return
		}
		if err := f(name, x); err != nil && failed == nil {
			failed = err
		}
	}
	defer func() { m.OnInput = nil }()
	for _, group := range passes(samples, limit) {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := batchOf(group)
		if !head {
			b.Targets = nil
		}
		if _, err := m.Loss(b, adapters...); err != nil {
			return err
		}
	}
	return failed
}
