package model

import (
	"math"
	"testing"

	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/kernel"
)

// namedTiny is a tiny model with a name for messages.
type namedTiny struct {
	name string
	tiny
}

// tinies has a model for every kind of block.
var tinies = []namedTiny{
	{"llama", tiny{arch: "llama"}},
	{"llama with rope divisors, tied", tiny{arch: "llama", tied: true, extra: map[string][]float32{"rope_freqs.weight": {1, 3, 8}}}},
	{"mixtral", tiny{arch: "llama", experts: 5, used: 2, expertFF: 10}},
	{"qwen2", tiny{arch: "qwen2", bias: true}},
	{"gemma", tiny{arch: "gemma", tied: true}},
	{"qwen3", tiny{arch: "qwen3", headNorm: true}},
	{"gemma2", tiny{arch: "gemma2", post: true, tied: true, layers: 3, keys: map[string]gguf.Value{"attention.sliding_window": uint32(5),
		"attn_logit_softcapping": float32(3), "final_logit_softcapping": float32(4)}}},
	{"gemma3", tiny{arch: "gemma3", post: true, tied: true, headNorm: true, layers: 7, keys: map[string]gguf.Value{"attention.sliding_window": uint32(5)}}},
	{"phi3", tiny{arch: "phi3", fused: true, keys: map[string]gguf.Value{"attention.sliding_window": uint32(7), "rope.dimension_count": uint32(4),
		"rope.scaling.attn_factor": float32(1.2)}, extra: map[string][]float32{"rope_factors_long.weight": {1, 9}, "rope_factors_short.weight": {1, 2}}}},
	{"smollm3", tiny{arch: "smollm3", layers: 4}},
	{"olmo2 with yarn", tiny{arch: "olmo2", noPre: true, post: true, wholeNorm: true, keys: map[string]gguf.Value{
		"rope.scaling.type": "yarn", "rope.scaling.factor": float32(4), "rope.scaling.original_context_length": uint32(16)}}},
	{"granite", tiny{arch: "granite", keys: map[string]gguf.Value{"attention.scale": float32(0.3), "residual_scale": float32(0.4),
		"embedding_scale": float32(2), "logit_scale": float32(1.5)}}},
	{"qwen2moe", tiny{arch: "qwen2moe", bias: true, experts: 6, used: 3, expertFF: 10, sharedFF: 14}},
	{"qwen3moe", tiny{arch: "qwen3moe", headNorm: true, experts: 6, used: 3, expertFF: 10}},
}

// TestFiniteDifferences compares each pair's gradient, along one direction for A
// and one for B, with the slope of the loss. The slopes are central differences
// of a loss in float32; what is seen is their rounding, up to 8e-4.
func TestFiniteDifferences(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newModel(t, c.model(), Options{Threads: 1, KeepLayers: 1})
			b := randomBatch(m.Vocab, 9, 4)
			b.Weights = randomMat(1, 13, 1, "weights").Data
			b.Targets[2] = Untrained
			for _, drop := range []float32{0, 0.3} {
				b.Dropout = Dropout{P: drop, Seed: 1, Step: 2}
				a := randomAdapter(m, 2, all(m)...)
				g := NewGrads(a)
				if _, err := m.LossAndGrad(b, a, g); err != nil {
					t.Fatal(err)
				}
				for _, name := range a.Names() {
					slope(t, m, b, a, name+" A", a.Pairs[name].A, g[name].A)
					slope(t, m, b, a, name+" B", a.Pairs[name].B, g[name].B)
				}
			}
		})
	}
}

// slope moves x along a random direction and back.
func slope(t *testing.T, m *Model, b *Batch, a *Adapter, name string, x, g kernel.Mat) {
	t.Helper()
	// Along the gradient itself, roughly: half of it is its sign, so that the slope is not lost in rounding.
	d := randomMat(x.Rows, x.Cols, 0.3, "direction", name)
	var want, norm float64
	for i, v := range g.Data {
		if v > 0 {
			d.Data[i]++
		} else if v < 0 {
			d.Data[i]--
		}
		want += float64(v) * float64(d.Data[i])
		norm += float64(v) * float64(v)
	}
	if norm == 0 {
		t.Errorf("%s: the gradient is zero", name)
		return
	}
	at := func(step float32) float64 {
		old := append([]float32(nil), x.Data...)
		kernel.Axpy(x.Data, step, d.Data)
		g := NewGrads(a) // the loss with dropout is that of training
		l, err := m.LossAndGrad(b, a, g)
		if err != nil {
			t.Fatal(err)
		}
		copy(x.Data, old)
		return l.Sum
	}
	// Richardson: the errors of the second order cancel. A mixture must not choose
	// other experts on the way, so its steps are shorter.
	h := float32(6e-3)
	if m.MoE.Experts > 0 {
		h = 3e-3
	}
	s1 := (at(h) - at(-h)) / float64(2*h)
	s2 := (at(2*h) - at(-2*h)) / float64(4*h)
	got := (4*s1 - s2) / 3
	if math.Abs(got-want) > 1e-3*math.Abs(want)+2e-4 {
		t.Errorf("%s: the loss changes by %.6g, the gradient says %.6g", name, got, want)
	}
}

// all lists everything that adapters can change.
func all(m *Model) []string { return append(m.Matrices(), m.Stacks()...) }

// TestReweigh takes a loss that is no sum over tokens, the logarithm of a sum of the
// sequences' squares: its slopes are the gradient that the weights make.
func TestReweigh(t *testing.T) {
	t.Parallel()
	m := newModel(t, tinies[0].model(), Options{Threads: 1})
	b := randomBatch(m.Vocab, 9, 4)
	a := randomAdapter(m, 2, all(m)...)
	value := func(losses []float32) (y float64, weights []float32) {
		sums := [2]float64{}
		for i, l := range losses {
			sums[i/8] += float64(l)
		}
		total := sums[0]*sums[0] + sums[1]*sums[1]
		for i := range losses {
			weights = append(weights, float32(2*sums[i/8]/total))
		}
		return math.Log(total), weights
	}
	g := NewGrads(a)
	b.Reweigh = func(losses []float32) []float32 { _, w := value(losses); return w }
	if _, err := m.LossAndGrad(b, a, g); err != nil {
		t.Fatal(err)
	}
	for _, name := range a.Names() {
		want, d := 0.0, a.Pairs[name].B
		for _, v := range g[name].B.Data {
			want += float64(v) * float64(v)
		}
		h := 0.02 / math.Sqrt(want)
		at := func(h float64) float64 {
			old := append([]float32(nil), d.Data...)
			kernel.Axpy(d.Data, float32(h), g[name].B.Data)
			l, err := m.Loss(b, Scaled{a, 1})
			if err != nil {
				t.Fatal(err)
			}
			copy(d.Data, old)
			y, _ := value(l.PerToken)
			return y
		}
		if got := (at(h) - at(-h)) / (2 * h); math.Abs(got-want) > 5e-3*want {
			t.Errorf("%s: the loss changes by %v, the gradient says %v", name, got, want)
		}
	}
	b.Reweigh = func([]float32) []float32 { return nil }
	if _, err := m.LossAndGrad(b, a, g); err == nil {
		t.Error("weights that are missing are taken")
	}
}
