package kernel

import (
	"time"

	"github.com/graft-lora/graft/internal/cpu"
)

// MeasurePeak is the most that the calling goroutine's core does now, in GFLOP/s, with
// the tier's fused multiply-adds (each two operations) on registers alone: what the
// shares of peak in the benchmarks are of. It takes the best of several runs, of some
// ten milliseconds together; other work on the machine and the clock's moods lower it,
// so measure it between the runs that it is compared with. The tier must be one that
// runs here. For the pure Go tier it measures FMA.
func MeasurePeak(tier cpu.Tier) float64 {
	best := 0.0
	for range 8 {
		best = max(best, peakOnce(tier))
	}
	return best
}

// peakOnce is one run of about a millisecond.
func peakOnce(tier cpu.Tier) float64 {
	start := time.Now()
	ops := peakLoop(tier)
	return float64(ops) / float64(time.Since(start).Nanoseconds())
}

// peakGeneric does independent chains of FMA and gives the number of operations.
func peakGeneric() int {
	const n = 20000
	s := [4]float32{1, 2, 3, 4}
	for range n {
		for j := range s {
			s[j] = FMA(s[j], 0.999, 0.1)
		}
	}
	if s[0] == 0 {
		panic("kernel: FMA is wrong")
	}
	return 2 * len(s) * n
}
