//go:build amd64 && !noasm

package quant

import (
	"encoding/binary"
	"unsafe"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/kernel"
)

// vectorDecoder is the pair of assembly functions of a type: they decode blocks > 0
// whole blocks, bit for bit as the decoder in Go does.
type vectorDecoder struct {
	avx2, avx512 func(dst *float32, src *byte, blocks int)
}

var vectorDecoders = map[format.Type]vectorDecoder{
	format.Q4_0:   {decodeQ4_0_AVX2, decodeQ4_0_AVX512},
	format.Q4_1:   {decodeQ4_1_AVX2, decodeQ4_1_AVX512},
	format.Q5_0:   {decodeQ5_0_AVX2, decodeQ5_0_AVX512},
	format.Q5_1:   {decodeQ5_1_AVX2, decodeQ5_1_AVX512},
	format.Q8_0:   {decodeQ8_0_AVX2, decodeQ8_0_AVX512},
	format.IQ4_NL: {decodeIQ4NLAVX2, decodeIQ4NLAVX512},
	format.MXFP4:  {decodeMXFP4_AVX2, decodeMXFP4_AVX512},
	format.Q2_K:   {decodeQ2KAVX2, decodeQ2KAVX512},
	format.Q3_K:   {decodeQ3KAVX2, decodeQ3KAVX512},
	format.Q4_K:   {decodeQ4KAVX2, decodeQ4KAVX512},
	format.Q5_K:   {decodeQ5KAVX2, decodeQ5KAVX512},
	format.Q6_K:   {decodeQ6KAVX2, decodeQ6KAVX512},
	format.IQ4_XS: {decodeIQ4XSAVX2, decodeIQ4XSAVX512},
}

// vectorized is decode, done by the assembly of the current tier if t has any.
func vectorized(t format.Type, decode func(dst []float32, src []byte)) func(dst []float32, src []byte) {
	if t == format.F32 {
		return copyF32
	}
	v, ok := vectorDecoders[t]
	if !ok {
		return decode
	}
	size, block := t.BlockBytes(), t.BlockSize()
	return func(dst []float32, src []byte) {
		tier, n := cpu.Current(), len(src)/size
		if tier == cpu.Generic || n == 0 {
			decode(dst, src)
			return
		}
		dst = dst[:n*block] // panics if they do not fit, as the decoder in Go does
		if tier == cpu.AVX512 {
			v.avx512(&dst[0], &src[0], n)
		} else {
			v.avx2(&dst[0], &src[0], n)
		}
	}
}

// nibbleBatch is the number of blocks whose values are made at a time.
const nibbleBatch = 32

// decodeBlocks expands the whole blocks that begin with element i, the first of a
// block, and returns how many elements those are: none in the Go tier.
func (m *nibbleRows) decodeBlocks(dst []float32, i int64) int64 {
	tier := cpu.Current()
	if tier == cpu.Generic {
		return 0
	}
	var values [nibbleBatch * 16]float32
	done := int64(0)
	for {
		n := min((int64(len(dst))-done)/m.block, nibbleBatch)
		if n == 0 {
			return done
		}
		for b := range n {
			kernel.Scale(values[16*b:][:16], m.absmax.at((i+done)/m.block+b), m.table[:])
		}
		m.roundAll(values[:16*n])
		size := n * m.block / 2
		out, codes := dst[done:done+2*size], m.codes[(i+done)/2:][:size]
		if tier == cpu.AVX512 {
			lookupAVX512(&out[0], &codes[0], &values[0], int(n), int(m.block/2))
		} else {
			lookupAVX2(&out[0], &codes[0], &values[0], int(n), int(m.block/2))
		}
		done += 2 * size
	}
}

// roundAll is [nibbleRows.rounded] for all of v.
func (m *nibbleRows) roundAll(v []float32) {
	var half [2 * nibbleBatch * 16]byte
	switch h := half[:2*len(v)]; m.round {
	case format.BF16:
		kernel.F32ToBF16(h, v)
		kernel.BF16ToF32(v, h)
	case format.F16:
		kernel.F32ToF16(h, v)
		kernel.F16ToF32(v, h)
	}
}

// int8Vector expands the leading codes, as many as fill vectors, and returns their number.
func int8Vector(dst []float32, src []byte, scale, inv float32) int {
	tier, n := cpu.Current(), len(src)&^15
	switch {
	case tier == cpu.Generic || n == 0:
		return 0
	case tier == cpu.AVX512:
		decodeINT8AVX512(&dst[:n][0], &src[0], n, scale, inv)
	default:
		decodeINT8AVX2(&dst[:n][0], &src[0], n, scale, inv)
	}
	return n
}

// copyF32 is decodeF32 on a machine whose floats are little endian.
func copyF32(dst []float32, src []byte) {
	if len(src) >= 4 {
		dst = dst[:len(src)/4]
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&dst[0])), 4*len(dst)), src)
	}
}

// simdConst are the constants of simd_amd64.h, in its order.
//
//lint:ignore U1000 the assembly reads it
var simdConst = func() (t [20][32]byte) {
	for i, v := range []byte{15, 8, 16, 32, 3, 4, 0x30, 63, 1} {
		for j := range t[i] {
			t[i][j] = v
		}
	}
	for j := range 32 {
		t[9][j] = 1 << (j % 8)
		t[10][j] = byte(j / 8)
		t[13][j] = byte(int8(iq4Levels[j%16]))
		t[14][j] = byte(int8(e2m1Levels[j%16]))
	}
	for j := range 8 {
		for i, v := range []int{11: j % 2 * 4, 12: j % 4 * 2, 15: 4 * j, 16: 2 * j, 17: 15, 18: 3, 19: 32} {
			if i == 11 || i == 12 || i >= 15 {
				binary.LittleEndian.PutUint32(t[i][4*j:], uint32(v))
			}
		}
	}
	return t
}()

//go:noescape
func decodeQ4_0_AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4_0_AVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4_1_AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4_1_AVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ5_0_AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ5_0_AVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ5_1_AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ5_1_AVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ8_0_AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ8_0_AVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeIQ4NLAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeIQ4NLAVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeMXFP4_AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeMXFP4_AVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ2KAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ2KAVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ3KAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ3KAVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4KAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4KAVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ5KAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ5KAVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ6KAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ6KAVX512(dst *float32, src *byte, blocks int)

//go:noescape
func decodeIQ4XSAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeIQ4XSAVX512(dst *float32, src *byte, blocks int)

//go:noescape
func lookupAVX2(dst *float32, codes *byte, values *float32, blocks, size int)

//go:noescape
func decodeINT8AVX2(dst *float32, codes *byte, n int, scale, inv float32)

//go:noescape
func lookupAVX512(dst *float32, codes *byte, values *float32, blocks, size int)

//go:noescape
func decodeINT8AVX512(dst *float32, codes *byte, n int, scale, inv float32)
