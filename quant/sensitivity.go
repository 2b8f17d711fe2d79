package quant

import (
	"context"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/graft-lora/graft/format"
)

// sampleRows is how many rows of a tensor an error is measured on; all of them, if
// it has no more.
const sampleRows = 256

// relativeErrors measures what encoding a tensor in each of types does to it:
// Σ w·(x-x')² / Σ w·x² over rows spread evenly, w being the importance of the
// column, or 1. That is the part of the tensor's output (of inputs with those mean
// squares, uncorrelated) that becomes noise. weights are nil or those of every matrix
// of a stack, one after another.
func relativeErrors(ctx context.Context, v *format.View, types []format.Type, weights []float32) ([]float64, error) {
	rows, cols := v.Rows.Dims()
	n := min(rows, sampleRows)
	perMatrix := rows / matrices(v.Shape)
	type part struct{ noise, signal []float64 } // signal has one element
	parts := make([]part, n)
	g, ctx := errgroup.WithContext(ctx)
	workers := min(int64(runtime.GOMAXPROCS(0)), n)
	for w := range workers {
		g.Go(func() error {
			x, back := make([]float32, cols), make([]float32, cols)
			for i := w; i < n; i += workers {
				if err := ctx.Err(); err != nil {
					return err
				}
				row := i * rows / n
				if err := v.Rows.ReadRows(x, row); err != nil {
					return err
				}
				var cw []float32
				if weights != nil {
					m := row / perMatrix
					cw = weights[m*cols : (m+1)*cols]
				}
				p := part{make([]float64, len(types)), []float64{weightedSquares(x, nil, cw)}}
				for k, typ := range types {
					if err := roundTrip(back, x, typ, cw); err != nil {
						return fmt.Errorf("tensor %s, row %d: %w", v.Name, row, err)
					}
					p.noise[k] = weightedSquares(x, back, cw)
				}
				parts[i] = p
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	release(v.Rows)
	errs := make([]float64, len(types))
	var signal float64
	for _, p := range parts {
		signal += p.signal[0]
		for k, e := range p.noise {
			errs[k] += e
		}
	}
	for k := range errs {
		if signal > 0 {
			errs[k] /= signal
		}
	}
	return errs, nil
}

// release gives back the pages of rows of a mapped file that are not needed for now.
func release(rows format.RowReader) {
	if r, ok := rows.(interface{ Release() }); ok {
		r.Release()
	}
}

// roundTrip makes dst what x is after it was encoded.
func roundTrip(dst, x []float32, typ format.Type, weights []float32) error {
	codec, err := format.EncoderOf(typ)
	if err != nil {
		return err
	}
	size, err := typ.RowBytes(int64(len(x)))
	if err != nil {
		return err
	}
	packed := make([]byte, size)
	if err := codec.Encode(packed, x, len(x), weights); err != nil {
		return err
	}
	codec.Decode(dst, packed)
	return nil
}

// weightedSquares is Σ w·(x-y)², y or w being nil for 0 or 1.
func weightedSquares(x, y, w []float32) float64 {
	var sum float64
	for i, v := range x {
		d := float64(v)
		if y != nil {
			d -= float64(y[i])
		}
		d *= d
		if w != nil {
			d *= float64(w[i])
		}
		sum += d
	}
	return sum
}

// TargetKind names the kind of a tensor, "attn_q" or "token_embd", as
// [Target.Sensitivity] knows it; "" for tensors that are never quantized.
func TargetKind(v *format.View) string {
	if (Recipe{}).kept("", TensorDesc{v.Name, v.Type, v.Shape}) != "" {
		return ""
	}
	return kindOf(v.Name)
}

// Noisy gives a tensor as it is after encoding to three or four bits, to see what
// that does to a model, and the part of its output that becomes noise, on some of its
// rows. m is the importance matrix or nil. Nothing is held: rows are encoded and
// decoded as they are read. The noise of a tensor whose rows no such type divides is 0
// and its values are its own.
func Noisy(ctx context.Context, v *format.View, m *Imatrix) (*format.View, float64, error) {
	opt := Options{Imatrix: m}
	weights, err := opt.weightsOf(v)
	if err != nil {
		return nil, 0, err
	}
	typ := format.Q3_K
	if cols := v.Shape[len(v.Shape)-1]; cols%int64(format.Q4_0.BlockSize()) != 0 {
		return v, 0, nil
	} else if cols%int64(typ.BlockSize()) != 0 {
		typ = format.Q4_0
	}
	errs, err := relativeErrors(ctx, v, []format.Type{typ}, weights)
	if err != nil {
		return nil, 0, err
	}
	noisy := *v
	noisy.Type = format.F32
	noisy.Rows = &noisyRows{v.Rows, typ, weights, v.Shape[len(v.Shape)-2]}
	return &noisy, errs[0], nil
}

// noisyRows are rows after encoding and decoding.
type noisyRows struct {
	format.RowReader
	typ       format.Type
	weights   []float32 // nil, or the importance of columns, matrix after matrix
	perMatrix int64     // rows
}

func (n *noisyRows) ReadRows(dst []float32, row int64) error {
	if err := n.RowReader.ReadRows(dst, row); err != nil {
		return err
	}
	_, cols := n.Dims()
	for ; len(dst) > 0; row++ {
		var w []float32
		if n.weights != nil {
			m := row / n.perMatrix
			w = n.weights[m*cols : (m+1)*cols]
		}
		if err := roundTrip(dst[:cols], dst[:cols], n.typ, w); err != nil {
			return err
		}
		dst = dst[cols:]
	}
	return nil
}
