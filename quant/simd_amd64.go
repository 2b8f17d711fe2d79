//go:build amd64 && !noasm

package quant

import (
	"encoding/binary"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
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

// simdConst are the constants of simd_amd64.h, in its order.
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
