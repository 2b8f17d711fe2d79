//go:build !amd64 || noasm

package quant

import "github.com/graft-lora/graft/format"

func (m *nibbleRows) decodeBlocks(_ []float32, _ int64) int64 { return 0 }

func int8Vector(_ []float32, _ []byte, _, _ float32) int { return 0 }

func encodeVector(_ format.Type, _ []byte, _ []float32, _ int, _ []float32) bool { return false }

func finite(x []float32) bool { return firstNonFinite(x) < 0 }

func overflows(_ format.Type, _ []float32) (over, known bool) { return false, false }

type latticeVector struct{}

func (*latticeVector) fill(*lattice, []int) {}

type latticeWork struct{}

type iq1Work struct{}

func (*iq1Group) cuts(_ []float32) (i1, i2 int, scale float32, minus, done bool) {
	return 0, 0, 0, false, false
}

func (*iq1Group) ways(_ []float32) (i1, i2 int, scale float32, way int, done bool) {
	return 0, 0, 0, 0, false
}

func (*latticeVector) search(_ *lattice, _ *latticeGroup, _ int, _, _ float32, _ latticeTries) (float32, bool) {
	return 0, false
}

func (*latticeWork) nearest(_ *lattice, _ int, _, _ []float32, _ float32, _ int) (int, bool) {
	return 0, false
}
