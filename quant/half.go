package quant

import (
	"encoding/binary"

	"github.com/graft-lora/graft/internal/kernel"
)

// half reads a little-endian half.
func half(b []byte) float32 { return kernel.F16Value(binary.LittleEndian.Uint16(b)) }

// putHalf writes f as a little-endian half and returns it.
func putHalf(b []byte, f float32) uint16 {
	h := kernel.F16Bits(f)
	binary.LittleEndian.PutUint16(b, h)
	return h
}
