//go:build !amd64 || noasm

package quant

import "github.com/graft-lora/graft/format"

func vectorized(_ format.Type, decode func(dst []float32, src []byte)) func(dst []float32, src []byte) {
	return decode
}

func (m *nibbleRows) decodeBlocks(_ []float32, _ int64) int64 { return 0 }

func int8Vector(_ []float32, _ []byte, _, _ float32) int { return 0 }

func encodeVector(_ format.Type, _ []byte, _ []float32, _ int, _ []float32) bool { return false }

type latticeVector struct{}

func (*latticeVector) fill(*lattice, []int) {}

func (*latticeVector) snap(_ []uint8, _, _ []float32, _, _ float32) (on, done bool) {
	return false, false
}

func (*latticeVector) nearest(_ *lattice, _ int, _, _ []float32, _ float32, _ *[3]float32) int {
	return -1
}
