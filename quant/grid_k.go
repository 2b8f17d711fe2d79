package quant

// The K types: a super-block of 256 elements with one or two float16 factors, and
// small integer scales (and minimums) for each sub-block.

// scaleMinK4 reads the j-th 6-bit scale and minimum of Q4_K and Q5_K.
func scaleMinK4(s []byte, j int) (scale, min uint8) {
	if j < 4 {
		return s[j] & 63, s[j+4] & 63
	}
	return s[j+4]&15 | s[j-4]>>6<<4, s[j+4]>>4 | s[j]>>6<<4
}

func unpackScalesK4(step, min []float32, b []byte) {
	d, dmin := half(b), half(b[2:])
	for j := range 8 {
		s, m := scaleMinK4(b[4:16], j)
		step[j], min[j] = d*float32(s), -(dmin * float32(m))
	}
}

func unpackQ4K(codes []uint8, step, min []float32, b []byte) {
	unpackScalesK4(step, min, b)
	for j := range 4 {
		for l := 0; l < 32; l += 8 {
			q := eight(b[16+32*j+l:])
			putEight(codes[64*j+l:], q&lowNibbles)
			putEight(codes[64*j+32+l:], q>>4&lowNibbles)
		}
	}
}

func packQ4K(b []byte, codes []uint8) {
	for j := range 4 {
		for l := 0; l < 32; l += 8 {
			putEight(b[16+32*j+l:], eight(codes[64*j+l:])&lowNibbles|eight(codes[64*j+32+l:])&lowNibbles<<4)
		}
	}
}

func unpackQ5K(codes []uint8, step, min []float32, b []byte) {
	unpackScalesK4(step, min, b)
	high := b[16:48]
	for j := range 4 {
		for l, q := range b[48+32*j : 80+32*j] {
			codes[64*j+l] = q&15 | high[l]>>(2*j)&1<<4
			codes[64*j+32+l] = q>>4 | high[l]>>(2*j+1)&1<<4
		}
	}
}

func packQ5K(b []byte, codes []uint8) {
	high := b[16:48]
	clear(high)
	for j := range 4 {
		for l := range 32 {
			lo, hi := codes[64*j+l], codes[64*j+32+l]
			b[48+32*j+l] = lo&15 | hi<<4
			high[l] |= lo>>4&1<<(2*j) | hi>>4&1<<(2*j+1)
		}
	}
}

// pairs are the lowest two bits of eight bytes.
const pairs = 0x0303030303030303

func unpackQ6K(codes []uint8, step, _ []float32, b []byte) {
	d := half(b[208:])
	for j, s := range b[192:208] {
		step[j] = d * float32(int8(s))
	}
	for n := range 2 {
		ql, qh, c := b[64*n:64*n+64], b[128+32*n:160+32*n], codes[128*n:128*n+128]
		for l := 0; l < 32; l += 8 {
			a, b, h := eight(ql[l:]), eight(ql[l+32:]), eight(qh[l:])
			putEight(c[l:], a&lowNibbles|h&pairs<<4)
			putEight(c[l+32:], b&lowNibbles|h>>2&pairs<<4)
			putEight(c[l+64:], a>>4&lowNibbles|h>>4&pairs<<4)
			putEight(c[l+96:], b>>4&lowNibbles|h>>6&pairs<<4)
		}
	}
}

func packQ6K(b []byte, codes []uint8) {
	for n := range 2 {
		ql, qh, c := b[64*n:64*n+64], b[128+32*n:160+32*n], codes[128*n:128*n+128]
		for l := 0; l < 32; l += 8 {
			c0, c1, c2, c3 := eight(c[l:]), eight(c[l+32:]), eight(c[l+64:]), eight(c[l+96:])
			putEight(ql[l:], c0&lowNibbles|c2&lowNibbles<<4)
			putEight(ql[l+32:], c1&lowNibbles|c3&lowNibbles<<4)
			putEight(qh[l:], c0>>4&pairs|c1>>4&pairs<<2|c2>>4&pairs<<4|c3>>4&pairs<<6)
		}
	}
}

func unpackQ2K(codes []uint8, step, min []float32, b []byte) {
	d, dmin := half(b[80:]), half(b[82:])
	for j, s := range b[:16] {
		step[j], min[j] = d*float32(s&15), -(dmin * float32(s>>4))
	}
	for n := range 2 {
		for l, q := range b[16+32*n : 48+32*n] {
			for j := range 4 {
				codes[128*n+32*j+l] = q >> (2 * j) & 3
			}
		}
	}
}

func packQ2K(b []byte, codes []uint8) {
	for n := range 2 {
		for l := range 32 {
			var q uint8
			for j := range 4 {
				q |= codes[128*n+32*j+l] & 3 << (2 * j)
			}
			b[16+32*n+l] = q
		}
	}
}

func unpackQ3K(codes []uint8, step, _ []float32, b []byte) {
	d := half(b[108:])
	s := b[96:108]
	for j := range 16 {
		low := s[j%8] >> (4 * (j / 8)) & 15
		high := s[8+j%4] >> (2 * (j / 4)) & 3
		step[j] = d * float32(int(low|high<<4)-32)
	}
	for n := range 2 {
		for l, q := range b[32+32*n : 64+32*n] {
			for j := range 4 {
				codes[128*n+32*j+l] = q>>(2*j)&3 | b[l]>>(4*n+j)&1<<2
			}
		}
	}
}

func packQ3K(b []byte, codes []uint8) {
	clear(b[:32])
	for n := range 2 {
		for l := range 32 {
			var q uint8
			for j := range 4 {
				c := codes[128*n+32*j+l]
				q |= c & 3 << (2 * j)
				b[l] |= c >> 2 & 1 << (4*n + j)
			}
			b[32+32*n+l] = q
		}
	}
}
