package model

import (
	"math"
	"slices"
	"testing"

	"github.com/graft-lora/graft/internal/kernel"
)

// teacherOf makes what m with an adapter predicts at b's trained tokens.
func teacherOf(t *testing.T, m *Model, b *Batch, k int, temperature float32, adapters ...Scaled) *Soft {
	t.Helper()
	s := &Soft{K: k, Weight: 1, Temperature: temperature}
	scratch := make([]float32, m.Vocab)
	err := m.Predictions(b, func(first int, logits kernel.Mat) {
		if first != len(s.Rest) {
			t.Errorf("rows from %d on, after %d", first, len(s.Rest))
		}
		for r := range logits.Rows {
			ids, logP := make([]int32, k), make([]float32, k)
			rest := TopLogP(ids, logP, logits.Row(r), m.Vocab, temperature, scratch)
			s.IDs, s.LogP, s.Rest = append(s.IDs, ids...), append(s.LogP, logP...), append(s.Rest, rest)
		}
	}, adapters...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSoftFiniteDifferences compares the gradient of a loss with a teacher in it with the
// slopes of the loss, for models with capped and with scaled logits among them.
func TestSoftFiniteDifferences(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		if !slices.Contains([]string{"llama", "gemma2", "granite", "mixtral"}, c.name) {
			continue
		}
		for _, s := range []Soft{{K: 5, Weight: 1, Temperature: 1}, {K: 3, Weight: 0.6, Temperature: 1.6}} {
			m := newModel(t, c.model(), Options{Threads: 1, HeadMemory: 1})
			b := randomBatch(m.Vocab, 9, 4)
			b.Targets[2] = Untrained
			b.Weights = randomMat(1, 13, 1, "weights").Data
			teacher := randomAdapter(m, 3, all(m)...)
			soft := teacherOf(t, m, b, s.K, s.Temperature, Scaled{teacher, 2})
			soft.Weight = s.Weight
			b.Soft = soft
			a := randomAdapter(m, 2, all(m)...)
			g := NewGrads(a)
			l, err := m.LossAndGrad(b, a, g)
			if err != nil {
				t.Fatal(err)
			}
			other, err := m.Loss(b, Scaled{a, 1})
			if err != nil || other.Sum != l.Sum || !slices.Equal(other.Soft, l.Soft) {
				t.Errorf("%s: the loss is %v, with the gradient %v; %v", c.name, other.Sum, l.Sum, err)
			}
			for _, name := range a.Names() {
				slope(t, m, b, a, c.name+" "+name+" A", a.Pairs[name].A, g[name].A)
				slope(t, m, b, a, c.name+" "+name+" B", a.Pairs[name].B, g[name].B)
			}
		}
	}
}

// TestSoftByHand compares loss and gradient of single rows with the formulas in float64.
func TestSoftByHand(t *testing.T) {
	t.Parallel()
	const vocab, k = 37, 6
	for _, temperature := range []float32{1, 0.5, 3} {
		teacher, student := randomMat(1, vocab, 3, "teacher").Data, randomMat(1, vocab, 3, "student").Data
		s := &Soft{K: k, IDs: make([]int32, k), LogP: make([]float32, k), Rest: make([]float32, 1), Temperature: temperature}
		s.Rest[0] = TopLogP(s.IDs, s.LogP, teacher, vocab, temperature, make([]float32, vocab))
		softmax := func(z []float32) []float64 {
			p, sum := make([]float64, len(z)), 0.0
			for i, v := range z {
				p[i] = math.Exp(float64(v) / float64(temperature))
				sum += p[i]
			}
			for i := range p {
				p[i] /= sum
			}
			return p
		}
		p, q := softmax(teacher), softmax(student)
		order := make([]int32, vocab)
		for i := range order {
			order[i] = int32(i)
		}
		slices.SortStableFunc(order, func(a, b int32) int { return int(math.Copysign(1, p[b]-p[a])) })
		if !slices.Equal(order[:k], s.IDs) {
			t.Fatalf("the largest are %v, not %v", s.IDs, order[:k])
		}
		var kl, pr, qr float64
		for i, id := range order {
			if i < k {
				kl += p[id] * math.Log(p[id]/q[id])
				continue
			}
			pr, qr = pr+p[id], qr+q[id]
		}
		kl += pr * math.Log(pr/qr)
		g := make([]float32, vocab)
		got := s.soften(g, student, 0, 0.7, nil)
		if math.Abs(float64(got)-kl) > 1e-6 || s.soften(nil, student, 0, 0.7, make([]float32, vocab)) != got {
			t.Errorf("temperature %v: the divergence is %v, want %v", temperature, got, kl)
		}
		for j := range g {
			want := q[j] * (1 - pr/qr)
			if slices.Contains(s.IDs, int32(j)) {
				want = q[j] - p[j]
			}
			want *= 0.7 * float64(temperature)
			if math.Abs(float64(g[j])-want) > 3e-7 {
				t.Errorf("temperature %v: the gradient of %d is %v, want %v", temperature, j, g[j], want)
			}
		}
	}
}

// TestSoftOfItself finds nothing to learn from itself, whether or not all tokens are kept,
// even where it is quite sure.
func TestSoftOfItself(t *testing.T) {
	t.Parallel()
	m := newModel(t, tinies[0].model(), Options{Threads: 2})
	b := randomBatch(m.Vocab, 9, 4)
	a := randomAdapter(m, 2, all(m)...)
	for _, k := range []int{1, 4, m.Vocab} {
		for _, temperature := range []float32{1, 0.01, 3} {
			b.Soft = nil
			b.Soft = teacherOf(t, m, b, k, temperature, Scaled{a, 1})
			g := NewGrads(a)
			l, err := m.LossAndGrad(b, a, g)
			if err != nil {
				t.Fatal(err)
			}
			if !(math.Abs(l.Sum) < 1e-5) {
				t.Errorf("%d at %v: the loss is %v", k, temperature, l.Sum)
			}
			for name, p := range g {
				for _, v := range append(p.A.Data, p.B.Data...) {
					if !(math.Abs(float64(v)) < 1e-5) {
						t.Fatalf("%d at %v: a gradient of %s is %v", k, temperature, name, v)
					}
				}
			}
		}
	}
	for _, bad := range []Soft{{}, {K: 2, IDs: make([]int32, 3)}, {K: 1, IDs: []int32{99}}} {
		b.Soft = &bad
		if _, err := m.Loss(b); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
