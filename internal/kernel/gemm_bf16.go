package kernel

import "math"

// Products in bf16 are products of pairs: two elements that follow each other along k,
// rounded and put into the 32 bits of a float32, the first in the lower half. Of those,
// panels are made as of float32s, and blocks, jobs and tiles are the same with a k of
// half the size; only the innermost multiply-add is another, and what packs. The left
// matrix is always packed: its last rows, that fill no tile, lie there one after another.

// roundPair makes a pair.
func roundPair(low, high float32) float32 {
	return math.Float32frombits(uint32(roundBF16(low)) | uint32(roundBF16(high))<<16)
}

// roundBF16 is the bfloat16 nearest to f, zero for a subnormal f.
func roundBF16(f float32) uint16 {
	if u := math.Float32bits(f); u&0x7f800000 == 0 {
		return uint16(u >> 16 & 0x8000)
	}
	return BF16Bits(f)
}

// pairLeft packs rows r to end of the left block.
func (g *product) pairLeft(s *scratch, r, end int) {
	height := g.ts.height
	first := g.k0 * g.pair
	deep := min(g.kn*g.pair, g.deep-first)
	for ; r < end; r += height {
		h := min(height, end-r)
		dst, src := g.left[r*g.kn:], g.a.Data[(g.i0+r)*g.ai+first*g.ak:]
		switch {
		case h < height && g.ak == 1:
			pairRows(dst, g.kn, src, g.ai, h, deep)
		case g.ak == 1:
			turn := grow(&s.turn, height*g.kn)
			pairRows(turn, g.kn, src, g.ai, h, deep)
			g.ts.packLeft(dst, turn, g.kn, 1, g.kn)
		case h < height:
			for i := range h {
				for q := range g.kn {
					low, high := src[i+2*q*g.ak], float32(0)
					if 2*q+1 < deep {
						high = src[i+(2*q+1)*g.ak]
					}
					dst[i*g.kn+q] = roundPair(low, high)
				}
			}
		default:
			pairColumns(dst, height, src, g.ak, deep, height)
		}
	}
}

// packPairs is pack.
func (g *product) packPairs(s *scratch, panel []float32, j0, n, k0, k int) {
	first := k0 * g.pair
	deep := min(k*g.pair, g.deep-first)
	if g.bj == 1 {
		pairColumns(panel, g.ts.width, g.b.Data[first*g.bk+j0:], g.bk, deep, n)
		return
	}
	turn := grow(&s.turn, decodeGroup*k)
	for j := 0; j < n; j += decodeGroup {
		h := min(decodeGroup, n-j)
		pairRows(turn, k, g.b.Data[(j0+j)*g.bj+first:], g.bj, h, deep)
		g.ts.packCols(panel, j, turn, k, k, h)
	}
	g.ts.zeroCols(panel, k, n)
}

// pairRows makes pairs of each of h rows of n elements, in rows of dst of stride to.
// dst may be src where no row of it is ahead of that of src.
func pairRows(dst []float32, to int, src []float32, stride, h, n int) {
	for i := range h {
		pairRow(dst[i*to:i*to+ceil(n, 2)], src[i*stride:i*stride+n])
	}
}

// pairRow makes pairs of the elements of src.
func pairRow(dst, src []float32) {
	n := len(src) / 32
	if n > 0 {
		_ = dst[16*n-1]
		pairs32(&dst[0], &src[0], n)
	}
	for i := 32 * n; i < len(src); i += 2 {
		high := float32(0)
		if i+1 < len(src) {
			high = src[i+1]
		}
		dst[i/2] = roundPair(src[i], high)
	}
}

// pairColumns makes pairs of k rows of n elements, each with the one below it, in rows of
// dst of width elements, those past n zero. n is at least 1, width at most 32.
func pairColumns(dst []float32, width int, src []float32, stride, k, n int) {
	pairs := k / 2
	if pairs > 0 {
		_, _ = dst[pairs*width-1], src[(2*pairs-1)*stride+n-1]
		zip32(&dst[0], &src[0], width, stride, pairs, n)
	}
	if k%2 == 1 {
		d := dst[pairs*width : (pairs+1)*width]
		clear(d)
		for j, v := range src[2*pairs*stride:][:n] {
			d[j] = roundPair(v, 0)
		}
	}
}
