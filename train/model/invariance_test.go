package model

import (
	"slices"
	"testing"

	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/kernel"
)

// pass is everything that a pass gives.
type pass struct {
	sum    float64
	losses []float32
	grads  Grads
}

func runPass(t testing.TB, m *Model, a *Adapter, batches ...*Batch) pass {
	t.Helper()
	p := pass{grads: NewGrads(a)}
	for _, b := range batches {
		l, err := m.LossAndGrad(b, a, p.grads)
		if err != nil {
			t.Fatal(err)
		}
		p.sum += l.Sum
		p.losses = append(p.losses, l.PerToken...)
	}
	return p
}

// equal wants the same bits (zeros of either sign count as equal).
func (p pass) equal(t testing.TB, what string, q pass) {
	t.Helper()
	if !slices.Equal(p.losses, q.losses) {
		t.Errorf("%s: other losses", what)
	}
	for name, g := range p.grads {
		o := q.grads[name]
		if !slices.Equal(g.A.Data, o.A.Data) || !slices.Equal(g.B.Data, o.B.Data) || !slices.Equal(g.Magnitude, o.Magnitude) {
			t.Errorf("%s: another gradient of %s", what, name)
		}
	}
}

// equalTied is equal for a pass that was divided otherwise. The gradient of a tied embedding
// has a part from the head and one from the lookup, which are then added in another order:
// equal to rounding, 2e-7 seen.
func (p pass) equalTied(t testing.TB, what string, q pass, m *Model) {
	t.Helper()
	if x, y := q.grads[embedName], p.grads[embedName]; m.TiedHead && x != nil {
		e := max(relative(x.A.Data, y.A.Data), relative(x.B.Data, y.B.Data))
		if len(x.Magnitude) > 0 {
			e = max(e, relative(x.Magnitude, y.Magnitude))
		}
		if e > 1e-6 {
			t.Errorf("%s: the embedding's gradient differs by %.2g", what, e)
		}
		q.grads[embedName] = y
	}
	p.equal(t, what, q)
}

// TestSameBytes runs every kind of block with activations kept and recomputed, on
// one thread and several, in every tier, with the head in small pieces, and again
// in the same model: all must give the same bits.
func TestSameBytes(t *testing.T) {
	for _, c := range tinies {
		src := c.model()
		m := newModel(t, src, Options{Threads: 1, KeepLayers: -1})
		a := randomAdapter(m, 3, all(m)...)
		b := randomBatch(m.Vocab, 70, 3, 20)
		b.Dropout = Dropout{P: 0.2, Seed: 3, Step: 9}
		want := runPass(t, m, a, b)
		want.equal(t, c.name+", again", runPass(t, m, a, b))
		for name, opt := range map[string]Options{
			"two threads, recomputed": {Threads: 2}, "three threads, one kept": {Threads: 3, KeepLayers: 1}, "a small head": {Threads: 2, HeadMemory: 1},
			"attention kept": {Threads: 2, KeepAttention: true}, "attention and one layer kept": {KeepAttention: true, KeepLayers: 1},
		} {
			want.equal(t, c.name+", "+name, runPass(t, newModel(t, src, opt), a, b))
		}
		for _, tier := range cpu.Tiers() {
			restore := cpu.Force(tier)
			want.equal(t, c.name+", "+tier.String(), runPass(t, newModel(t, src, Options{Threads: 2}), a, b))
			restore()
		}
	}
}

// TestPacked wants of a packed batch the bits of its sequences one by one, and
// nothing from tokens that pad a sequence on the right.
func TestPacked(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		m := newModel(t, c.model(), Options{Threads: 1})
		a := randomAdapter(m, 3, all(m)...)
		packed := randomBatch(m.Vocab, 17, 5, 70)
		packed.Targets[3] = Untrained
		want := runPass(t, m, a, packed)
		var alone, padded []*Batch
		first := 0
		for _, n := range packed.Lens {
			b := &Batch{IDs: packed.IDs[first : first+n], Targets: packed.Targets[first : first+n]}
			alone = append(alone, b)
			padded = append(padded, &Batch{
				IDs:     append(slices.Clone(b.IDs), 1, 2, 1),
				Targets: append(slices.Clone(b.Targets), Untrained, Untrained, Untrained),
			})
			first += n
		}
		for what, got := range map[string]pass{"unpacked": runPass(t, m, a, alone...), "padded": runPass(t, m, a, padded...)} {
			want.equalTied(t, c.name+", "+what, got, m)
		}
	}
}

// TestSession wants of a session, fed in pieces and token by token, the bits that
// the whole sequence gives at once: past windows, past pieces of a prompt, with two
// adapters, and after a reset.
func TestSession(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		m := newModel(t, c.model(), Options{Threads: 1})
		adapters := []Scaled{{randomAdapter(m, 2, all(m)...), 0.5}, {randomAdapter(m, 3, "blk.1.attn_output.weight"), -1}}
		b := randomBatch(m.Vocab, promptPiece+150)
		var want [][]float32
		err := m.Logits(b, func(_ int, x kernel.Mat) error {
			for r := range x.Rows {
				want = append(want, slices.Clone(x.Row(r)))
			}
			return nil
		}, adapters...)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.NewSession(len(b.IDs), adapters...)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for _, n := range []int{3, 1, 1, promptPiece + 40, 1, 1, 60, 20} {
				got, err := s.Append(b.IDs[s.Len() : s.Len()+n])
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want[s.Len()-1]) {
					t.Errorf("%s: other logits after %d tokens", c.name, s.Len())
				}
			}
			for s.Len() < len(b.IDs) {
				got, err := s.Append(b.IDs[s.Len() : s.Len()+1])
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want[s.Len()-1]) {
					t.Errorf("%s: other logits after %d tokens", c.name, s.Len())
				}
			}
			if _, err := s.Append(b.IDs[:1]); err == nil {
				t.Errorf("%s: a full session took a token", c.name)
			}
			s.Reset()
		}
	}
}

// TestWindowsBoundTheCache wants a session's cache to stop growing where every
// layer has a window.
func TestWindowsBoundTheCache(t *testing.T) {
	t.Parallel()
	c := tinies[slices.IndexFunc(tinies, func(c namedTiny) bool { return c.name == "phi3" })] // it has a window on every layer
	m := newModel(t, c.model(), Options{Threads: 1})
	s, err := m.NewSession(5000)
	if err != nil {
		t.Fatal(err)
	}
	var after100 int64
	for i := range 3000 {
		if _, err := s.Append([]int32{int32(i % m.Vocab)}); err != nil {
			t.Fatal(err)
		}
		if i == 100 {
			after100 = s.CacheBytes()
		}
	}
	if s.CacheBytes() != after100 {
		t.Errorf("%d bytes after 101 tokens, %d after 3000", after100, s.CacheBytes())
	}
}

// TestSubsets wants a matrix trained alone, whatever part of the backward pass it
// needs, to get the gradient that it gets among all others. B is zero, so that the
// others change nothing.
func TestSubsets(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		m := newModel(t, c.model(), Options{Threads: 1})
		a := randomAdapter(m, 2, all(m)...)
		for _, p := range a.Pairs {
			p.B.Zero()
		}
		b := randomBatch(m.Vocab, 6, 3)
		want := runPass(t, m, a, b)
		for _, name := range a.Names() {
			one := NewAdapter()
			one.Pairs[name] = a.Pairs[name]
			got := runPass(t, m, one, b)
			if !slices.Equal(got.grads[name].B.Data, want.grads[name].B.Data) {
				t.Errorf("%s: %s alone has another gradient", c.name, name)
			}
		}
	}
}

// TestEvaluationDropsNothing wants Loss to pass over a batch's dropout.
func TestEvaluationDropsNothing(t *testing.T) {
	t.Parallel()
	m := newModel(t, tiny{arch: "llama"}.model(), Options{Threads: 1})
	a := Scaled{randomAdapter(m, 2), 1}
	b := randomBatch(m.Vocab, 9)
	want, err := m.Loss(b, a)
	if err != nil {
		t.Fatal(err)
	}
	b.Dropout = Dropout{P: 0.5}
	got, err := m.Loss(b, a)
	if err != nil || got.Sum != want.Sum {
		t.Errorf("loss %v, %v with dropout, %v without", got.Sum, err, want.Sum)
	}
	if l, err := m.LossAndGrad(b, a.Adapter, NewGrads(a.Adapter)); err != nil || l.Sum == want.Sum {
		t.Errorf("loss %v, %v of training with dropout, %v without", l.Sum, err, want.Sum)
	}
}
