package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/graft-lora/graft/internal/cpu"
)

// benchProduct times run, of the given number of operations on p, and the peak of p's
// workers together in turn, and reports the best of each: the clock changes and cores are
// shared, but both meet the same weather.
func benchProduct(b *testing.B, p *Pool, how Compute, flops int, run func()) {
	run()
	speed, peak := 0.0, 0.0
	for b.Loop() {
		peak = max(peak, how.peakOnce(p))
		start := time.Now()
		run()
		speed = max(speed, float64(flops)/float64(time.Since(start).Nanoseconds()))
	}
	b.ReportMetric(0, "ns/op") // it would be that of both
	b.ReportMetric(speed, "GFLOP/s")
	b.ReportMetric(100*speed/peak, "%peak")
	b.ReportMetric(peak, "peak")
}

// BenchmarkProducts runs the products of a training step of a small model (hidden
// size 576, feed-forward 1536, 512 tokens), the two of an attention head, the thin
// ones of a rank-16 adapter, a large one, and generation's single row.
func BenchmarkProducts(b *testing.B) {
	shapes := []struct {
		form    string
		m, n, k int
	}{
		{"MulNT", 512, 1536, 576},
		{"MulNT", 512, 576, 1536},
		{"MulNT", 512, 576, 576},
		{"MulNT", 512, 192, 576},
		{"MulNN", 512, 576, 1536},
		{"MulNN", 512, 1536, 576},
		{"GemmNT", 512, 1536, 576},
		{"GemmNT", 512, 512, 64},
		{"GemmNN", 512, 64, 512},
		{"GemmNT", 512, 16, 576},
		{"GemmNN", 512, 576, 16},
		{"GemmTN", 16, 576, 512},
		{"GemmTN", 576, 16, 512},
		{"GemmNN", 1024, 1024, 1024},
		{"GemmTN", 512, 64, 64},
		{"GemmNT", 64, 512, 64},
		{"MulNT", 2048, 2048, 2048},
		{"MulNT", 1, 1536, 576},
		{"MulNT", 1, 576, 1536},
		{"MulNT", 8, 1536, 576},
	}
	for _, tier := range append(cpu.Tiers(), cpu.AVX512+1) { // the last stands for bf16
		how := Float32
		if tier > cpu.AVX512 {
			if tier, how = cpu.AVX512, BF16; !how.Available() {
				continue
			}
		}
		name := tier.String()
		if how != Float32 {
			name = how.String()
		}
		for _, threads := range []int{1, 2} {
			for _, s := range shapes {
				if tier == cpu.Generic && (threads > 1 || s.m*s.n*s.k > 1<<28) {
					continue
				}
				b.Run(fmt.Sprintf("%s/threads=%d/%s/%dx%dx%d", name, threads, s.form, s.m, s.n, s.k), func(b *testing.B) {
					defer cpu.Force(tier)()
					p := NewPool(threads)
					defer p.Close()
					r := rand.New(rand.NewPCG(1, 1))
					a, _ := randMat(r, s.m, s.k, 0)
					w, _ := randMat(r, s.k, s.n, 0)
					for _, m := range []*Mat{&a, &w} {
						for i := range m.Data {
							m.Data[i] = r.Float32() - 0.5
						}
					}
					at, wt := a, w
					at.Rows, at.Cols, at.Stride = s.k, s.m, s.m
					wt.Rows, wt.Cols, wt.Stride = s.n, s.k, s.k
					c := NewMat(s.m, s.n)
					var frozen, frozenT Weights = w, wt
					benchProduct(b, p, how, 2*s.m*s.n*s.k, func() {
						switch s.form {
						case "MulNT":
							how.MulNTs(p, a, Term{Y: c, W: frozenT})
						case "MulNN":
							how.MulNN(p, c, a, frozen, false)
						case "GemmNT":
							how.GemmNT(p, c, a, wt, false)
						case "GemmNN":
							how.GemmNN(p, c, a, w, false)
						case "GemmTN":
							how.GemmTN(p, c, at, w, false)
						}
					})
				})
			}
		}
	}
}
