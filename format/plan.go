package format

import (
	"context"
	"fmt"
)

// Plan is what a command is going to write: every tensor, in file order, with its
// type, its shape and the way its rows are made. A plan is made from headers
// alone, so it costs no reading; --dry-run prints it.
type Plan struct {
	Outputs []*Output
}

// Output is one tensor of a plan.
type Output struct {
	Name  string
	Type  Type
	Shape []int64 // row-major
	Why   string  // which rule chose type and treatment, for people

	// Units is the number of independent pieces the tensor's bytes are made in, and
	// UnitBytes the size of each: rows and their bytes, unless the planner of a
	// special layout says otherwise.
	Units, UnitBytes int64
	// Cost is the working memory, in bytes, that making one unit takes besides the
	// bytes themselves (for rows through float32: 4 bytes a column, and more when
	// something is added).
	Cost int64
	// Together is how many units are best made at a time, where there is memory for them; 0:
	// as many as a core's cache holds.
	Together int64

	// Prepare, if not nil, is called once, before the first Fill. It holds what a tensor needs
	// as a whole. Those of a plan run one after the other, in order, each while the outputs from
	// the one prepared before it on are being made.
	Prepare func(ctx context.Context) error
	// Fill writes the bytes of the units from unit on, len(dst)/UnitBytes of them,
	// into dst, which may hold anything before. It is called from several goroutines at once,
	// in any order.
	Fill func(dst []byte, unit int64) error
	// Finish, if not nil, is called once after the last Fill.
	Finish func() error
}

// NewOutput returns an output of t's rows encoded as typ: byte for byte when rows
// is a [RawReader] of that type, else decoded and encoded. weights is the
// importance of the columns, or nil. It fails if typ cannot hold such rows. When
// all is written, rows that have a method Release() are told so: those of a mapped
// file give their pages back.
func NewOutput(name string, typ Type, shape []int64, rows RowReader, weights []float32) (*Output, error) {
	o := &Output{Name: name, Type: typ, Shape: shape, Units: shapeRows(shape)}
	cols := shapeCols(shape)
	if r, ok := rows.(interface{ Release() }); ok {
		o.Finish = func() error { r.Release(); return nil }
	}
	var err error
	if o.UnitBytes, err = typ.RowBytes(cols); err != nil {
		return nil, fmt.Errorf("tensor %s: %w", name, err)
	}
	if raw, ok := rows.(RawReader); ok && raw.RawType() == typ {
		o.Fill = raw.ReadRaw
		return o, nil
	}
	codec, err := EncoderOf(typ)
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", name, err)
	}
	o.Cost = 4 * cols
	o.Fill = func(dst []byte, unit int64) error {
		if o.UnitBytes == 0 {
			return nil
		}
		return WithRows(rows, unit, int64(len(dst))/o.UnitBytes*cols, func(x []float32) error {
			return AtRow(codec.Encode(dst, x, int(cols), weights), unit)
		})
	}
	return o, nil
}

// Size is the number of bytes of the tensor's data.
func (o *Output) Size() int64 { return o.Units * o.UnitBytes }

// Size is the number of bytes of all tensors, without headers and padding.
func (p *Plan) Size() int64 {
	var n int64
	for _, o := range p.Outputs {
		n += o.Size()
	}
	return n
}

// Sink receives the tensors of a plan in order. The writers of format/gguf and
// format/safetensors are sinks; they know the whole layout before the first byte.
type Sink interface {
	// Begin starts the i-th tensor of the plan.
	Begin(i int) error
	// Write appends bytes of the tensor begun last.
	Write(p []byte) (int, error)
}
