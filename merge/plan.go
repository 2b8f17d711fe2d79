package merge

import (
	"context"
	"fmt"
	"sort"
	"sync"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

// Options says how a merge into the same types is done.
type Options struct {
	Method string // "" means "keep"
	Seed   uint64 // of the random numbers of stochastic rounding
	// Moments are for the methods that use data, which without them do what keep does.
	Moments Moments
	// Imatrix is for method requantize: what the encoders weigh columns by, which some types need. May be nil.
	Imatrix *quant.Imatrix

	nest map[string]bool // tensors that method promote nests; nil unless Promote made it
}

// Deltas are the changes to a model's tensors, by GGUF name.
type Deltas map[string]*Delta

// check makes sure that every delta has its tensor and fits it.
func (ds Deltas) check(m *arch.Model) error {
	var names []string
	for name := range ds {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		v := m.View(name)
		if v == nil {
			return fmt.Errorf("%s has no tensor %s, which the adapter changes: is it another model's adapter?", m.Path, name)
		}
		rows, cols := v.Rows.Dims()
		if d := ds[name]; d.Rows != rows || d.Cols != cols {
			return fmt.Errorf("tensor %s: the base's is %dx%d, the adapter is for %dx%d: is it another model's adapter?", name, rows, cols, d.Rows, d.Cols)
		}
	}
	return nil
}

// Apply returns base with the deltas added, in float32 and when rows are read: the
// model that base and adapters are together, to be converted, quantized or
// evaluated as any other. It shares base's files; closing it closes nothing.
func Apply(base *arch.Model, ds Deltas) (*arch.Model, error) {
	if err := ds.check(base); err != nil {
		return nil, err
	}
	var views []*format.View
	multiplied := map[string]bool{} // factors that are in the weights of what comes out
	for name, d := range ds {
		if d.factors != nil {
			multiplied[factorName(name)] = true
		}
	}
	for _, v := range base.Views {
		if multiplied[v.Name] {
			continue
		}
		if d := ds[v.Name]; d != nil {
			w := *v
			w.Rows = &added{base: d.factors.rows(v.Rows), delta: d.ofWeights()}
			v = &w
		}
		views = append(views, v)
	}
	return base.With(views), nil
}

// NewPlan plans base with the deltas merged into it, every tensor in its own type
// (by method nest in a finer one) and in base's order: tensors without a delta are
// copied as bytes. The report
// is filled when the plan has been run; call [Report.Finish] then.
//
// Memory: the runner's blocks, and 40 bytes a row of the tensors in flight; with
// moments, 1.5 kB times n for each of two tensors of n columns and less than
// 32 MiB a thread, besides what the moments themselves take.
func NewPlan(base *arch.Model, ds Deltas, opt Options) (*format.Plan, *Report, error) {
	if opt.Method == "" {
		opt.Method = "keep"
	}
	m, err := MethodByName(opt.Method)
	if err != nil {
		return nil, nil, err
	}
	if m.Name == "promote" && opt.nest == nil {
		return nil, nil, fmt.Errorf("merge: a plan by method promote is made by Promote")
	}
	if err := ds.check(base); err != nil {
		return nil, nil, err
	}
	plan, report := &format.Plan{}, &Report{}
	ready := &readyInputs{from: opt.Moments}
	for _, v := range base.Views {
		d := ds[v.Name]
		if d != nil && (m.nest || opt.nest[v.Name]) {
			if v, err = nest(v); err != nil {
				return nil, nil, err
			}
		}
		shape := v.Shape
		if reshaped(v) {
			rows, cols := v.Rows.Dims()
			shape = []int64{rows, cols}
		}
		o, err := format.NewOutput(v.Name, v.Type, shape, v.Rows, nil)
		if err != nil {
			return nil, nil, err
		}
		o.Why = "copied"
		if v.Why != "" {
			o.Why = "copied, but for " + v.Why
		}
		if d != nil {
			if err := mergeOutput(o, v, d, m, opt, ready, report); err != nil {
				return nil, nil, fmt.Errorf("tensor %s: %w", v.Name, err)
			}
			o.Why = "merged: " + m.Name
			if from := base.View(v.Name).Type; from != v.Type {
				o.Why += fmt.Sprintf(", in %v the values of its %v", v.Type, from)
			}
		}
		plan.Outputs = append(plan.Outputs, o)
	}
	return plan, report, nil
}

func mergeOutput(o *format.Output, v *format.View, d *Delta, m *Method, opt Options, ready *readyInputs, report *Report) error {
	raw, ok := v.Rows.(format.RawReader)
	if !ok || raw.RawType() != v.Type {
		return format.Unsupported("the stored bytes of a %v tensor made from several cannot be kept; name a --type", v.Type)
	}
	codec, err := format.CodecOf(v.Type)
	if err != nil {
		return err
	}
	t := &target{guess: ready.guess(v), works: ready.works(v), name: v.Name, typ: v.Type, rows: d.Rows, cols: int(d.Cols), seed: opt.Seed, codec: codec, raw: raw, delta: d}
	t.inputs = func(ctx context.Context) (*inputs, error) { return ready.of(ctx, t.name) }
	count := report.tally(v, m.Name)
	count.factors = d.factors
	weights := &importance{perMatrix: v.Shape[max(len(v.Shape)-2, 0)]}
	if weights.weights, err = opt.Imatrix.For(v); err != nil {
		return err
	}
	t.onInputs = count.onInputs
	encode, err := m.open(t)
	if err != nil {
		return err
	}
	// Base, delta and merged values; the method's own copy; two sets of codes.
	o.Cost = o.UnitBytes + d.Cols*(4*4+4)
	o.Together = t.together
	o.Prepare = func(ctx context.Context) error {
		count.begin(d.Rows)
		if t.prepare != nil {
			return t.prepare(ctx)
		}
		return nil
	}
	o.Finish = func() error {
		if t.finish != nil {
			t.finish()
		}
		count.end()
		return nil
	}
	if _, ok := add16[v.Type]; ok {
		o.Cost = o.UnitBytes + 4*d.Cols // the base's bytes and the change
		if d.usesBase() {
			o.Cost += 4 * d.Cols
		}
		o.Together = rowsOf16
		o.Fill = t.fill16(count)
		return nil
	}
	o.Fill = func(dst []byte, row int64) error {
		b := mergeScratch.Get().(*mergeBuffers)
		defer mergeScratch.Put(b)
		n := int64(len(dst)) / o.UnitBytes * d.Cols
		b.room(len(dst), int(n))
		if err := raw.ReadRaw(b.stored, row); err != nil {
			return err
		}
		codec.Decode(b.base, b.stored)
		d.change(b.delta, b.base, row, &b.term)
		var err error
		if encode != nil {
			err = encode(dst, b.stored, b.delta, row)
		} else {
			copy(b.now, b.base)
			kernel.Add(b.now, b.delta)
			err = weights.encode(codec, dst, b.now, t.cols, row)
		}
		if err != nil {
			return err
		}
		codec.Decode(b.now, dst)
		count.count(b.stored, dst, b.base, b.now, b.delta, row)
		return nil
	}
	return nil
}

// importance is what an encoder weighs a tensor's columns by, matrix after matrix.
type importance struct {
	weights   []float32 // nil: all the same
	perMatrix int64     // rows
}

// encode encodes whole rows, the first of which is row of the tensor.
func (w *importance) encode(c format.Codec, dst []byte, x []float32, cols int, row int64) error {
	if w.weights == nil {
		return c.Encode(dst, x, cols, nil)
	}
	rowBytes := len(dst) / (len(x) / cols)
	for len(x) > 0 {
		m := row / w.perMatrix
		n := int(min((m+1)*w.perMatrix-row, int64(len(x)/cols)))
		if err := c.Encode(dst[:n*rowBytes], x[:n*cols], cols, w.weights[int(m)*cols:int(m+1)*cols]); err != nil {
			return err
		}
		dst, x, row = dst[n*rowBytes:], x[n*cols:], row+int64(n)
	}
	return nil
}

// mergeBuffers are what a block of rows is merged in.
type mergeBuffers struct {
	stored           []byte
	base, delta, now []float32
	term             kernel.Mat // the change of one term
}

var mergeScratch = sync.Pool{New: func() any { return new(mergeBuffers) }}

// room makes the slices so long.
func (b *mergeBuffers) room(bytes, n int) {
	if cap(b.stored) < bytes || cap(b.base) < n {
		b.stored, b.base, b.delta, b.now = make([]byte, bytes), make([]float32, n), make([]float32, n), make([]float32, n)
	}
	b.stored, b.base, b.delta, b.now = b.stored[:bytes], b.base[:n], b.delta[:n], b.now[:n]
}
