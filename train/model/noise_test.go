package model

import (
	"math"
	"testing"
)

// TestNoise: the same numbers for any number of threads, others for another step, of
// the size that NEFTune has, and none in a pass without a gradient.
func TestNoise(t *testing.T) {
	t.Parallel()
	run := func(threads int, step uint64, alpha float32) (entered []float32, loss float64) {
		m := newModel(t, tinies[0].model(), Options{Threads: threads})
		b := randomBatch(m.Vocab, 9, 4)
		b.Noise = Noise{Alpha: alpha, Seed: 1, Step: step}
		a := randomAdapter(m, 2, "blk.0.attn_q.weight")
		l, err := m.LossAndGrad(b, a, NewGrads(a))
		if err != nil {
			t.Fatal(err)
		}
		entered = append(entered, m.work.residual(m, 0).Data...)
		plain, err := m.Loss(b, Scaled{a, 1})
		if err != nil {
			t.Fatal(err)
		}
		if (plain.Sum == l.Sum) != (alpha == 0) {
			t.Errorf("alpha %v: the loss is %v in training and %v else", alpha, l.Sum, plain.Sum)
		}
		return entered, l.Sum
	}
	none, _ := run(1, 0, 0)
	x, loss := run(1, 0, 5)
	y, same := run(3, 0, 5)
	if _, other := run(1, 1, 5); other == loss || same != loss {
		t.Errorf("losses %v, %v with threads, %v in another step", loss, same, other)
	}
	hidden := len(x) / 13
	for seq, s := range []span{{0, 9}, {9, 4}} {
		bound := 5 / math.Sqrt(float64(s.n*hidden))
		var squares, n float64
		for i := s.first * hidden; i < (s.first+s.n)*hidden; i++ {
			d := float64(x[i] - none[i])
			if x[i] != y[i] || math.Abs(d) > bound*1.00001 {
				t.Fatalf("number %d: noise %v, bound %v", i, d, bound)
			}
			squares += d * d
			n++
		}
		// Of a uniform number, √(mean square) is 1/√3 of the bound; n numbers give it to some 1/√n.
		if got := math.Sqrt(3*squares/n) / bound; math.Abs(got-1) > 3/math.Sqrt(n) {
			t.Errorf("sequence %d: the noise has %v of its size", seq, got)
		}
	}
}
