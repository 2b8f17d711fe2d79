//go:build !noasm

package kernel

import x86 "golang.org/x/sys/cpu"

//go:noescape
func btile12x32(t *tile)

//go:noescape
func btile8x32(t *tile)

//go:noescape
func btile4x32(t *tile)

//go:noescape
func btile2x32(t *tile)

//go:noescape
func btile1x32(t *tile)

// pairs32 makes pairs of the elements of blocks of 32.
//
//go:noescape
func pairs32(dst, src *float32, blocks int)

// zip32 makes pairs of each two of 2·pairs rows of n elements, in rows of width
// elements; see pairColumns.
//
//go:noescape
func zip32(dst, src *float32, width, stride, pairs, n int)

//go:noescape
func peakBF16(n int)

var hasBF16 = x86.X86.HasAVX512BF16

var tilesBF16 = tiles{
	width: 32, height: 12, group: 16, run: runBF16,
	turn: turn16x32, copy: copy32, turnLeft: turn12, copyLeft: copy12,
}

func bf16Tiles() *tiles {
	if !BF16.Available() {
		panic("kernel: a product in bf16 on a processor that has none")
	}
	return &tilesBF16
}

func runBF16(t *tile, h, _ int) {
	for ; h >= 12; h -= 12 {
		btile12x32(t)
		t.drop(12)
	}
	if h >= 8 {
		btile8x32(t)
		t.drop(8)
		h -= 8
	}
	if h >= 4 {
		btile4x32(t)
		t.drop(4)
		h -= 4
	}
	if h >= 2 {
		btile2x32(t)
		t.drop(2)
		h -= 2
	}
	if h > 0 {
		btile1x32(t)
	}
}
