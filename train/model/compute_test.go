package model

import (
	"math"
	"testing"

	"github.com/graft-lora/graft/internal/kernel"
)

// BenchmarkCompute runs a step of 512 trained tokens, rank 16, activations kept, in
// float32 and in bf16 in turn, and reports the best of each and their ratio.
func BenchmarkCompute(b *testing.B) {
	if !kernel.BF16.Available() {
		b.Skip(kernel.BF16.Lacks())
	}
	m := realModel(b, "SmolLM2-135M-Instruct.Q4_1.gguf", Options{KeepLayers: -1})
	a := randomAdapter(m, 16)
	g := NewGrads(a)
	batch := randomBatch(m.Vocab, 512)
	var best [2]float64
	var spent [2]Spent
	for b.Loop() {
		for _, c := range []kernel.Compute{kernel.Float32, kernel.BF16} {
			if err := m.SetCompute(c); err != nil {
				b.Fatal(err)
			}
			if _, err := m.LossAndGrad(batch, a, g); err != nil {
				b.Fatal(err)
			}
			total := 0.0
			for _, t := range m.Spent() {
				total += t.Seconds()
			}
			if best[c] == 0 || total < best[c] {
				best[c], spent[c] = total, m.Spent()
			}
		}
	}
	b.ReportMetric(0, "ns/op") // it would be that of both
	b.ReportMetric(512/best[0], "tokens/s-f32")
	b.ReportMetric(512/best[1], "tokens/s-bf16")
	b.ReportMetric(best[0]/best[1], "ratio")
	for c := range best {
		for w, t := range spent[c] {
			b.Logf("%v: %v %.1f ms", kernel.Compute(c), Work(w), t.Seconds()*1e3)
		}
	}
}

// TestBF16 wants of every kind of block the same bits in bf16 on one thread and several,
// with activations kept and recomputed, and gradients near those of float32: a wrong
// product would put them off by about 1, rounding to 8 bits by hundredths.
func TestBF16(t *testing.T) {
	if !kernel.BF16.Available() {
		t.Skip(kernel.BF16.Lacks())
	}
	for _, c := range tinies {
		src := c.model()
		m := newModel(t, src, Options{Threads: 1, KeepLayers: -1})
		a := randomAdapter(m, 3, all(m)...)
		b := randomBatch(m.Vocab, 70, 3, 20)
		exact := runPass(t, m, a, b)
		if err := m.SetCompute(kernel.BF16); err != nil {
			t.Fatal(err)
		}
		want := runPass(t, m, a, b)
		for name, opt := range map[string]Options{
			"two threads, recomputed": {Threads: 2}, "three threads, one kept": {Threads: 3, KeepLayers: 1},
			"a small head": {Threads: 2, HeadMemory: 1}, "attention kept": {Threads: 2, KeepAttention: true},
		} {
			opt.Compute = kernel.BF16
			want.equal(t, c.name+", "+name, runPass(t, newModel(t, src, opt), a, b))
		}
		var diff, size float64
		for name, g := range exact.grads {
			for i, v := range g.A.Data {
				d := float64(want.grads[name].A.Data[i]) - float64(v)
				diff, size = diff+d*d, size+float64(v)*float64(v)
			}
		}
		off := math.Sqrt(diff / size)
		t.Logf("%s: loss %v, in float32 %v; gradients are off by %.2g", c.name, want.sum, exact.sum, off)
		if math.Abs(want.sum-exact.sum) > 0.005*exact.sum || off > 0.1 || off == 0 {
			t.Errorf("%s: loss %v, in float32 %v; gradients are off by %v", c.name, want.sum, exact.sum, off)
		}
	}
}
