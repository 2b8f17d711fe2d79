package quant

import "encoding/binary"

// IQ4_NL and IQ4_XS: nibbles that index 16 levels, finer near zero. IQ4_NL is a
// legacy block with them; IQ4_XS a super-block of eight such blocks under 6-bit
// scales.

const (
	iq4NLBytes = 18  // d, nibbles
	iq4XSBytes = 136 // d, high scale bits, low scale nibbles, nibbles
)

func decodeIQ4NL(dst []float32, src []byte) {
	for ; len(src) >= iq4NLBytes; src, dst = src[iq4NLBytes:], dst[legacyBlock:] {
		decodeIQ4(dst[:legacyBlock], src[2:iq4NLBytes], half(src))
	}
}

func decodeIQ4XS(dst []float32, src []byte) {
	for ; len(src) >= iq4XSBytes; src, dst = src[iq4XSBytes:], dst[superBlock:] {
		d, high := half(src), binary.LittleEndian.Uint16(src[2:])
		for ib := range 8 {
			ls := int(src[4+ib/2]>>(ib&1*4)&15) | int(high>>(2*ib)&3)<<4
			decodeIQ4(dst[32*ib:][:32], src[8+16*ib:][:16], d*float32(ls-32))
		}
	}
}

func decodeIQ4(y []float32, qs []byte, d float32) {
	for j, q := range qs {
		y[j] = d * iq4Levels[q&15]
		y[j+16] = d * iq4Levels[q>>4]
	}
}

// iq4Index gives the code of the level nearest to v; of two equally near, the lower.
func iq4Index(v float32) uint8 {
	if v <= iq4Levels[0] {
		return 0
	}
	if v >= iq4Levels[15] {
		return 15
	}
	lo, hi := 0, 15
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; v < iq4Levels[mid] {
			hi = mid
		} else {
			lo = mid
		}
	}
	if v := float32(v); v-iq4Levels[hi-1] < iq4Levels[hi]-v {
		return uint8(hi - 1)
	}
	return uint8(hi)
}

// searchIQ4 finds the scale of 32 values: from the largest magnitude on the lowest
// level, then seven integers to either side of that level.
func searchIQ4(x, weights []float32) float32 {
	top, amax := extreme(x)
	if amax < groupMaxEps {
		return 0
	}
	var d float32
	sumqx, sumq2 := fitIQ4(x, weights, 1/(-top/iq4Levels[0]))
	if sumq2 > 0 {
		d = sumqx / sumq2
	}
	best := d * sumqx
	for try := -7; try <= 7; try++ {
		sumqx, sumq2 = fitIQ4(x, weights, (float32(try)+iq4Levels[0])/top)
		if sumq2 > 0 && sumqx*sumqx > best*sumq2 {
			d = sumqx / sumq2
			best = d * sumqx
		}
	}
	return d
}

func fitIQ4(x, weights []float32, id float32) (sumqx, sumq2 float32) {
	weights = weights[:len(x)]
	for j, v := range x {
		q, w := iq4Levels[iq4Index(id*v)], weights[j]
		sumqx += float32(w * q * v)
		sumq2 += float32(w * q * q)
	}
	return sumqx, sumq2
}

// encodeIQ4 packs 32 values under the scale d.
func encodeIQ4(dst []byte, x []float32, d float32) {
	id := reciprocal(d)
	for j := range 16 {
		dst[j] = iq4Index(id*x[j]) | iq4Index(id*x[j+16])<<4
	}
}

// iq4Weights are the weights of x: squares without importance.
func iq4Weights(w, x, columns []float32, sigma2 float32) {
	if columns != nil {
		importance(w, x, columns, sigma2)
		return
	}
	for j, v := range x {
		w[j] = v * v
	}
}

func encodeIQ4NL(dst []byte, row, columns []float32) {
	var w [legacyBlock]float32
	for ; len(row) > 0; row, dst = row[legacyBlock:], dst[iq4NLBytes:] {
		x := row[:legacyBlock]
		iq4Weights(w[:], x, columns, sumSquares(x)*(2.0/legacyBlock))
		if columns != nil {
			columns = columns[legacyBlock:]
		}
		d := searchIQ4(x, w[:])
		putHalf(dst, d)
		encodeIQ4(dst[2:iq4NLBytes], x, d)
	}
}

func encodeIQ4XS(dst []byte, row, columns []float32) {
	var w [32]float32
	var scales [8]float32
	for ; len(row) > 0; row, dst = row[superBlock:], dst[iq4XSBytes:] {
		sigma2 := sumSquares(row[:superBlock]) * (2.0 / superBlock)
		for ib := range scales {
			x := row[32*ib:][:32]
			var c []float32
			if columns != nil {
				c = columns[32*ib:]
			}
			iq4Weights(w[:], x, c, sigma2)
			scales[ib] = searchIQ4(x, w[:])
		}
		if columns != nil {
			columns = columns[superBlock:]
		}
		putScalesIQ4XS(dst, scales[:])
		for ib, s := range scales {
			encodeIQ4(dst[8+16*ib:], row[32*ib:][:32], s)
		}
	}
}

// putScalesIQ4XS writes the head of a block, and leaves in scales what they are as stored.
func putScalesIQ4XS(dst []byte, scales []float32) {
	top, _ := extreme(scales)
	d := -top / 32
	id := reciprocal(d)
	putHalf(dst, d)
	clear(dst[2:8])
	var high uint16
	for ib, s := range scales {
		l := clampInt(nearestInt(id*s), -32, 31)
		scales[ib] = d * float32(l)
		dst[4+ib/2] |= uint8(l+32) & 15 << (ib & 1 * 4)
		high |= uint16(l+32) >> 4 << (2 * ib)
	}
	binary.LittleEndian.PutUint16(dst[2:], high)
}
