package merge

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

func init() {
	register(&Method{Name: "promote", open: openFit, Data: true,
		Help: "fit, and nest for the tensors that lose most, until little enough is lost, within a growth of the file"})
}

// Promotion says when [Promote] is content.
type Promotion struct {
	// MaxError is the relative error wanted, the root mean square of those of the tensors
	// (on inputs where there are moments).
	MaxError float64
	// MaxGrowth is by how much the tensors' bytes may grow, as a part of all.
	MaxGrowth float64
}

// Promote plans a merge by method fit in which the tensors that lose most go into the
// type that [NestedType] gives. It merges once to see what each loses and writes
// nothing, so it takes twice the time; run says with how many threads and how much
// memory.
func Promote(ctx context.Context, base *arch.Model, ds Deltas, opt Options, want Promotion, run format.RunOptions) (*format.Plan, *Report, error) {
	opt.Method, opt.nest = "promote", map[string]bool{}
	plan, report, err := NewPlan(base, ds, opt)
	if err != nil {
		return nil, nil, err
	}
	if err := format.Run(ctx, plan, nowhere{}, run); err != nil {
		return nil, nil, err
	}
	report.Finish()
	type candidate struct {
		name         string
		saved, bytes float64
	}
	var all []candidate
	var squares float64
	for _, t := range report.Tensors {
		e := t.outputError()
		squares += float64(e * e)
		v := base.View(t.Name)
		to, ok := NestedType(v.Type)
		if !ok {
			continue
		}
		rows, cols := v.Rows.Dims()
		was, err := v.Type.RowBytes(cols)
		if err != nil {
			return nil, nil, err
		}
		is, err := to.RowBytes(cols)
		if err != nil {
			return nil, nil, err
		}
		// A grid f times as fine has an f-th of the error, or so.
		f := float64(nestings[v.Type][0].factor)
		all = append(all, candidate{t.Name, e * e * (1 - 1/(f*f)), float64(rows * (is - was))})
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.saved/b.bytes, a.saved/a.bytes) })
	left, room := squares, want.MaxGrowth*float64(plan.Size())
	for _, c := range all {
		if math.Sqrt(left/float64(len(report.Tensors))) <= want.MaxError {
			break
		}
		if c.bytes > room {
			continue
		}
		opt.nest[c.name] = true
		left, room = left-c.saved, room-c.bytes
	}
	return NewPlan(base, ds, opt)
}

// outputError is the error on inputs, or where they are not known that of the weights.
func (t *TensorSurvival) outputError() float64 {
	if t.ErrorOnInputs == 0 {
		return t.Error
	}
	return t.ErrorOnInputs
}

// TensorError is what [Promotion].MaxError limits: the root mean square of the tensors' errors.
func (r *Report) TensorError() float64 {
	var squares float64
	for _, t := range r.Tensors {
		e := t.outputError()
		squares += float64(e * e)
	}
	return math.Sqrt(squares / float64(max(len(r.Tensors), 1)))
}

// nowhere is a sink that keeps nothing.
type nowhere struct{}

func (nowhere) Begin(int) error             { return nil }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
