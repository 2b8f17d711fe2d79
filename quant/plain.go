package quant

import (
	"encoding/binary"
	"math"
)

func decodeF32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func encodeF32(dst []byte, row, _ []float32) {
	for i, v := range row {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func decodeF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = half(src[2*i:])
	}
}

func encodeF16(dst []byte, row, _ []float32) {
	for i, v := range row {
		putHalf(dst[2*i:], v)
	}
}

func decodeBF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = bfloatToFloat(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func encodeBF16(dst []byte, row, _ []float32) {
	for i, v := range row {
		binary.LittleEndian.PutUint16(dst[2*i:], floatToBfloat(v))
	}
}
