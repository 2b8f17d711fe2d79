package model

import (
	"fmt"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// Rows are rows of a matrix with one for each token, the embedding or a head of its own, in
// the place of the base's. They stand where the matrix's rows stand: before the scale of
// embeddings, and in the head before the scale and the cap of logits. The numbers are the caller's.
type Rows struct {
	IDs  []int32    // of the tokens, ascending
	Data kernel.Mat // len(IDs) x Hidden; its rows touch
}

// boundRows are rows on their matrix, for the length of a pass. They are its weights then.
type boundRows struct {
	*Rows
	base     kernel.Weights
	grad     kernel.Mat // without rows unless they are trained
	ofLookUp kernel.Mat // where the embedding's lookup adds to
}

func (r *boundRows) Dims() (rows, cols int) { return r.base.Dims() }

func (r *boundRows) DecodeRows(dst []float32, row int) {
	r.base.DecodeRows(dst, row)
	n := len(dst) / r.Data.Cols
	at, _ := slices.BinarySearch(r.IDs, int32(row))
	for ; at < len(r.IDs) && int(r.IDs[at]) < row+n; at++ {
		copy(dst[(int(r.IDs[at])-row)*r.Data.Cols:], r.Data.Row(at))
	}
}

// bindRows puts the rows of an adapter on their matrices. grads is nil unless they are trained.
func (m *Model) bindRows(a Scaled, grads Grads) error {
	for name, r := range a.Rows {
		l := m.byName[name]
		switch {
		case name != embedName && (name != headName || l == nil):
			return m.noSuchMatrix(name)
		case a.Weight != 1:
			return format.Unsupported("an adapter with rows of tokens (%s) at a factor of %v: they are used as they are, with a factor of 1", name, a.Weight)
		case l.rows != nil:
			return format.Unsupported("two adapters with rows of tokens (%s): merge one of them first", name)
		case len(r.IDs) != r.Data.Rows || r.Data.Cols != l.in || r.Data.Stride != l.in || len(r.IDs) == 0:
			return fmt.Errorf("model: rows of %s: %d tokens, %d x %d numbers, where a row has %d", name, len(r.IDs), r.Data.Rows, r.Data.Cols, l.in)
		}
		for i, id := range r.IDs {
			if id < 0 || int(id) >= l.out || i > 0 && id <= r.IDs[i-1] {
				return fmt.Errorf("model: a row of %s for token %d of %d, where ids ascend", name, id, l.out)
			}
		}
		l.rows = &boundRows{Rows: r, base: l.w}
		if a.Merge != nil {
			if err := l.storeRows(a.Adapter); err != nil {
				return err
			}
		}
		if grads == nil {
			continue
		}
		g := grads[name]
		if g == nil || !sameShape(g.Rows, r.Data) {
			return fmt.Errorf("model: no gradient was made for the rows of %s, or one of another shape", name)
		}
		l.rows.grad, l.rows.ofLookUp = g.Rows, g.ofLookUp().Rows
	}
	return nil
}

// storedRows are rows as the file has them that they are merged into, in the type of its
// other rows.
type storedRows struct {
	Rows
	of      *Rows
	owner   *Adapter
	version uint64 // of the owner
}

// storeRows makes the rows bound to l those of the merged file. Their gradients are those of the
// rows before that (straight-through).
func (l *linear) storeRows(a *Adapter) error {
	r, w := l.rows.Rows, l.stored
	if w != nil && w.owner == a && w.of == r && w.version == a.version {
		l.rows.Rows = &w.Rows
		return nil
	}
	matrix, ok := l.w.(*matrix)
	if !ok {
		return format.Unsupported("merging rows of tokens into %s", l.name)
	}
	raw, ok := matrix.rows.(format.RawReader)
	if !ok {
		return format.Unsupported("merging rows of tokens into %s: its rows are not stored as they are used", l.name)
	}
	codec, err := format.EncoderOf(raw.RawType())
	if err != nil {
		return err
	}
	size, err := raw.RawType().RowBytes(int64(l.in))
	if err != nil {
		return err
	}
	if w == nil || !sameShape(w.Data, r.Data) {
		w = &storedRows{Rows: Rows{Data: kernel.NewMat(r.Data.Rows, r.Data.Cols)}}
	}
	w.IDs, w.of, w.owner, w.version, l.stored = r.IDs, r, a, a.version, nil
	packed := make([]byte, size)
	for i, id := range r.IDs {
		if err := codec.Encode(packed, r.Data.Row(i), l.in, nil); err != nil {
			return fmt.Errorf("the row of token %d in %s: %w", id, l.name, err)
		}
		codec.Decode(w.Data.Row(i), packed)
	}
	l.stored, l.rows.Rows = w, &w.Rows
	return nil
}

// rowsTrained says whether the gradient of rows of l is wanted.
func (l *linear) rowsTrained() bool { return l.rows != nil && l.rows.grad.Rows > 0 }

// headRowsBackward adds to the gradients of the head's rows: dlogits are those of its
// products, h its inputs.
func (m *Model) headRowsBackward(dlogits, h kernel.Mat) {
	if !m.head.rowsTrained() {
		return
	}
	r := m.head.rows
	columns := m.work.columns.mat(h.Rows, len(r.IDs))
	for t := range h.Rows {
		to, from := columns.Row(t), dlogits.Row(t)
		for i, id := range r.IDs {
			to[i] = from[id]
		}
	}
	kernel.GemmTN(m.pool, r.grad, columns, h, true)
	m.lap(LowRank)
}

// lookUpRowsBackward adds to the gradients of the embedding's rows, token by token.
func (m *Model) lookUpRowsBackward(g kernel.Mat, ids []int32) {
	if !m.embed.rowsTrained() {
		return
	}
	r := m.embed.rows
	for t := range g.Rows {
		if i, ok := slices.BinarySearch(r.IDs, ids[t]); ok {
			kernel.Axpy(r.ofLookUp.Row(i), m.EmbedScale, g.Row(t))
		}
	}
}
