package quant

import (
	"encoding/binary"
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// The types without blocks. Those of 16 bits are conversions of package kernel.

func decodeF32(dst []float32, src []byte) {
	dst = dst[:len(src)/4]
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func encodeF32(dst []byte, row, _ []float32) {
	for i, v := range row {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func decodeF16(dst []float32, src []byte) { kernel.F16ToF32(dst[:len(src)/2], src) }

func encodeF16(dst []byte, row, _ []float32) { kernel.F32ToF16(dst[:2*len(row)], row) }

func decodeBF16(dst []float32, src []byte) { kernel.BF16ToF32(dst[:len(src)/2], src) }

func encodeBF16(dst []byte, row, _ []float32) { kernel.F32ToBF16(dst[:2*len(row)], row) }

// overflowedBF16 says that a value was rounded to infinity.
func overflowedBF16(block []byte) bool {
	return binary.LittleEndian.Uint16(block)&0x7f80 == 0x7f80
}
