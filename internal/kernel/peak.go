package kernel

import (
	"sync/atomic"
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
	ops := peakLoop(tier, 1)
	return float64(ops) / float64(time.Since(start).Nanoseconds())
}

// MeasurePeak is the most that p's workers do together now, in GFLOP/s, with the multiply-adds
// of c in the current tier: what the share of peak of a product on p is of. Processors of a
// virtual machine may share a core, and then two of them do no more than one: a share is of
// what was measured right before and after. A nil p measures the calling goroutine.
func (c Compute) MeasurePeak(p *Pool) float64 {
	best := 0.0
	for range 8 {
		best = max(best, c.peakOnce(p))
	}
	return best
}

// peakOnce is one run of about a millisecond, in pieces that the workers take as they come.
func (c Compute) peakOnce(p *Pool) float64 {
	const pieces = 8
	tier := cpu.Current()
	var ops atomic.Int64
	start := time.Now()
	p.For(pieces*p.Threads(), func(int, int) {
		if c == BF16 {
			const n = peakSteps / pieces
			peakBF16(n)
			ops.Add(n * 24 * 32 * 2)
			return
		}
		ops.Add(int64(peakLoop(tier, pieces)))
	})
	return float64(ops.Load()) / float64(time.Since(start).Nanoseconds())
}

// peakSteps is how many steps of a tier's loop take about a millisecond.
const peakSteps = 200000

// peakGeneric does independent chains of FMA and gives the number of operations.
func peakGeneric(pieces int) int {
	n := 20000 / pieces
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
