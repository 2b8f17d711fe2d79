//go:build amd64 && !noasm

package quant

import (
	"unsafe"

	"github.com/graft-lora/graft/internal/cpu"
)

// latticeVector is what the assembly needs to know of a lattice, in the order of
// simd_encsnap_amd64.h.
type latticeVector struct {
	index              *int32
	levels             *uint16 // for each of near, the levels of that point, packed; more follow that are read and not looked at
	near               *uint16
	dims, bits         int
	_                  [3]int
	shifts, tops, mask [8]uint32
	values             [16]float32
}

func (v *latticeVector) fill(l *lattice, packed []int) {
	levels := make([]uint16, len(l.near)+encLanes)
	for i, n := range l.near {
		if int(n) < len(packed) { // else it is a count
			levels[i] = uint16(packed[n])
		}
	}
	*v = latticeVector{index: &l.index[0], levels: &levels[0], near: &l.near[0], dims: l.dims, bits: l.bits}
	for i := range v.shifts {
		v.shifts[i], v.tops[i], v.mask[i] = uint32(l.bits*i), uint32(l.top), 1<<l.bits-1
	}
	for i := range v.values {
		v.values[i] = float32(2*(i&(1<<l.bits-1)) + 1)
	}
}

// snap is [lattice.snap] in assembly, if the tier has any.
func (v *latticeVector) snap(levels []uint8, x, weights []float32, id, scale float32) (on, done bool) {
	levels, x, weights = levels[:v.dims], x[:v.dims], weights[:v.dims]
	switch cpu.Current() {
	case cpu.AVX512:
		return snapAVX512(v, &levels[0], &x[0], &weights[0], id, scale) != 0, true
	case cpu.AVX2:
		return snapAVX2(v, &levels[0], &x[0], &weights[0], id, scale) != 0, true
	}
	return false, false
}

// nearest is the point nearest to x among the candidates for u, or -1 if the tier has no
// assembly. values are those of the three levels.
func (v *latticeVector) nearest(l *lattice, u int, x, weights []float32, scale float32, values *[3]float32) int {
	tier := cpu.Current()
	if tier == cpu.Generic {
		return -1
	}
	var table [16]float32
	for i := range table {
		table[i] = values[min(i&3, 2)]
	}
	at := -l.index[u]
	candidates := l.candidates(u)
	levels := (*uint16)(unsafe.Add(unsafe.Pointer(v.levels), 2*at))
	if tier == cpu.AVX512 {
		return int(candidates[nearestAVX512(v, levels, len(candidates), &x[0], &weights[0], &table[0], scale)])
	}
	return int(candidates[nearestAVX2(v, levels, len(candidates), &x[0], &weights[0], &table[0], scale)])
}
