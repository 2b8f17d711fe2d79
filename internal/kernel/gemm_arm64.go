//go:build !noasm

package kernel

import "github.com/graft-lora/graft/internal/cpu"

// A tile of 6 by 16 fills 24 of the 32 registers with sums: more independent chains
// than four ports with a latency of four take, and the rest hold a row of b and two
// steps of a.

//go:noescape
func tile6x16Packed(t *tile)

//go:noescape
func tile6x16(t *tile)

//go:noescape
func tile4x16(t *tile)

//go:noescape
func tile2x16(t *tile)

//go:noescape
func tile1x16(t *tile)

//go:noescape
func copy16NEON(dst, src []float32, stride, k int)

//go:noescape
func copy6NEON(dst, src []float32, stride, k int)

//go:noescape
func turn6NEON(dst, src []float32, stride, quads int)

//go:noescape
func turn8x16NEON(dst, src []float32, stride, quads int)

//go:noescape
func dots16NEON(y, x, rows []float32, stride, quads int, load bool)

//go:noescape
func peakNEON(n int)

// pause tells the processor that this is a loop that waits.
//
//go:noescape
func pause()

var neonTiles = tiles{
	width: 16, height: 6, group: 8, run: runNEON,
	turn: turn8x16NEON, copy: copy16NEON, turnLeft: turn6NEON, copyLeft: copy6NEON, dots: dots16NEON,
}

func currentTiles() *tiles {
	if cpu.Current() == cpu.NEON {
		return &neonTiles
	}
	return &genericTiles
}

func runNEON(t *tile, h, _ int) {
	six := tile6x16
	if t.ai == 1 && t.ak == 6 {
		six = tile6x16Packed
	}
	for ; h >= 6; h -= 6 {
		six(t)
		t.drop(6)
	}
	if h >= 4 {
		tile4x16(t)
		t.drop(4)
		h -= 4
	}
	if h >= 2 {
		tile2x16(t)
		t.drop(2)
		h -= 2
	}
	if h > 0 {
		tile1x16(t)
	}
}

// peakLoop runs a tier's multiply-adds for about a millisecond, or a part of that, and
// gives the number of operations.
func peakLoop(tier cpu.Tier, pieces int) int {
	if tier == cpu.NEON {
		n := peakSteps / pieces
		peakNEON(n)
		return n * 24 * 4 * 2
	}
	return peakGeneric(pieces)
}
