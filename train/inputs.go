package train

import (
	"context"
	"fmt"
	"strings"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// InputMoments computes the second moments of what goes into a model's matrices on
// samples, with adapters active: H = mean of x·xᵀ. It is what a merge asks for (its
// interface Moments). As few matrices are held as the memory given allows, at least
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
	held     map[string]*inputMoment
	Threads  int // of the sums; 0: one for each processor
	// Progress, if not nil, is told before a pass over the samples which matrices it is for.
	Progress func(first, last string)
}

type inputMoment struct {
	h      kernel.Mat
	tokens int
}

// NewInputMoments prepares the moments of the inputs of tensors, best named in the
// order in which they will be asked for. limit is how many tokens are run at once,
// memory how many bytes the moments held at a time may have (4·n² for n inputs).
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

// Moments returns the mean of x·xᵀ over the inputs x of a tensor, which is not to be
// changed; a Mat without rows if the model has no such matrix or no sample
// reached it.
func (s *InputMoments) Moments(ctx context.Context, tensor string) (kernel.Mat, error) {
	if _, _, ok := s.model.MatrixDims(tensor); !ok {
		return kernel.Mat{}, nil
	}
	if s.held[inputOf(tensor)] == nil {
		if err := s.collect(ctx, tensor); err != nil {
			return kernel.Mat{}, err
		}
	}
	m := s.held[inputOf(tensor)]
	if m.tokens == 0 {
		return kernel.Mat{}, nil
	}
	return m.h, nil
}

// collect runs the samples for tensor and as many of those wanted after it as there
// is memory for.
func (s *InputMoments) collect(ctx context.Context, tensor string) error {
	s.held = map[string]*inputMoment{}
	_, n, _ := s.model.MatrixDims(tensor)
	s.held[inputOf(tensor)] = &inputMoment{h: kernel.NewMat(n, n)}
	left := s.memory - 4*int64(n)*int64(n)
	last, found, head := tensor, false, s.isHead(tensor)
	for _, name := range s.wanted {
		found = found || name == tensor
		_, n, ok := s.model.MatrixDims(name)
		if !found || !ok || s.held[inputOf(name)] != nil {
			continue
		}
		if left -= 4 * int64(n) * int64(n); left < 0 {
			break
		}
		s.held[inputOf(name)] = &inputMoment{h: kernel.NewMat(n, n)}
		last, head = name, head || s.isHead(name)
	}
	if s.Progress != nil {
		s.Progress(tensor, last)
	}
	if err := s.run(ctx, head); err != nil {
		return err
	}
	for _, m := range s.held {
		if m.tokens > 0 {
			kernel.Scale(m.h.Data, 1/float32(m.tokens), m.h.Data)
		}
	}
	return nil
}

func (s *InputMoments) isHead(tensor string) bool { return !strings.HasPrefix(tensor, "blk.") }

// run adds up the moments held.
func (s *InputMoments) run(ctx context.Context, head bool) error {
	pool := kernel.NewPool(s.Threads)
	defer pool.Close()
	return eachInput(ctx, s.model, s.samples, s.limit, head, s.adapters, func(name string, x kernel.Mat) error {
		m := s.held[inputOf(name)]
		if m == nil {
			return nil
		}
		if x.Cols != m.h.Cols {
			return fmt.Errorf("train: the input of %s has %d columns, not %d", name, x.Cols, m.h.Cols)
		}
		kernel.GemmTN(pool, m.h, x, x, true)
		m.tokens += x.Rows
		return nil
	})
}

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
