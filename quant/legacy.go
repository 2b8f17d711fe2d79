package quant

import "encoding/binary"

// The legacy types: blocks of 32 under one half (and, for the _1 types, a minimum).
// Low nibbles are elements 0 to 15, high nibbles 16 to 31; the fifth bits of the
// Q5 types are one little-endian word, bit i for element i.

const (
	legacyBlock = 32

	q4_0Bytes = 18 // d, nibbles
	q4_1Bytes = 20 // d, m, nibbles
	q5_0Bytes = 22 // d, high bits, nibbles
	q5_1Bytes = 24 // d, m, high bits, nibbles
	q8_0Bytes = 34 // d, signed bytes
)

func decodeQ4_0(dst []float32, src []byte) {
	for ; len(src) >= q4_0Bytes; src, dst = src[q4_0Bytes:], dst[legacyBlock:] {
		d := half(src)
		qs, y := src[2:q4_0Bytes], dst[:legacyBlock]
		for j, q := range qs {
			y[j] = float32(int(q&15)-8) * d
			y[j+16] = float32(int(q>>4)-8) * d
		}
	}
}

func decodeQ4_1(dst []float32, src []byte) {
	for ; len(src) >= q4_1Bytes; src, dst = src[q4_1Bytes:], dst[legacyBlock:] {
		d, m := half(src), half(src[2:])
		qs, y := src[4:q4_1Bytes], dst[:legacyBlock]
		for j, q := range qs {
			y[j] = float32(float32(q&15)*d) + m
			y[j+16] = float32(float32(q>>4)*d) + m
		}
	}
}

func decodeQ5_0(dst []float32, src []byte) {
	for ; len(src) >= q5_0Bytes; src, dst = src[q5_0Bytes:], dst[legacyBlock:] {
		d, qh := half(src), binary.LittleEndian.Uint32(src[2:])
		qs, y := src[6:q5_0Bytes], dst[:legacyBlock]
		for j, q := range qs {
			y[j] = float32(int(uint32(q&15)|qh>>j<<4&16)-16) * d
			y[j+16] = float32(int(uint32(q>>4)|qh>>(j+12)&16)-16) * d
		}
	}
}

func decodeQ5_1(dst []float32, src []byte) {
	for ; len(src) >= q5_1Bytes; src, dst = src[q5_1Bytes:], dst[legacyBlock:] {
		d, m, qh := half(src), half(src[2:]), binary.LittleEndian.Uint32(src[4:])
		qs, y := src[8:q5_1Bytes], dst[:legacyBlock]
		for j, q := range qs {
			y[j] = float32(float32(uint32(q&15)|qh>>j<<4&16)*d) + m
			y[j+16] = float32(float32(uint32(q>>4)|qh>>(j+12)&16)*d) + m
		}
	}
}

func decodeQ8_0(dst []float32, src []byte) {
	for ; len(src) >= q8_0Bytes; src, dst = src[q8_0Bytes:], dst[legacyBlock:] {
		d := half(src)
		qs, y := src[2:q8_0Bytes], dst[:legacyBlock]
		for j, q := range qs {
			y[j] = float32(int8(q)) * d
		}
	}
}
