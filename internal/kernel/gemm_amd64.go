//go:build !noasm

package kernel

import "github.com/graft-lora/graft/internal/cpu"

// Tiles of 12 by 32 fill 24 of the 32 AVX-512 registers with sums, tiles of 6 by 16
// fill 12 of the 16 of AVX2: enough independent chains to hide the latency of a
// fused multiply-add on two ports, and fewer loads than multiply-adds.

//go:noescape
func tile12x32(t *tile)

//go:noescape
func tile8x32(t *tile)

//go:noescape
func tile4x32(t *tile)

//go:noescape
func tile2x32(t *tile)

//go:noescape
func tile1x32(t *tile)

//go:noescape
func tile12x16(t *tile)

//go:noescape
func tile4x16(t *tile)

//go:noescape
func tile1x16(t *tile)

//go:noescape
func ytile6x16(t *tile)

//go:noescape
func ytile2x16(t *tile)

//go:noescape
func ytile1x16(t *tile)

//go:noescape
func copy32(dst, src []float32, stride, k int)

//go:noescape
func copy16(dst, src []float32, stride, k int)

//go:noescape
func copy12(dst, src []float32, stride, k int)

//go:noescape
func copy6(dst, src []float32, stride, k int)

//go:noescape
func turn12(dst, src []float32, stride, quads int)

//go:noescape
func turn6(dst, src []float32, stride, quads int)

//go:noescape
func turn16x32(dst, src []float32, stride, quads int)

//go:noescape
func turn8x16(dst, src []float32, stride, quads int)

//go:noescape
func dots32(y, x, rows []float32, stride, quads int, load bool)

//go:noescape
func dots16(y, x, rows []float32, stride, quads int, load bool)

var (
	avx512Tiles = tiles{
		width: 32, narrow: 16, height: 12, group: 16, run: runAVX512,
		turn: turn16x32, copy: copy32, turnLeft: turn12, copyLeft: copy12, dots: dots32,
	}
	avx2Tiles = tiles{
		width: 16, height: 6, group: 8, run: runAVX2,
		turn: turn8x16, copy: copy16, turnLeft: turn6, copyLeft: copy6, dots: dots16,
	}
)

func currentTiles() *tiles {
	switch cpu.Current() {
	case cpu.AVX512:
		return &avx512Tiles
	case cpu.AVX2:
		return &avx2Tiles
	}
	return &genericTiles
}

func runAVX512(t *tile, h, n int) {
	if n <= 16 {
		for ; h >= 12; h -= 12 {
			tile12x16(t)
			t.drop(12)
		}
		for ; h >= 4; h -= 4 {
			tile4x16(t)
			t.drop(4)
		}
		for ; h > 0; h-- {
			tile1x16(t)
			t.drop(1)
		}
		return
	}
	for ; h >= 12; h -= 12 {
		tile12x32(t)
		t.drop(12)
	}
	if h >= 8 {
		tile8x32(t)
		t.drop(8)
		h -= 8
	}
	if h >= 4 {
		tile4x32(t)
		t.drop(4)
		h -= 4
	}
	if h >= 2 {
		tile2x32(t)
		t.drop(2)
		h -= 2
	}
	if h > 0 {
		tile1x32(t)
	}
}

func runAVX2(t *tile, h, _ int) {
	for ; h >= 6; h -= 6 {
		ytile6x16(t)
		t.drop(6)
	}
	for ; h >= 2; h -= 2 {
		ytile2x16(t)
		t.drop(2)
	}
	if h > 0 {
		ytile1x16(t)
	}
}
