package merge

import (
	"context"
	"fmt"
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// Moments knows what the inputs of matrices look like on real text. Package train
// makes them by running a model; whoever has them otherwise may give them, too.
type Moments interface {
	// Moments returns H, the mean of x·xᵀ over the inputs x of a tensor (cols x cols,
	// symmetric), or a Mat without rows when it knows nothing of them. Tensors that
	// share their inputs may be given one and the same matrix. It is not changed,
	// and not used after the next call for a tensor with other inputs. A plan calls
	// it for its tensors in the order of the file, one call at a time.
	Moments(ctx context.Context, tensor string) (kernel.Mat, error)
}

// damping is what is added to the diagonal of H in units of its mean: directions
// that the sample of inputs hardly shows still count for something, and the
// factorisation exists.
const damping = 0.01

// inputs are moments made ready for a tensor's method.
type inputs struct {
	n int
	// h is H scaled to the mean diagonal 1, plus damping on the diagonal.
	h       kernel.Mat
	damping float64
	// unit is strictly below its diagonal the L of h = L·D·Lᵀ, L with a unit diagonal.
	unit kernel.Mat
}

func newInputs(m kernel.Mat) (*inputs, error) {
	n := m.Rows
	var trace float64
	for i := range n {
		trace += float64(m.Row(i)[i])
	}
	if m.Cols != n || !(trace > 0) || math.IsInf(trace, 0) {
		return nil, fmt.Errorf("second moments of %dx%d inputs with the trace %g", m.Rows, m.Cols, trace)
	}
	in := &inputs{n: n, h: kernel.NewMat(n, n), unit: kernel.NewMat(n, n)}
	scale := float64(n) / trace
	for i := range n {
		row := in.h.Row(i)
		for j, v := range m.Row(i) {
			row[j] = float32(float64(v) * scale)
		}
	}
	// A few inputs that are larger than all others together leave the factors of the rest
	// to rounding: then more damping is needed.
	for more := damping; more <= 100*damping; more *= 10 {
		for i := range n {
			in.h.Row(i)[i] += float32(more - in.damping)
			copy(in.unit.Row(i), in.h.Row(i)[:i+1])
		}
		in.damping = more
		if factorise(in.unit) {
			return in, nil
		}
	}
	return nil, fmt.Errorf("second moments of %d inputs that are no such moments", n)
}

// readyInputs keeps the inputs made ready last, for the tensors that share them.
type readyInputs struct {
	from Moments
	last *float32 // the first element of the matrix they were made of
	in   *inputs
}

func (r *readyInputs) of(ctx context.Context, tensor string) (*inputs, error) {
	if r.from == nil {
		return nil, nil
	}
	m, err := r.from.Moments(ctx, tensor)
	if err != nil || m.Rows == 0 {
		return nil, err
	}
	if r.last != &m.Data[0] {
		r.last, r.in = nil, nil
		if r.in, err = newInputs(m); err != nil {
			return nil, err
		}
		r.last = &m.Data[0]
	}
	return r.in, nil
}
