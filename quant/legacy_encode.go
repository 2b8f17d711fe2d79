package quant

import "encoding/binary"

// reciprocal is 1/d, and 0 for a zero d.
func reciprocal(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// nibbles packs 32 codes: low nibbles the first half, high nibbles the second.
func nibbles(dst, codes []uint8) {
	const low = 0x0f0f0f0f0f0f0f0f
	putEight(dst, eight(codes)&low|eight(codes[16:])&low<<4)
	putEight(dst[8:], eight(codes[8:])&low|eight(codes[24:])&low<<4)
}

// fifthBits gathers bit 4 of 32 codes. The product moves the bits of eight bytes side by
// side into the uppermost byte.
func fifthBits(codes []uint8) (bits uint32) {
	for j := 0; j < 32; j += 8 {
		bits |= uint32(eight(codes[j:])>>4&0x0101010101010101*0x0102040810204080>>56) << j
	}
	return bits
}

// symmetricCodes is the encoder of the _0 types without importance: the value of
// largest magnitude becomes the lowest code, -levels/2.
func symmetricCodes(codes []uint8, x []float32, levels int) (d float32) {
	top, _ := extreme(x)
	d = top / float32(-levels/2)
	id := reciprocal(d)
	for j, v := range x {
		codes[j] = uint8(min(int8(levels-1), int8(truncInt(float32(v*id)+(float32(levels/2)+0.5)))))
	}
	return d
}

// rangeCodes is the encoder of the _1 types without importance: codes from the
// smallest value to the largest.
func rangeCodes(codes []uint8, x []float32, levels int) (d, lo float32) {
	lo, hi := x[0], x[0]
	for _, v := range x {
		// Not min and max: of two zeros the first is kept, whatever its sign.
		if v < lo {
			lo = v
		}
		if v > hi {
			hi = v
		}
	}
	d = (hi - lo) / float32(levels-1)
	id := reciprocal(d)
	for j, v := range x {
		codes[j] = uint8(min(int8(levels-1), int8(truncInt(float32((v-lo)*id)+0.5))))
	}
	return d, lo
}

// weighted calls block for each 32 values of a row with their weights.
func weighted(row, columns []float32, block func(b int, x, weights []float32)) {
	var w [legacyBlock]float32
	sigma2 := sumSquares(row) / float32(len(row))
	for b := range len(row) / legacyBlock {
		x := row[b*legacyBlock:][:legacyBlock]
		importance(w[:], x, columns[b*legacyBlock:], sigma2)
		block(b, x, w[:])
	}
}

func encodeQ4_0(dst []byte, row, columns []float32) {
	var codes [legacyBlock]uint8
	put := func(b int, d float32) {
		y := dst[b*q4_0Bytes:][:q4_0Bytes]
		putHalf(y, d)
		nibbles(y[2:], codes[:])
	}
	if columns != nil {
		weighted(row, columns, func(b int, x, w []float32) { put(b, searchScale(codes[:], x, w, 8)) })
		return
	}
	for b := range len(row) / legacyBlock {
		put(b, symmetricCodes(codes[:], row[b*legacyBlock:][:legacyBlock], 16))
	}
}

func encodeQ4_1(dst []byte, row, columns []float32) {
	var codes [legacyBlock]uint8
	put := func(b int, d, m float32) {
		y := dst[b*q4_1Bytes:][:q4_1Bytes]
		putHalf(y, d)
		putHalf(y[2:], m)
		nibbles(y[4:], codes[:])
	}
	if columns != nil {
		weighted(row, columns, func(b int, x, w []float32) {
			d, m := searchScaleMin(codes[:], x, w, 15, -0.9, 0.05, 36, false)
			put(b, d, -m)
		})
		return
	}
	for b := range len(row) / legacyBlock {
		d, m := rangeCodes(codes[:], row[b*legacyBlock:][:legacyBlock], 16)
		put(b, d, m)
	}
}

func encodeQ5_0(dst []byte, row, columns []float32) {
	var codes [legacyBlock]uint8
	put := func(b int, d float32) {
		y := dst[b*q5_0Bytes:][:q5_0Bytes]
		putHalf(y, d)
		binary.LittleEndian.PutUint32(y[2:], fifthBits(codes[:]))
		nibbles(y[6:], codes[:])
	}
	if columns != nil {
		weighted(row, columns, func(b int, x, w []float32) { put(b, searchScale(codes[:], x, w, 16)) })
		return
	}
	for b := range len(row) / legacyBlock {
		put(b, symmetricCodes(codes[:], row[b*legacyBlock:][:legacyBlock], 32))
	}
}

func encodeQ5_1(dst []byte, row, columns []float32) {
	var codes [legacyBlock]uint8
	put := func(b int, d, m float32) {
		y := dst[b*q5_1Bytes:][:q5_1Bytes]
		putHalf(y, d)
		putHalf(y[2:], m)
		binary.LittleEndian.PutUint32(y[4:], fifthBits(codes[:]))
		nibbles(y[8:], codes[:])
	}
	if columns != nil {
		weighted(row, columns, func(b int, x, w []float32) {
			d, m := searchScaleMin(codes[:], x, w, 31, -0.9, 0.05, 36, false)
			put(b, d, -m)
		})
		return
	}
	for b := range len(row) / legacyBlock {
		d, m := rangeCodes(codes[:], row[b*legacyBlock:][:legacyBlock], 32)
		put(b, d, m)
	}
}

// encodeQ8_0 ignores importance.
func encodeQ8_0(dst []byte, row, _ []float32) {
	for b := range len(row) / legacyBlock {
		x, y := row[b*legacyBlock:][:legacyBlock], dst[b*q8_0Bytes:][:q8_0Bytes]
		_, amax := extreme(x)
		d := amax / 127
		id := reciprocal(d)
		putHalf(y, d)
		for j, v := range x {
			y[2+j] = uint8(roundInt(float32(v * id)))
		}
	}
}
