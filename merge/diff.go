package merge

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/quant"
)

// TensorDiff compares a tensor of two models by value, whatever each stores it as.
type TensorDiff struct {
	Name     string  `json:"tensor"`
	TypeA    string  `json:"type_a,omitempty"`
	TypeB    string  `json:"type_b,omitempty"`
	ShapeA   []int64 `json:"shape_a,omitempty"`
	ShapeB   []int64 `json:"shape_b,omitempty"`
	Status   string  `json:"status"`         // "equal", "same values", "differs", "shape", "only in A", "only in B"
	NMSE     float64 `json:"nmse"`           // |B - A|² / |A|²
	Cosine   float64 `json:"cosine"`         // of the two, as vectors
	MaxAbs   float64 `json:"max_abs"`        // largest difference of two elements
	Changed  int64   `json:"values_changed"` // elements whose values differ
	Codes    int64   `json:"codes_changed"`  // codes that differ, for two tensors of one type with a grid, else -1
	Elements int64   `json:"elements"`
	// Spectrum is of the difference, where it was asked for.
	Spectrum *Spectrum `json:"spectrum,omitempty"`

	squares float64 // sum of the squared differences
}

// MetaDiff is a metadata key that two models do not agree on; a missing value is nil.
type MetaDiff struct {
	Key string     `json:"key"`
	A   gguf.Value `json:"a"`
	B   gguf.Value `json:"b"`
}

// ModelDiff is what two models do not have in common.
type ModelDiff struct {
	Tensors []*TensorDiff `json:"tensors"`
	Meta    []MetaDiff    `json:"metadata"`
}

// Same says that no value of a tensor and no metadata differs.
func (d *ModelDiff) Same() bool { return len(d.Meta) == 0 && d.SameValues() }

// JSON returns d in a form that encoding/json can write: numbers that are infinite
// or not numbers become null.
func (d *ModelDiff) JSON() any {
	type tensor struct {
		*TensorDiff
		NMSE   any `json:"nmse"`
		Cosine any `json:"cosine"`
		MaxAbs any `json:"max_abs"`
	}
	doc := struct {
		Same    bool       `json:"same"`
		Tensors []tensor   `json:"tensors"`
		Meta    []MetaDiff `json:"metadata"`
	}{d.Same(), []tensor{}, d.Meta}
	for _, t := range d.Tensors {
		doc.Tensors = append(doc.Tensors, tensor{t, finite(t.NMSE), finite(t.Cosine), finite(t.MaxAbs)})
	}
	return doc
}

// finite is f, or nil if JSON has no such number.
func finite(f float64) any {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil
	}
	return f
}

// SameValues says that both have the same tensors with the same values, whatever
// their metadata says.
func (d *ModelDiff) SameValues() bool {
	for _, t := range d.Tensors {
		if t.Status != "equal" && t.Status != "same values" {
			return false
		}
	}
	return true
}

// Diff compares two models tensor by tensor, a few rows of each at a time, and
// their metadata. Tensors stand in the order of a, then those that only b has.
func Diff(ctx context.Context, a, b *arch.Model, threads int, progress func(done, total int)) (*ModelDiff, error) {
	d := &ModelDiff{Meta: diffMeta(a.Meta, b.Meta)}
	ofA, err := modelFactors(a)
	if err != nil {
		return nil, err
	}
	ofB, err := modelFactors(b)
	if err != nil {
		return nil, err
	}
	// Factors that one of them has are in the weights that are compared.
	isFactor := map[string]bool{}
	for _, of := range []map[string]*factors{ofA, ofB} {
		for name := range of {
			isFactor[factorName(name)] = true
		}
	}
	type pair struct {
		a, b *format.View
		out  *TensorDiff
		unit float64 // what the values of both are to be multiplied by
	}
	var pairs []pair
	for _, v := range a.Views {
		if isFactor[v.Name] && b.View(v.Name) == nil {
			continue
		}
		t := &TensorDiff{Name: v.Name, TypeA: v.Type.String(), ShapeA: v.Shape, Codes: -1}
		d.Tensors = append(d.Tensors, t)
		w := b.View(v.Name)
		if w == nil {
			t.Status = "only in A"
			continue
		}
		t.TypeB, t.ShapeB = w.Type.String(), w.Shape
		if !slices.Equal(v.Shape, w.Shape) {
			t.Status = "shape"
			continue
		}
		p := pair{v, w, t, 1}
		if f, g := ofA[v.Name], ofB[v.Name]; f != nil && len(f.of) == 1 && f.equal(g) {
			p.unit = float64(f.at(0)) // so that stored bytes can be compared, too
		} else {
			p.a, p.b = f.view(v), g.view(w)
		}
		pairs = append(pairs, p)
	}
	for _, w := range b.Views {
		if a.View(w.Name) == nil && !isFactor[w.Name] {
			d.Tensors = append(d.Tensors, &TensorDiff{Name: w.Name, TypeB: w.Type.String(), ShapeB: w.Shape, Status: "only in B", Codes: -1})
		}
	}
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(threads, 1))
	for _, p := range pairs {
		g.Go(func() error {
			if err := diffTensor(ctx, p.out, p.a, p.b); err != nil {
				return fmt.Errorf("tensor %s: %w", p.a.Name, err)
			}
			p.out.MaxAbs *= p.unit
			p.out.squares *= p.unit * p.unit
			if progress != nil {
				progress(int(done.Add(1)), len(pairs))
			}
			return nil
		})
	}
	return d, g.Wait()
}

// diffTensor compares two tensors of one shape. The stored bytes are compared too
// when both have one type: they decide between "equal" and "same values".
func diffTensor(ctx context.Context, t *TensorDiff, a, b *format.View) error {
	defer release(a)
	defer release(b)
	rows, cols := a.Rows.Dims()
	t.Elements = rows * cols
	if t.Elements == 0 {
		t.Status, t.Cosine = "equal", 1
		return nil
	}
	n := max(blockFloats/4/cols, 1)
	x, y := make([]float32, n*cols), make([]float32, n*cols)
	raw := newRawPair(a, b, n)
	if raw != nil && raw.grid != nil {
		t.Codes = 0
	}
	var aa, bb, ab, dd float64
	sameBytes := raw != nil
	for row := int64(0); row < rows; row += n {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := min(n, rows-row)
		if raw != nil {
			same, codes, err := raw.compare(row, k)
			if err != nil {
				return err
			}
			sameBytes = sameBytes && same
			t.Codes += codes
		}
		u, v := x[:k*cols], y[:k*cols]
		if err := a.Rows.ReadRows(u, row); err != nil {
			return err
		}
		if err := b.Rows.ReadRows(v, row); err != nil {
			return err
		}
		for i := range u {
			p, q := float64(u[i]), float64(v[i])
			e := q - p
			aa += float64(p * p)
			bb += float64(q * q)
			ab += float64(p * q)
			dd += float64(e * e)
			if u[i] != v[i] {
				t.Changed++
				t.MaxAbs = max(t.MaxAbs, math.Abs(e))
			}
		}
	}
	t.squares = dd
	switch {
	case dd == 0:
		t.Cosine = 1
	case aa == 0:
		t.NMSE = math.Inf(1)
	default:
		t.NMSE = dd / aa
		if bb > 0 {
			t.Cosine = ab / math.Sqrt(aa*bb)
		}
	}
	switch {
	case sameBytes:
		t.Status = "equal"
	case t.Changed == 0:
		t.Status = "same values"
	default:
		t.Status = "differs"
	}
	return nil
}

// release gives back the mapped pages that reading a tensor has brought in.
func release(v *format.View) {
	for _, t := range v.From {
		t.Release()
	}
}

// rawPair reads the stored bytes of two tensors of one type.
type rawPair struct {
	a, b         format.RawReader
	x, y         []byte
	rowBytes     int64
	grid         *quant.Grid
	p, q         []uint8
	step, offset []float32
}

func newRawPair(a, b *format.View, n int64) *rawPair {
	ra, okA := a.Rows.(format.RawReader)
	rb, okB := b.Rows.(format.RawReader)
	if !okA || !okB || ra.RawType() != rb.RawType() {
		return nil
	}
	_, cols := ra.Dims()
	rowBytes, err := ra.RawType().RowBytes(cols)
	if err != nil {
		return nil
	}
	r := &rawPair{a: ra, b: rb, x: make([]byte, n*rowBytes), y: make([]byte, n*rowBytes), rowBytes: rowBytes}
	if g, ok := quant.GridOf(ra.RawType()); ok {
		r.grid = g
		r.p, r.q = make([]uint8, n*cols), make([]uint8, n*cols)
		r.step, r.offset = make([]float32, n*cols/int64(g.Sub)), make([]float32, n*cols/int64(g.Sub))
	}
	return r
}

func (r *rawPair) compare(row, n int64) (same bool, codes int64, err error) {
	x, y := r.x[:n*r.rowBytes], r.y[:n*r.rowBytes]
	if err := r.a.ReadRaw(x, row); err != nil {
		return false, 0, err
	}
	if err := r.b.ReadRaw(y, row); err != nil {
		return false, 0, err
	}
	if bytes.Equal(x, y) {
		return true, 0, nil
	}
	if r.grid == nil {
		return false, 0, nil
	}
	r.grid.Unpack(r.p, r.step, r.offset, x)
	r.grid.Unpack(r.q, r.step, r.offset, y)
	for i := range len(x) / r.grid.Bytes * r.grid.Block {
		if r.p[i] != r.q[i] {
			codes++
		}
	}
	return false, codes, nil
}

// diffMeta compares metadata. Keys under "graft." stand for facts of a folder that
// GGUF has no key for; a file cannot have them.
func diffMeta(a, b *gguf.Meta) []MetaDiff {
	var d []MetaDiff
	for _, kv := range a.All() {
		if strings.HasPrefix(kv.Key, "graft.") {
			continue
		}
		v, _ := b.Get(kv.Key)
		if !reflect.DeepEqual(kv.Value, v) {
			d = append(d, MetaDiff{kv.Key, kv.Value, v})
		}
	}
	for _, kv := range b.All() {
		if !a.Has(kv.Key) && !strings.HasPrefix(kv.Key, "graft.") {
			d = append(d, MetaDiff{kv.Key, nil, kv.Value})
		}
	}
	return d
}
