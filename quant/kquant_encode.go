package quant

import (
	"encoding/binary"

	"github.com/graft-lora/graft/internal/kernel"
)

// kCodes holds the codes of a super-block while it is encoded.
type kCodes [superBlock]uint8

// packPairs writes 2-bit codes as Q2_K and Q3_K keep them: byte l of each half
// holds elements l, l+32, l+64 and l+96 of that half. Of larger codes the upper bits are dropped.
func (c *kCodes) packPairs(dst []byte) {
	const low = 0x0303030303030303
	for l := 0; l < 64; l += 8 {
		q := c[l&32*4+l&31:]
		putEight(dst[l:], eight(q)&low|eight(q[32:])&low<<2|eight(q[64:])&low<<4|eight(q[96:])&low<<6)
	}
}

// packNibbles writes the low nibbles of the codes: of each 64, byte l holds elements l and l+32.
func (c *kCodes) packNibbles(dst []byte) {
	const low = 0x0f0f0f0f0f0f0f0f
	for l := 0; l < 128; l += 8 {
		q := c[l&^31*2+l&31:]
		putEight(dst[l:], eight(q)&low|eight(q[32:])&low<<4)
	}
}

// packBit writes bit number bit of the codes: bit k of byte l is that of element 32*k + l.
func (c *kCodes) packBit(dst []byte, bit int) {
	const low = 0x0101010101010101
	for l := 0; l < 32; l += 8 {
		var v uint64
		for k := range 8 {
			v |= eight(c[32*k+l:]) >> bit & low << k
		}
		putEight(dst[l:], v)
	}
}

// eight reads eight codes at once, each in a byte of its own.
func eight(b []uint8) uint64 { return binary.LittleEndian.Uint64(b) }

func putEight(b []byte, v uint64) { binary.LittleEndian.PutUint64(b, v) }

// requantize gives the sub-block of 16 or 32 codes from base on their final codes
// lo to hi (plus offset) under the scale and minimum that were stored. A zero scale leaves
// the codes of the search.
func (c *kCodes) requantize(x []float32, base int, d, dm float32, lo, hi int) {
	if d == 0 {
		return
	}
	q := c[base:][:len(x)]
	for i, v := range x {
		q[i] = uint8(clampInt(nearestInt((v+float32(dm))/d), lo, hi) - lo)
	}
}

func encodeQ2K(dst []byte, row, columns []float32) {
	var (
		codes                kCodes
		weights              [16]float32
		scales, mins, sums   [16]float32
		scaleCodes, minCodes [16]uint8
	)
	for ; len(row) > 0; row, dst = row[superBlock:], dst[q2KBytes:] {
		var d, dmin float32
		if columns == nil {
			var maxScale, maxMin float32
			for j := range 16 {
				x := row[16*j:][:16]
				for l, v := range x {
					weights[l] = abs32(v)
				}
				scales[j], mins[j] = searchScaleMin(codes[16*j:], x, weights[:], 3, -0.5, 0.1, 15, true)
				maxScale, maxMin = max(maxScale, scales[j]), max(maxMin, mins[j])
			}
			d = absoluteCodes(scaleCodes[:], scales[:], maxScale, 15)
			dmin = absoluteCodes(minCodes[:], mins[:], maxMin, 15)
		} else {
			sigma2 := sumSquares(row[:superBlock]) / superBlock
			for j := range 16 {
				x := row[16*j:][:16]
				importance(weights[:], x, columns[16*j:], sigma2)
				sums[j] = sum(weights[:])
				scales[j], mins[j] = searchScaleMin(codes[16*j:], x, weights[:], 3, -0.9, 0.05, 36, false)
			}
			columns = columns[superBlock:]
			d = searchPositive(scaleCodes[:], scales[:], sums[:], 15)
			dmin = searchPositive(minCodes[:], mins[:], sums[:], 15)
		}
		d, dmin = kernel.F16Value(putHalf(dst[80:], d)), kernel.F16Value(putHalf(dst[82:], dmin))
		for j := range 16 {
			dst[j] = scaleCodes[j] | minCodes[j]<<4
			codes.requantize(row[16*j:][:16], 16*j, d*float32(dst[j]&15), dmin*float32(dst[j]>>4), 0, 3)
		}
		codes.packPairs(dst[16:80])
	}
}

// absoluteCodes rounds values (none negative) to codes whose largest is levels,
// and returns the scale: the whole of top.
func absoluteCodes(codes []uint8, values []float32, top float32, levels int) float32 {
	if !(top > 0) {
		clear(codes)
		return 0
	}
	iscale := float32(levels) / top
	for j, v := range values {
		codes[j] = uint8(nearestInt(iscale * v))
	}
	return top / float32(levels)
}

func sum(x []float32) (s float32) {
	for _, v := range x {
		s += v
	}
	return s
}

func encodeQ3K(dst []byte, row, columns []float32) {
	var (
		codes        kCodes
		weights      [16]float32
		scales, sums [16]float32
		scaleCodes   [16]uint8
		stored       [16]int8
	)
	for ; len(row) > 0; row, dst = row[superBlock:], dst[q3KBytes:] {
		var d float32
		if columns == nil {
			for j := range 16 {
				scales[j] = searchDescent(codes[16*j:], row[16*j:][:16], 4)
			}
			d = scaleCodesQ3K(scaleCodes[:], scales[:])
		} else {
			sigma2 := 2 * sumSquares(row[:superBlock]) / superBlock
			for j := range 16 {
				x := row[16*j:][:16]
				importance(weights[:], x, columns[16*j:], sigma2)
				sums[j] = sum(weights[:])
				scales[j] = searchScale(codes[16*j:], x, weights[:], 4)
			}
			columns = columns[superBlock:]
			d = searchScale(scaleCodes[:], scales[:], sums[:], 32)
		}
		packQ3KScales(dst[96:108], &scaleCodes)
		q3KScales(&stored, dst[96:108])
		d = kernel.F16Value(putHalf(dst[108:], d))
		for j := range 16 {
			codes.requantize(row[16*j:][:16], 16*j, d*float32(stored[j]), 0, -4, 3)
		}
		codes.packBit(dst[:32], 2)
		codes.packPairs(dst[32:96])
	}
}

// scaleCodesQ3K rounds the scales of a super-block without importance to codes, with
// their offset of 32, and returns the scale of the scales.
func scaleCodesQ3K(codes []uint8, scales []float32) float32 {
	clear(codes)
	top, amax := extreme(scales)
	if amax == 0 {
		return 0
	}
	iscale := -32 / top
	for j, s := range scales {
		codes[j] = uint8(clampInt(int(int8(nearestInt(iscale*s))), -32, 31) + 32)
	}
	return 1 / iscale
}

// packQ3KScales is the inverse of q3KScales, on codes with their offset of 32.
func packQ3KScales(dst []byte, codes *[16]uint8) {
	clear(dst[:12])
	for j, c := range codes {
		dst[j&7] |= c & 15 << (j >> 3 * 4)
		dst[8+j&3] |= c >> 4 & 3 << (j >> 2 * 2)
	}
}

// packScalesK4 is the inverse of scaleMinK4.
func packScalesK4(dst []byte, scales, mins *[8]uint8) {
	for j := range 4 {
		dst[j], dst[j+4] = scales[j], mins[j]
	}
	for j := 4; j < 8; j++ {
		dst[j+4] = scales[j]&15 | mins[j]&15<<4
		dst[j-4] |= scales[j] >> 4 << 6
		dst[j] |= mins[j] >> 4 << 6
	}
}

// cappedCodes rounds scales or minimums whose largest is top to codes of six bits, and
// returns their scale.
func cappedCodes(codes *[8]uint8, values []float32, top float32) float32 {
	var inv float32
	if top > 0 {
		inv = 63 / top
	}
	for j, v := range values {
		codes[j] = min(63, uint8(nearestInt(inv*v)))
	}
	return top / 63
}

// encodeK45 finds the codes, scales and minimums of a Q4_K or Q5_K super-block,
// and writes its head.
func encodeK45(codes *kCodes, dst []byte, x, columns []float32, nmax int, rmin, rdelta float32, nstep int) {
	var (
		weights              [32]float32
		scales, mins, sums   [8]float32
		scaleCodes, minCodes [8]uint8
		d, dmin              float32
	)
	if columns == nil {
		var maxScale, maxMin float32
		for j := range 8 {
			xb := x[32*j:][:32]
			mean := sqrt32(sumSquares(xb) / 32)
			for l, v := range xb {
				weights[l] = mean + abs32(v)
			}
			scales[j], mins[j] = searchScaleMin(codes[32*j:], xb, weights[:], nmax, rmin, rdelta, nstep, false)
			maxScale, maxMin = max(maxScale, scales[j]), max(maxMin, mins[j])
		}
		d, dmin = cappedCodes(&scaleCodes, scales[:], maxScale), cappedCodes(&minCodes, mins[:], maxMin)
	} else {
		sigma2 := 2 * sumSquares(x[:superBlock]) / superBlock
		for j := range 8 {
			xb := x[32*j:][:32]
			importance(weights[:], xb, columns[32*j:], sigma2)
			sums[j] = sum(weights[:])
			scales[j], mins[j] = searchScaleMin(codes[32*j:], xb, weights[:], nmax, -0.9, 0.05, 36, false)
		}
		d = searchPositive(scaleCodes[:], scales[:], sums[:], 63)
		dmin = searchPositive(minCodes[:], mins[:], sums[:], 63)
	}
	packScalesK4(dst[4:16], &scaleCodes, &minCodes)
	d, dmin = kernel.F16Value(putHalf(dst, d)), kernel.F16Value(putHalf(dst[2:], dmin))
	for j := range 8 {
		sc, m := scaleMinK4(dst[4:16], j)
		codes.requantize(x[32*j:][:32], 32*j, d*float32(sc), dmin*float32(m), 0, nmax)
	}
}

func encodeQ4K(dst []byte, row, columns []float32) {
	var codes kCodes
	for ; len(row) > 0; row, dst = row[superBlock:], dst[q4KBytes:] {
		encodeK45(&codes, dst, row, columns, 15, -1, 0.1, 20)
		if columns != nil {
			columns = columns[superBlock:]
		}
		codes.packNibbles(dst[16:144])
	}
}

func encodeQ5K(dst []byte, row, columns []float32) {
	var codes kCodes
	for ; len(row) > 0; row, dst = row[superBlock:], dst[q5KBytes:] {
		encodeK45(&codes, dst, row, columns, 31, -0.5, 0.1, 15)
		if columns != nil {
			columns = columns[superBlock:]
		}
		codes.packBit(dst[16:48], 4)
		codes.packNibbles(dst[48:176])
	}
}

func encodeQ6K(dst []byte, row, columns []float32) {
	var codes kCodes
	var scales [16]float32
	for ; len(row) > 0; row, dst = row[superBlock:], dst[q6KBytes:] {
		for j := range 16 {
			var w []float32
			if columns != nil {
				w = columns[16*j:][:16]
			}
			scales[j] = searchScale(codes[16*j:], row[16*j:][:16], w, 32)
		}
		if columns != nil {
			columns = columns[superBlock:]
		}
		top, amax := extreme(scales[:])
		if amax < groupMaxEps {
			clear(dst[:q6KBytes])
			continue
		}
		iscale := -128 / top
		d := kernel.F16Value(putHalf(dst[208:], 1/iscale))
		for j, s := range scales {
			sc := int8(min(127, nearestInt(iscale*s)))
			dst[192+j] = uint8(sc)
			codes.requantize(row[16*j:][:16], 16*j, d*float32(sc), 0, -32, 31)
		}
		packQ6K(dst[:192], codes[:])
	}
}
