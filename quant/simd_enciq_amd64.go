//go:build amd64 && !noasm

package quant

import "github.com/graft-lora/graft/format"

// iq4Tries are the levels that searchIQ4 tries; the assembly makes the first itself.
var iq4Tries = func() []float32 {
	t := []float32{0}
	for try := -7; try <= 7; try++ {
		t = append(t, float32(try)+iq4Levels[0])
	}
	return t
}()

// searchIQ4 finds the scales of the groups of x.
func (e *encWork) searchIQ4(x []float32, weighted bool) {
	e.groups(x, 32, weighted, func() {
		if weighted {
			e.weigh(e.f.weighImportance, 32)
		} else {
			e.weigh(e.f.weighSquare, 32)
		}
		e.search(e.f.searchIQ4, 32, iq4Tries, 0, 0)
	})
}

// finishIQ4 gives all groups of x the codes of the scales that were stored.
func (e *encWork) finishIQ4(x []float32) {
	groups := len(x) / 32
	for g, d := range e.scales[:groups] {
		e.scales[g] = reciprocal(d)
	}
	e.f.codesIQ4(&e.bytes[0], &x[0], &e.scales[0], &e.mins[0], groups, 32, 0, 0)
}

func vectorIQ4NL(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
	e.batches(format.IQ4_NL, dst, src, cols, weights, func(dst []byte, x []float32) {
		if weights != nil {
			e.sigmas(x, legacyBlock, 1, legacyBlock/2)
		}
		e.searchIQ4(x, weights != nil)
		for b := range len(x) / legacyBlock {
			putHalf(dst[b*iq4NLBytes:], e.scales[b])
		}
		e.finishIQ4(x)
		for b := range len(x) / legacyBlock {
			nibbles(dst[b*iq4NLBytes+2:], e.bytes[b*legacyBlock:])
		}
	})
}

func vectorIQ4XS(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
	e.batches(format.IQ4_XS, dst, src, cols, weights, func(dst []byte, x []float32) {
		if weights != nil {
			e.sigmas(x, superBlock, 1, superBlock/2)
		}
		e.searchIQ4(x, weights != nil)
		for b := range len(x) / superBlock {
			putScalesIQ4XS(dst[b*iq4XSBytes:], e.scales[8*b:][:8])
		}
		e.finishIQ4(x)
		for b := range len(x) / superBlock {
			for j := range 8 {
				nibbles(dst[b*iq4XSBytes+8+16*j:], e.bytes[b*superBlock+32*j:])
			}
		}
	})
}
