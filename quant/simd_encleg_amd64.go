//go:build amd64 && !noasm

package quant

import (
	"encoding/binary"

	"github.com/graft-lora/graft/format"
)

// The legacy types with importance.

// rowSigmas calls f for each batch, with sigma2 that of the row of each block.
func (e *encWork) rowSigmas(t format.Type, dst []byte, src []float32, cols int, weights []float32, f func(dst []byte, x []float32)) {
	at, row, sigma2 := 0, -1, float32(0)
	e.batches(t, dst, src, cols, weights, func(dst []byte, x []float32) {
		for b := range len(x) / legacyBlock {
			if at/cols != row {
				row = at / cols
				sigma2 = sumSquares(src[row*cols:][:cols]) / float32(cols)
			}
			e.sigma2[b] = sigma2
			at += legacyBlock
		}
		f(dst, x)
	})
}

// symmetric encodes Q4_0 and Q5_0: codes from -nmax to nmax-1.
func (e *encWork) symmetric(t format.Type, dst []byte, src []float32, cols int, weights []float32, tries []float32, put func(y, codes []byte)) {
	low, high, size := tries[0], -tries[0]-1, t.BlockBytes()
	e.rowSigmas(t, dst, src, cols, weights, func(dst []byte, x []float32) {
		e.groups(x, legacyBlock, true, func() {
			e.weigh(e.f.weighImportance, legacyBlock)
			e.search(e.f.searchScale, legacyBlock, tries, low, high)
		})
		clear(e.ranges[:])
		blocks := len(x) / legacyBlock
		e.f.roundCodes(&e.bytes[0], &x[0], &e.iscales[0], &e.ranges[0], blocks, legacyBlock, low, high)
		for b := range blocks {
			y, codes := dst[b*size:][:size], e.bytes[b*legacyBlock:][:legacyBlock]
			if e.iscales[b] == 0 {
				clear(codes)
			}
			putHalf(y, e.scales[b])
			put(y[2:], codes)
		}
	})
}

// ranged encodes Q4_1 and Q5_1: codes from 0 on.
func (e *encWork) ranged(t format.Type, dst []byte, src []float32, cols int, weights []float32, tries []float32, put func(y, codes []byte)) {
	size := t.BlockBytes()
	e.rowSigmas(t, dst, src, cols, weights, func(dst []byte, x []float32) {
		e.groups(x, legacyBlock, true, func() {
			e.weigh(e.f.weighImportance, legacyBlock)
			e.searchMin(legacyBlock, tries, 0)
		})
		blocks := len(x) / legacyBlock
		e.f.roundCodes(&e.bytes[0], &x[0], &e.iscales[0], &e.ranges[0], blocks, legacyBlock, 0, tries[0])
		for b := range blocks {
			y := dst[b*size:][:size]
			putHalf(y, e.scales[b])
			putHalf(y[2:], e.mins[b])
			put(y[4:], e.bytes[b*legacyBlock:][:legacyBlock])
		}
	})
}

// fiveBits writes 32 codes of five bits.
func fiveBits(y, codes []byte) {
	binary.LittleEndian.PutUint32(y, fifthBits(codes))
	nibbles(y[4:], codes)
}

var (
	triesQ4_0 = scaleTries(8)
	triesQ5_0 = scaleTries(16)
)

func vectorQ4_0(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
	e.symmetric(format.Q4_0, dst, src, cols, weights, triesQ4_0, nibbles)
}

func vectorQ5_0(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
	e.symmetric(format.Q5_0, dst, src, cols, weights, triesQ5_0, fiveBits)
}

func vectorQ4_1(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
	e.ranged(format.Q4_1, dst, src, cols, weights, triesW4, nibbles)
}

func vectorQ5_1(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
	e.ranged(format.Q5_1, dst, src, cols, weights, triesW5, fiveBits)
}
