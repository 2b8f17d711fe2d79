package model

import (
	"fmt"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

// Merge makes an adapter act as the file does that it is merged into: weights are
//
//	W' = [quant.Dither](W, Scale·B·A)
//
// codes of W's own type at W's own scales, and nothing is added to their products. The
// gradients of A and B are those that an unrounded W + Scale·B·A would have with the
// same activations (straight-through), and what goes down the layers goes through W'.
//
// The matrices W' take as much memory as those of the base that the adapter changes, and
// are made once for every change of the adapter ([Adapter.Changed]); with Options.Stream
// they are there for a layer at a time, and made for every pass.
type Merge struct {
	Seed uint64 // of the rounding
}

// merged is W' of a matrix.
type merged struct {
	raw      format.RawReader
	codec    format.Codec
	dither   *quant.Dither
	first    int64 // row of raw
	out, in  int
	rowBytes int

	owner *Adapter // whose change it has
	// version of the owner and scale of its pair that data was made for, if it is fresh.
	fresh   bool
	version uint64
	scale   float32
	data    []byte
}

func (w *merged) Dims() (rows, cols int) { return w.out, w.in }

func (w *merged) DecodeRows(dst []float32, row int) {
	n := len(dst) / w.in
	w.codec.Decode(dst, w.data[row*w.rowBytes:(row+n)*w.rowBytes])
}

// Mergeable says why an adapter of a matrix, or of a stack, cannot act as if merged:
// nil if it can.
func (m *Model) Mergeable(name string) error {
	list := m.matrices(name)
	if list == nil {
		return m.noSuchMatrix(name)
	}
	_, err := list[0].mergeable()
	return err
}

// mergeable gives the stored rows of l if their codes can be moved.
func (l *linear) mergeable() (format.RawReader, error) {
	w, ok := l.w.(*matrix)
	if !ok {
		return nil, format.Unsupported("merging into %s", l.name)
	}
	raw, ok := w.rows.(format.RawReader)
	if !ok {
		return nil, format.Unsupported("merging into the codes of %s: its rows are not stored as they are used", l.name)
	}
	if !quant.CanDither(raw.RawType()) {
		return nil, format.Unsupported("merging into the codes of %s, which is %v: there are ways for %v", l.name, raw.RawType(), quant.DitherTypes())
	}
	return raw, nil
}

// newMerged prepares W' of l.
func (l *linear) newMerged() (*merged, error) {
	raw, err := l.mergeable()
	if err != nil {
		return nil, err
	}
	w := &merged{raw: raw, first: l.w.(*matrix).first, out: l.out, in: l.in}
	if w.codec, err = format.CodecOf(raw.RawType()); err != nil {
		return nil, err
	}
	n, err := raw.RawType().RowBytes(int64(l.in))
	w.rowBytes = int(n)
	return w, err
}

// mergeInto makes the matrices of a name be W' in the pass to come. Their pairs are bound.
func (m *Model) mergeInto(name string, a *Adapter) (err error) {
	for _, l := range m.matrices(name) {
		if l.merged == nil {
			if l.merged, err = l.newMerged(); err != nil {
				return err
			}
		}
		if w := l.merged; w.owner != a {
			if w.dither, err = quant.NewDither(w.raw.RawType(), a.Merge.Seed, name, l.in); err != nil {
				return err
			}
			w.owner, w.fresh = a, false
		}
		l.merge = true
	}
	return nil
}

// weights are what l multiplies by in this pass.
func (m *Model) weights(l *linear) kernel.Weights {
	switch {
	case l.merge:
	case l.rows != nil:
		return l.rows
	default:
		return l.w
	}
	w := l.merged
	if !w.fresh || w.version != w.owner.version || w.scale != l.bound[0].scale {
		m.makeMerged(l)
		m.lap(LowRank)
	}
	return w
}

// mergedRows is how many rows of W' are made at a time.
const mergedRows = 16

// makeMerged makes W' of l with its pair. The product is what package merge makes of a pair:
// a chain in the order of the rank, scaled afterwards.
func (m *Model) makeMerged(l *linear) {
	w, b := l.merged, &l.bound[0]
	w.fresh, w.version, w.scale = true, w.owner.version, b.scale
	if w.data == nil {
		w.data = make([]byte, w.out*w.rowBytes)
	}
	m.work.change = resize(m.work.change, m.pool.Threads())
	m.pool.For((w.out+mergedRows-1)/mergedRows, func(i, worker int) {
		r0, r1 := i*mergedRows, min((i+1)*mergedRows, w.out)
		change, rows := m.work.change[worker].mat(r1-r0, w.in), w.data[r0*w.rowBytes:r1*w.rowBytes]
		kernel.GemmNN(nil, change, b.pair.B.Sub(r0, r1, 0, b.pair.Rank()), b.pair.A, false)
		kernel.Scale(change.Data, b.scale, change.Data)
		err := w.raw.ReadRaw(rows, w.first+int64(r0))
		if err == nil {
			err = w.dither.Merge(rows, rows, change.Data, w.first+int64(r0))
		}
		if err != nil {
			m.fail.set(fmt.Errorf("tensor %s: %w", l.name, err))
		}
	})
}

// dropMerged lets go of W' of layer i, or of the embedding and the head where there is no such layer.
func (m *Model) dropMerged(i int) {
	list := []*linear{m.embed, m.head}
	if i < len(m.layers) {
		list = m.layers[i].linears()
	}
	for _, l := range list {
		if w := l.merged; w != nil {
			w.fresh, w.data = false, nil
		}
	}
}
