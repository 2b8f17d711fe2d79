package model

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

// memBlocks is a tensor of quantized rows in memory.
type memBlocks struct {
	typ        format.Type
	codec      format.Codec
	data       []byte
	rows, cols int64
}

func (r *memBlocks) Dims() (rows, cols int64) { return r.rows, r.cols }
func (r *memBlocks) RawType() format.Type     { return r.typ }

func (r *memBlocks) rowBytes() int64 { return int64(len(r.data)) / r.rows }

func (r *memBlocks) ReadRaw(dst []byte, row int64) error {
	copy(dst, r.data[row*r.rowBytes():])
	return nil
}

func (r *memBlocks) ReadRows(dst []float32, row int64) error {
	n := int64(len(dst)) / r.cols
	r.codec.Decode(dst, r.data[row*r.rowBytes():(row+n)*r.rowBytes()])
	return nil
}

// quantized is a model with its matrices in a type, but those whose rows are no
// whole blocks.
func quantized(t testing.TB, src *arch.Model, typ format.Type) *arch.Model {
	t.Helper()
	codec, err := format.EncoderOf(typ)
	if err != nil {
		t.Fatal(err)
	}
	var views []*format.View
	for _, v := range src.Views {
		w := *v
		rows, cols := v.Rows.Dims()
		if len(v.Shape) > 1 && cols%int64(typ.BlockSize()) == 0 && !strings.Contains(v.Name, "gate_inp") {
			x := make([]float32, rows*cols)
			if err := v.Rows.ReadRows(x, 0); err != nil {
				t.Fatal(err)
			}
			n, err := typ.RowBytes(cols)
			if err != nil {
				t.Fatal(err)
			}
			r := &memBlocks{typ: typ, codec: codec, data: make([]byte, rows*n), rows: rows, cols: cols}
			if err := codec.Encode(r.data, x, int(cols), nil); err != nil {
				t.Fatal(err)
			}
			w.Type, w.Rows = typ, r
		}
		views = append(views, &w)
	}
	return arch.NewModel(src.Path, src.Meta, views)
}

// mergedInto is a model with an adapter merged into its codes: each tensor at once.
func mergedInto(t testing.TB, src *arch.Model, a *Adapter, seed uint64) *arch.Model {
	t.Helper()
	var views []*format.View
	for _, v := range src.Views {
		w := *v
		if p := a.Pairs[v.Name]; p != nil {
			r := *v.Rows.(*memBlocks)
			d, err := quant.NewDither(r.typ, seed, v.Name, int(r.cols))
			if err != nil {
				t.Fatal(err)
			}
			rank, stack := p.Rank(), 1
			if len(v.Shape) == 3 {
				stack = int(v.Shape[0])
			}
			change := kernel.NewMat(int(r.rows), int(r.cols))
			n := int(r.rows) / stack
			for i := range stack {
				kernel.GemmNN(nil, change.Sub(i*n, (i+1)*n, 0, change.Cols), p.B.Sub(i*n, (i+1)*n, 0, rank), p.A.Sub(i*rank, (i+1)*rank, 0, p.A.Cols), false)
			}
			for i := range change.Data {
				change.Data[i] *= p.Scale
			}
			r.data = bytes.Clone(r.data)
			if err := d.Merge(r.data, r.data, change.Data, 0); err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(r.data, v.Rows.(*memBlocks).data) {
				t.Fatalf("%s: the merge moved no code", v.Name)
			}
			w.Rows = &r
		}
		views = append(views, &w)
	}
	return arch.NewModel(src.Path, src.Meta, views)
}

// zeroed is a with A or B zero.
func zeroed(a *Adapter, b bool) *Adapter {
	z := NewAdapter()
	for name, p := range a.Pairs {
		q := *p
		if b {
			q.B = kernel.NewMat(p.B.Rows, p.B.Cols)
		} else {
			q.A = kernel.NewMat(p.A.Rows, p.A.Cols)
		}
		z.Pairs[name] = &q
	}
	return z
}

func logitsOf(t testing.TB, m *Model, ids []int32, adapters ...Scaled) []float32 {
	t.Helper()
	var all []float32
	err := m.Logits(&Batch{IDs: ids}, func(_ int, l kernel.Mat) error {
		for i := range l.Rows {
			all = append(all, l.Row(i)...)
		}
		return nil
	}, adapters...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// mergeTinies are models whose rows are blocks of every type.
var mergeTinies = []namedTiny{
	{"llama", tiny{arch: "llama", hidden: 256, ff: 256, dim: 64, layers: 2}},
	{"gemma, tied", tiny{arch: "gemma", hidden: 256, ff: 256, dim: 64, layers: 1, tied: true}},
	{"qwen2moe", tiny{arch: "qwen2moe", hidden: 256, ff: 256, dim: 64, layers: 1, bias: true, experts: 4, used: 2, expertFF: 256, sharedFF: 256}},
}

// TestMerged compares a model with an adapter as if merged with the model whose
// matrices are what the merge gives, in every type, bit for bit: losses, logits and a
// session's, and gradients. These are, by the straight-through rule, those of an
// ordinary adapter on the merged model that adds nothing, its A (for the gradient of A) or
// its B being zero, and so what finite differences are checked for elsewhere.
func TestMerged(t *testing.T) {
	t.Parallel()
	for _, c := range mergeTinies {
		for _, typ := range []format.Type{format.Q4_0, format.Q4_1, format.Q5_0, format.Q5_1, format.Q8_0, format.Q4_K, format.Q5_K, format.Q6_K} {
			t.Run(c.name+" "+typ.String(), func(t *testing.T) {
				t.Parallel()
				src := quantized(t, c.model(), typ)
				m := newModel(t, src, Options{Threads: 2, KeepLayers: -1})
				a := randomAdapter(m, 3, all(m)...)
				a.Merge = &Merge{Seed: 9}
				b := randomBatch(m.Vocab, 9, 4)
				got := runPass(t, m, a, b)

				merged := newModel(t, mergedInto(t, src, a, 9), Options{Threads: 1, KeepLayers: -1})
				for _, z := range []bool{false, true} {
					ordinary := runPass(t, merged, zeroed(a, z), b)
					if !slices.Equal(got.losses, ordinary.losses) {
						t.Error("other losses")
					}
					for name, g := range ordinary.grads {
						if z && !slices.Equal(g.A.Data, make([]float32, len(g.A.Data))) {
							t.Errorf("%s: A has a gradient where B is zero", name)
						}
						if z && !slices.Equal(g.B.Data, got.grads[name].B.Data) || !z && !slices.Equal(g.A.Data, got.grads[name].A.Data) {
							t.Errorf("%s: another gradient", name)
						}
					}
				}
				want := logitsOf(t, merged, b.IDs[:9])
				as := Scaled{Adapter: a, Weight: 1}
				if !slices.Equal(logitsOf(t, m, b.IDs[:9], as), want) {
					t.Error("other logits")
				}
				if slices.Equal(logitsOf(t, m, b.IDs[:9]), want) {
					t.Error("the base alone has the logits of the merged model")
				}
				s, err := m.NewSession(9, as)
				if err != nil {
					t.Fatal(err)
				}
				last, err := s.Append(b.IDs[:9])
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(last, want[8*m.Vocab:]) {
					t.Error("other logits of a session")
				}
			})
		}
	}
}

// TestMergedSameBytes wants the same bits in every tier, for any threads, and with
// weights kept or made again for each layer; and new weights when the adapter has changed.
func TestMergedSameBytes(t *testing.T) {
	for _, c := range mergeTinies {
		src := quantized(t, c.model(), format.Q4_K)
		m := newModel(t, src, Options{Threads: 1, KeepLayers: -1})
		a := randomAdapter(m, 3, all(m)...)
		a.Merge = &Merge{Seed: 9}
		b := randomBatch(m.Vocab, 9, 4)
		want := runPass(t, m, a, b)
		want.equal(t, c.name+", again", runPass(t, m, a, b))
		want.equal(t, c.name+", streamed", runPass(t, newModel(t, src, Options{Threads: 3, Stream: true}), a, b))
		for _, tier := range cpu.Tiers() {
			restore := cpu.Force(tier)
			want.equal(t, c.name+", "+tier.String(), runPass(t, newModel(t, src, Options{Threads: 2}), a, b))
			restore()
		}
		for _, p := range a.Pairs {
			kernel.Scale(p.B.Data, 2, p.B.Data)
		}
		a.Changed()
		after := runPass(t, m, a, b)
		if slices.Equal(after.losses, want.losses) {
			t.Errorf("%s: a changed adapter has the losses of before", c.name)
		}
		after.equal(t, c.name+", changed", runPass(t, newModel(t, src, Options{}), a, b))
		// Another adapter, and the same at half strength, take the place of the first.
		other := randomAdapter(m, 2)
		other.Merge = &Merge{Seed: 10}
		runPass(t, m, other, b)
		if _, err := m.Loss(b, Scaled{a, 0.5}); err != nil {
			t.Fatal(err)
		}
		after.equal(t, c.name+", after others", runPass(t, m, a, b))
	}
}

// TestMergedErrors asks for what cannot be.
func TestMergedErrors(t *testing.T) {
	t.Parallel()
	plain := newModel(t, tinies[0].model(), Options{Threads: 1})
	a := randomAdapter(plain, 2)
	a.Merge = &Merge{}
	var unsupported *format.UnsupportedError
	if _, err := plain.Loss(randomBatch(plain.Vocab, 4), Scaled{a, 1}); !errors.As(err, &unsupported) {
		t.Errorf("a model in float32: %v", err)
	}
	iq4 := newModel(t, quantized(t, mergeTinies[0].model(), format.IQ4_NL), Options{Threads: 1})
	if err := iq4.Mergeable("blk.0.attn_q.weight"); !errors.As(err, &unsupported) || !strings.Contains(err.Error(), "iq4_nl") {
		t.Errorf("IQ4_NL: %v", err)
	}
	if err := iq4.Mergeable("blk.7.attn_q.weight"); err == nil {
		t.Error("a matrix that is not there is mergeable")
	}
	m := newModel(t, quantized(t, mergeTinies[0].model(), format.Q8_0), Options{Threads: 1})
	a = randomAdapter(m, 2)
	a.Merge = &Merge{}
	if _, err := m.Loss(randomBatch(m.Vocab, 4), Scaled{a, 1}, Scaled{randomAdapter(m, 2), 1}); err == nil {
		t.Error("an adapter as merged acts together with another")
	}
}
