//go:build !noasm

package kernel

import "github.com/graft-lora/graft/internal/cpu"

//go:noescape
func peakAVX512(n int)

//go:noescape
func peakAVX2(n int)

// peakLoop runs a tier's multiply-adds for about a millisecond, or a part of that, and
// gives the number of operations.
func peakLoop(tier cpu.Tier, pieces int) int {
	n := peakSteps / pieces
	switch tier {
	case cpu.AVX512:
		peakAVX512(n)
		return n * 24 * 16 * 2
	case cpu.AVX2:
		peakAVX2(n)
		return n * 12 * 8 * 2
	}
	return peakGeneric(pieces)
}
