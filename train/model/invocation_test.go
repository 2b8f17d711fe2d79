package model

import (
	"math"
	"slices"
	"testing"

	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/kernel"
)

// invocation gives an adapter the tokens of b at some place as its invocation.
func withInvocation(a *Adapter, b *Batch, at int) *Adapter {
	delete(a.Pairs, embedName)
	delete(a.Pairs, headName)
	a.Invocation = slices.Clone(b.IDs[at : at+2])
	return a
}

// TestInvocation wants an adapter to leave what stands before its invocation, bit for
// bit, and to act on what follows as a finite difference says; a sequence without the
// invocation is the base's; packed, in threads, in tiers and in a session all is the same.
func TestInvocation(t *testing.T) {
	for _, c := range tinies {
		m := newModel(t, c.model(), Options{Threads: 1, KeepLayers: -1})
		b := randomBatch(m.Vocab, 12, 4)
		b.IDs[9], b.IDs[10] = 28, 27 // twice in the first sequence: the last counts
		b.IDs[2], b.IDs[3] = 28, 27
		a := withInvocation(randomAdapter(m, 2, all(m)...), b, 9)
		on, off := allLogits(t, m, b, Scaled{a, 1}), allLogits(t, m, b)
		for at := range b.IDs {
			same := slices.Equal(on[at*m.Vocab:(at+1)*m.Vocab], off[at*m.Vocab:(at+1)*m.Vocab])
			if inside := at >= 9 && at < 12; same == inside {
				t.Errorf("%s: token %d is the base's: %v", c.name, at, same)
			}
		}
		settle(t, m, b, NewAdapter())
		a = withInvocation(a, b, 5)
		g := NewGrads(a)
		b.Dropout, b.Before = Dropout{P: 0.2, Seed: 1}, 100
		if _, err := m.LossAndGrad(b, a, g); err != nil {
			t.Fatal(err)
		}
		if c.experts == 0 { // of a mixture some experts see no token
			for _, name := range a.Names() {
				slope(t, m, b, a, name+" A", a.Pairs[name].A, g[name].A)
				slope(t, m, b, a, name+" B", a.Pairs[name].B, g[name].B)
			}
		}
		want := runPass(t, m, a, b)
		for _, tier := range cpu.Tiers() {
			restore := cpu.Force(tier)
			want.equal(t, c.name, runPass(t, newModel(t, c.model(), Options{Threads: 2}), a, b))
			restore()
		}
		s, err := m.NewSession(12, Scaled{a, 1})
		if err != nil {
			t.Fatal(err)
		}
		w := allLogits(t, m, &Batch{IDs: b.IDs[:12]}, Scaled{a, 1})
		from := invoked(b.IDs[:12], a.Invocation) + 2
		if from > 12 {
			t.Fatalf("%s: no invocation", c.name)
		}
		if _, err := s.Append(b.IDs[:from]); err != nil {
			t.Fatal(err)
		}
		for at := from; at < 12; at++ {
			got, err := s.Append(b.IDs[at : at+1])
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, w[at*m.Vocab:(at+1)*m.Vocab]) {
				t.Errorf("%s: token %d of a session has other logits", c.name, at)
			}
		}
	}
	m := newModel(t, tinies[0].model(), Options{Threads: 1})
	b := randomBatch(m.Vocab, 5)
	for _, a := range []*Adapter{randomAdapter(m, 1, embedName), randomAdapter(m, 1, headName), magnitudes(t, m, randomAdapter(m, 1))} {
		a.Invocation = []int32{1}
		if _, err := m.Loss(b, Scaled{a, 1}); err == nil {
			t.Error("an invocation is taken that cannot be")
		}
	}
}

// TestRouterLoss compares the loss of routers with transformers' formula, written out,
// and its gradient with slopes.
func TestRouterLoss(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		if c.experts == 0 {
			continue
		}
		m := newModel(t, c.model(), Options{Threads: 1, KeepLayers: -1})
		b := randomBatch(m.Vocab, 5, 3)
		a := randomAdapter(m, 2, all(m)...)
		b.Router = 0.7
		settle(t, m, b, a)
		g := NewGrads(a)
		l, err := m.LossAndGrad(b, a, g)
		if err != nil {
			t.Fatal(err)
		}
		// load_balancing_loss_func of transformers, of the sequences of 5 and of 3 tokens, which train 4 and 2.
		e, used := m.MoE.Experts, m.MoE.Used
		want := 0.
		for _, s := range [][3]int{{0, 5, 4}, {5, 8, 2}} {
			perExpert, prob := make([]float64, e), make([]float64, e)
			rows := 0.
			for i := range m.work.acts {
				mx := &m.work.acts[i].mix
				rows += float64(s[1] - s[0])
				for _, x := range mx.chosen[s[0]*used : s[1]*used] {
					perExpert[x]++
				}
				for i, p := range mx.probs.mat(len(b.IDs), e).Sub(s[0], s[1], 0, e).Data[:e*(s[1]-s[0])] {
					prob[i%e] += float64(p)
				}
			}
			for i := range e {
				want += float64(s[2]) / 6 * float64(e) * perExpert[i] / rows * prob[i] / rows
			}
		}
		if math.Abs(l.RouterSum/6-want) > 1e-6*want {
			t.Errorf("%s: the loss of routers is %v, not %v", c.name, l.RouterSum/6, want)
		}
		first := a.Names()[0]
		plain := *b
		plain.Router = 0
		h := NewGrads(a)
		if _, err := m.LossAndGrad(&plain, a, h); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{first, "blk.0.attn_v.weight", "blk.0.ffn_down_exps.weight"} {
			// The part of the gradient that is the routers', along itself.
			d := kernel.NewMat(1, len(g[name].B.Data))
			kernel.Sub(d.Data, g[name].B.Data, h[name].B.Data)
			norm := math.Sqrt(dotOf(d.Data, d.Data))
			if norm == 0 {
				t.Errorf("%s: %s gets nothing from routers", c.name, name)
				continue
			}
			at := func(step float64) float64 {
				old := slices.Clone(a.Pairs[name].B.Data)
				kernel.Axpy(a.Pairs[name].B.Data, float32(step/norm), d.Data)
				l, err := m.LossAndGrad(b, a, NewGrads(a))
				if err != nil {
					t.Fatal(err)
				}
				copy(a.Pairs[name].B.Data, old)
				return l.RouterSum * float64(b.Router)
			}
			const step = 4e-3
			if got := (at(step) - at(-step)) / (2 * step); math.Abs(got-norm) > 1e-2*norm {
				t.Errorf("%s: %s: the loss of routers changes by %v, the gradient says %v", c.name, name, got, norm)
			}
		}
	}
}

func dotOf(x, y []float32) (sum float64) {
	for i, v := range x {
		sum += float64(v) * float64(y[i])
	}
	return sum
}
