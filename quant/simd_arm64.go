//go:build !noasm

package quant

import (
	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
)

// vectorDecoders decode whole blocks with NEON, bit for bit as the decoders in Go do:
// dst and src hold blocks > 0 of them.
var vectorDecoders = map[format.Type]func(dst []float32, src []byte, blocks int){
	format.Q4_0: func(dst []float32, src []byte, blocks int) { decodeQ4_0NEON(&dst[0], &src[0], blocks) },
	format.Q4_1: func(dst []float32, src []byte, blocks int) { decodeQ4_1NEON(&dst[0], &src[0], blocks) },
	format.Q8_0: func(dst []float32, src []byte, blocks int) { decodeQ8_0NEON(&dst[0], &src[0], blocks) },
	format.Q4_K: vectorQ4K,
	format.Q6_K: vectorQ6K,
}

// vectorized is decode, done with NEON if the tier is that and t has such a decoder.
func vectorized(t format.Type, decode func(dst []float32, src []byte)) func(dst []float32, src []byte) {
	v, ok := vectorDecoders[t]
	if !ok {
		return decode
	}
	size, block := t.BlockBytes(), t.BlockSize()
	return func(dst []float32, src []byte) {
		n := len(src) / size
		if cpu.Current() == cpu.Generic || n == 0 {
			decode(dst, src)
			return
		}
		v(dst[:n*block], src, n) // panics if they do not fit, as the decoder in Go does
	}
}

func vectorQ4K(dst []float32, src []byte, blocks int) {
	for ; blocks > 0; blocks, src, dst = blocks-1, src[q4KBytes:], dst[superBlock:] {
		d, dmin := half(src), half(src[2:])
		for j := 0; j < 8; j += 2 {
			s1, m1 := scaleMinK4(src[4:16], j)
			s2, m2 := scaleMinK4(src[4:16], j+1)
			nibbles32NEON(&dst[32*j:][:64][0], &src[16+16*j:][:32][0],
				d*float32(s1), dmin*float32(m1), d*float32(s2), dmin*float32(m2))
		}
	}
}

func vectorQ6K(dst []float32, src []byte, blocks int) {
	for ; blocks > 0; blocks, src, dst = blocks-1, src[q6KBytes:], dst[superBlock:] {
		d := half(src[208:q6KBytes])
		for n := range 2 {
			var s [8]float32
			for i, sc := range src[192+8*n:][:8] {
				s[i] = d * float32(int8(sc))
			}
			sixBits128NEON(&dst[128*n:][:128][0], &src[64*n], &src[128+32*n], &s)
		}
	}
}

//go:noescape
func decodeQ4_0NEON(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4_1NEON(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ8_0NEON(dst *float32, src *byte, blocks int)

//go:noescape
func nibbles32NEON(dst *float32, src *byte, d1, m1, d2, m2 float32)

//go:noescape
func sixBits128NEON(dst *float32, low, high *byte, scales *[8]float32)
