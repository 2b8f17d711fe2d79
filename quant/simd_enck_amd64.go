//go:build amd64 && !noasm

package quant

import (
	"github.com/graft-lora/graft/format"

	"github.com/graft-lora/graft/internal/kernel"
)

// What the searches try.
var (
	q2KTries   = minTries(3, -0.5, 0.1, 15)
	q2KTriesW  = minTries(3, -0.9, 0.05, 36)
	q4KTries   = minTries(15, -1, 0.1, 20)
	q5KTries   = minTries(31, -0.5, 0.1, 15)
	triesW4    = minTries(15, -0.9, 0.05, 36)
	triesW5    = minTries(31, -0.9, 0.05, 36)
	q3KTries   = scaleTries(4)
	q6KTries   = scaleTries(32)
	positive15 = positiveTries(15)
	positive63 = positiveTries(63)
)

func vectorQ2K(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
	e.batches(format.Q2_K, dst, src, cols, weights, func(dst []byte, x []float32) {
		blocks := len(x) / superBlock
		if weights == nil {
			e.groups(x, 16, false, func() {
				e.weigh(e.f.weighAbs, 16)
				e.searchMin(16, q2KTries, 1)
			})
		} else {
			e.sigmas(x, superBlock, 1, superBlock)
			e.groups(x, 16, true, func() {
				e.weigh(e.f.weighImportance, 16)
				e.searchMin(16, q2KTriesW, 0)
			})
		}
		e.turnMins()
		if weights != nil {
			e.d = e.positive(e.scaleCodes[:], e.scales[:], e.sums[:], 16, positive15)
			e.dmin = e.positive(e.minCodes[:], e.mins[:], e.sums[:], 16, positive15)
		}
		for b := range blocks {
			y, scales, mins := dst[b*q2KBytes:][:q2KBytes], e.scales[16*b:][:16], e.mins[16*b:][:16]
			if weights == nil {
				e.d[b] = absoluteCodes(e.scaleCodes[16*b:][:16], scales, largestOf(scales), 15)
				e.dmin[b] = absoluteCodes(e.minCodes[16*b:][:16], mins, largestOf(mins), 15)
			}
			d, dmin := kernel.F16Value(putHalf(y[80:], e.d[b])), kernel.F16Value(putHalf(y[82:], e.dmin[b]))
			for j := range 16 {
				y[j] = e.scaleCodes[16*b+j] | e.minCodes[16*b+j]<<4
				scales[j], mins[j] = d*float32(y[j]&15), dmin*float32(y[j]>>4)
			}
		}
		e.finish(x, 16, 0, 3, false)
		for b := range blocks {
			e.codesOf(b).packPairs(dst[b*q2KBytes+16:][:64])
		}
	})
}

// turnMins turns the sign of the minimums that were found.
func (e *encWork) turnMins() {
	for i := range e.mins {
		e.mins[i] = -e.mins[i]
	}
}

func largestOf(x []float32) (top float32) {
	for _, v := range x {
		top = max(top, v)
	}
	return top
}

func vectorQ3K(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
	e.batches(format.Q3_K, dst, src, cols, weights, func(dst []byte, x []float32) {
		blocks := len(x) / superBlock
		if weights == nil {
			g := 0
			e.groups(x, 16, false, func() {
				e.weigh(e.f.weighSquare, 16)
				e.search(e.f.searchDescent, 16, q3KTries[:1], -4, 3)
				e.keepDescent(g)
				g += encLanes
			})
			for b := range blocks {
				e.d[b] = scaleCodesQ3K(e.scaleCodes[16*b:][:16], e.scales[16*b:][:16])
			}
		} else {
			e.sigmas(x, superBlock, 2, superBlock)
			e.groups(x, 16, true, func() {
				e.weigh(e.f.weighImportance, 16)
				e.search(e.f.searchScale, 16, q3KTries, -4, 3)
			})
			clear(e.ranges[:])
			e.scaleOfScales(blocks)
		}
		clear(e.mins[:])
		var stored [16]int8
		for b := range blocks {
			y := dst[b*q3KBytes:][:q3KBytes]
			packQ3KScales(y[96:108], (*[16]uint8)(e.scaleCodes[16*b:]))
			q3KScales(&stored, y[96:108])
			d := kernel.F16Value(putHalf(y[108:], e.d[b]))
			for j, s := range stored {
				e.scales[16*b+j] = d * float32(s)
			}
		}
		e.finish(x, 16, -4, 3, weights == nil)
		for b := range blocks {
			y, codes := dst[b*q3KBytes:], e.codesOf(b)
			codes.packBit(y[:32], 2)
			codes.packPairs(y[32:96])
		}
	})
}

// keepDescent writes the codes of sixteen descents, which no scale gives again.
func (e *encWork) keepDescent(g int) {
	dead := e.row(stateIscale)
	for l := range encLanes {
		codes := e.bytes[16*(g+l):][:16]
		if dead[l] == 0 {
			clear(codes)
			continue
		}
		for i := range codes {
			codes[i] = uint8(int(e.codes[i*encLanes+l]) + 4)
		}
	}
}

// scaleOfScales is searchScale for the scales of all super-blocks, six bits each.
func (e *encWork) scaleOfScales(blocks int) {
	e.turn(&e.x, e.scales[:], 16)
	e.turn(&e.w, e.sums[:], 16)
	e.search(e.f.searchScale, 16, q6KTries, -32, 31)
	e.d = *e.row(stateScale)
	for b := range blocks {
		codes, iscale := e.scaleCodes[16*b:][:16], e.row(stateIscale)[b]
		if iscale == 0 {
			clear(codes)
			continue
		}
		roundCodes(codes, e.scales[16*b:][:16], iscale, 32)
	}
}

func (e *encWork) encodeK45(t format.Type, dst []byte, src []float32, cols int, weights []float32, nmax int, tries []float32) {
	size := t.BlockBytes()
	if weights != nil {
		tries = triesW4
		if nmax == 31 {
			tries = triesW5
		}
	}
	e.batches(t, dst, src, cols, weights, func(dst []byte, x []float32) {
		blocks := len(x) / superBlock
		if weights == nil {
			e.groups(x, 32, false, func() {
				for l := range encLanes {
					e.row(stateSumX)[l] = 1.0 / 32
				}
				e.weigh(e.f.weighMean, 32)
				e.searchMin(32, tries, 0)
			})
		} else {
			e.sigmas(x, superBlock, 2, superBlock)
			e.groups(x, 32, true, func() {
				e.weigh(e.f.weighImportance, 32)
				e.searchMin(32, tries, 0)
			})
		}
		e.turnMins()
		if weights != nil {
			e.d = e.positive(e.scaleCodes[:], e.scales[:], e.sums[:], 8, positive63)
			e.dmin = e.positive(e.minCodes[:], e.mins[:], e.sums[:], 8, positive63)
		}
		for b := range blocks {
			y, scales, mins := dst[b*size:][:size], e.scales[8*b:][:8], e.mins[8*b:][:8]
			scaleCodes, minCodes := (*[8]uint8)(e.scaleCodes[8*b:]), (*[8]uint8)(e.minCodes[8*b:])
			if weights == nil {
				e.d[b] = cappedCodes(scaleCodes, scales, largestOf(scales))
				e.dmin[b] = cappedCodes(minCodes, mins, largestOf(mins))
			}
			packScalesK4(y[4:16], scaleCodes, minCodes)
			d, dmin := kernel.F16Value(putHalf(y, e.d[b])), kernel.F16Value(putHalf(y[2:], e.dmin[b]))
			for j := range 8 {
				sc, m := scaleMinK4(y[4:16], j)
				scales[j], mins[j] = d*float32(sc), dmin*float32(m)
			}
		}
		e.finish(x, 32, 0, nmax, false)
		for b := range blocks {
			y := dst[b*size:][:size]
			if nmax == 31 {
				e.codesOf(b).packBit(y[16:48], 4)
				y = y[32:]
			}
			e.codesOf(b).packNibbles(y[16:])
		}
	})
}

func vectorQ6K(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
	e.batches(format.Q6_K, dst, src, cols, weights, func(dst []byte, x []float32) {
		blocks := len(x) / superBlock
		e.groups(x, 16, weights != nil, func() {
			if weights == nil {
				e.weigh(e.f.weighSquare, 16)
			}
			e.search(e.f.searchScale, 16, q6KTries, -32, 31)
		})
		clear(e.ranges[:])
		clear(e.mins[:])
		var zero [encBatch]bool
		for b := range blocks {
			y, scales := dst[b*q6KBytes:][:q6KBytes], e.scales[16*b:][:16]
			top, amax := extreme(scales)
			if zero[b] = amax < groupMaxEps; zero[b] {
				clear(y)
				clear(scales)
				continue
			}
			iscale := -128 / top
			d := kernel.F16Value(putHalf(y[208:], 1/iscale))
			for j, s := range scales {
				sc := int8(min(127, nearestInt(iscale*s)))
				y[192+j] = uint8(sc)
				scales[j] = d * float32(sc)
			}
		}
		e.finish(x, 16, -32, 31, false)
		for b := range blocks {
			if !zero[b] {
				packQ6K(dst[b*q6KBytes:][:192], e.codesOf(b)[:])
			}
		}
	})
}
