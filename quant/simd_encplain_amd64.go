//go:build amd64 && !noasm

package quant

import (
	"encoding/binary"
	"math"
	"sync"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
)

// plainConst are the constants of simd_encplain_amd64.s, in its order.
//
//lint:ignore U1000 the assembly reads it
var plainConst = func() (t [5][8]uint32) {
	order := [8]uint32{0, 4, 1, 5, 2, 6, 3, 7}
	for j := range 8 {
		t[0][j], t[1][j], t[2][j], t[3][j], t[4][j] = 0x7fffffff, 0xff, order[j], 0x3effffff, 8
	}
	return t
}()

// e2m1Thresholds are the midpoints between the levels of E2M1, doubled as those are: what
// lies above one has the level after it. Between levels no more than twice as large as
// each other the differences that nearestE2M1 compares are exact.
var e2m1Thresholds = func() (t [7][8]float32) {
	for i := range t {
		for j := range t[i] {
			t[i][j] = (e2m1Levels[i] + e2m1Levels[i+1]) / 2
		}
	}
	return t
}()

// plainBatch is how many values are encoded at a time.
const plainBatch = 4096

// plainWork is the scratch of an encoder without a search.
type plainWork struct {
	tops, lows, highs [plainBatch / 16]float32
	codes             [plainBatch]uint8
}

var plainPool = sync.Pool{New: func() any { return new(plainWork) }}

// plainEncoder encodes whole blocks.
type plainEncoder func(e *plainWork, dst []byte, x []float32)

// plainEncoders are those that ignore importance or have another algorithm with it.
var plainEncoders = map[format.Type]plainEncoder{
	format.Q4_0: func(e *plainWork, dst []byte, x []float32) { e.symmetric(dst, x, 16, q4_0Bytes, nibbles) },
	format.Q5_0: func(e *plainWork, dst []byte, x []float32) { e.symmetric(dst, x, 32, q5_0Bytes, fiveBits) },
	format.Q4_1: func(e *plainWork, dst []byte, x []float32) { e.ranged(dst, x, 16, q4_1Bytes, nibbles) },
	format.Q5_1: func(e *plainWork, dst []byte, x []float32) { e.ranged(dst, x, 32, q5_1Bytes, fiveBits) },
	format.Q8_0: plainQ8_0, format.MXFP4: plainMXFP4, format.NVFP4: plainNVFP4,
	format.TQ1_0: plainTQ1_0, format.TQ2_0: plainTQ2_0, format.Q1_0: plainQ1_0, format.Q2_0: plainQ2_0,
}

// weightedPlain are the types of plainEncoders that have another algorithm with weights.
var weightedPlain = map[format.Type]bool{format.Q4_0: true, format.Q4_1: true, format.Q5_0: true, format.Q5_1: true}

// encodePlain is encode of whole rows by the assembly. It says false where there is none.
func encodePlain(t format.Type, dst []byte, src []float32, weights []float32) bool {
	f, ok := plainEncoders[t]
	if !ok || cpu.Current() == cpu.Generic || weights != nil && weightedPlain[t] {
		return false
	}
	e := plainPool.Get().(*plainWork)
	block, size := t.BlockSize(), t.BlockBytes()
	for len(src) > 0 {
		n := min(plainBatch, len(src))
		f(e, dst[:n/block*size], src[:n])
		src, dst = src[n:], dst[n/block*size:]
	}
	plainPool.Put(e)
	return true
}

// finite says whether all of x are finite. It looks at whole vectors at once where the tier can.
func finite(x []float32) bool {
	n := len(x) &^ 7
	if cpu.Current() == cpu.Generic || n == 0 {
		return firstNonFinite(x) < 0
	}
	return largestBits(&x[0], n) < 0x7f800000 && firstNonFinite(x[n:]) < 0
}

// reciprocals fills lows with the reciprocals of the scales in tops.
func (e *plainWork) reciprocals(n int) {
	for b, d := range e.tops[:n] {
		e.lows[b] = reciprocal(d)
	}
}

func (e *plainWork) symmetric(dst []byte, x []float32, levels, size int, put func(y, codes []byte)) {
	blocks := len(x) / legacyBlock
	blockTops(&e.tops[0], &x[0], blocks)
	for b, top := range e.tops[:blocks] {
		e.tops[b] = top / float32(-levels/2)
	}
	e.reciprocals(blocks)
	clear(e.highs[:blocks])
	truncCodes(&e.codes[0], &x[0], &e.lows[0], &e.highs[0], blocks, float32(levels/2)+0.5, levels-1)
	for b, d := range e.tops[:blocks] {
		y := dst[b*size:][:size]
		putHalf(y, d)
		put(y[2:], e.codes[b*legacyBlock:][:legacyBlock])
	}
}

func (e *plainWork) ranged(dst []byte, x []float32, levels, size int, put func(y, codes []byte)) {
	blocks := len(x) / legacyBlock
	blockRanges(&e.lows[0], &e.highs[0], &x[0], blocks)
	for b := range blocks {
		lo, hi := e.lows[b], e.highs[b]
		if lo == 0 || hi == 0 {
			lo, hi = firstEqual(x[b*legacyBlock:], lo), firstEqual(x[b*legacyBlock:], hi)
		}
		d := (hi - lo) / float32(levels-1)
		y := dst[b*size:][:size]
		putHalf(y, d)
		putHalf(y[2:], lo)
		e.lows[b], e.tops[b] = lo, reciprocal(d)
	}
	truncCodes(&e.codes[0], &x[0], &e.tops[0], &e.lows[0], blocks, 0.5, levels-1)
	for b := range blocks {
		put(dst[b*size+4:], e.codes[b*legacyBlock:][:legacyBlock])
	}
}

// firstEqual gives the first of x that equals v: a zero with its sign.
func firstEqual(x []float32, v float32) float32 {
	for _, w := range x {
		if w == v {
			return w
		}
	}
	return v
}

func plainQ8_0(e *plainWork, dst []byte, x []float32) {
	blocks := len(x) / legacyBlock
	blockMaxima(&e.tops[0], &x[0], blocks, legacyBlock)
	for b, amax := range e.tops[:blocks] {
		d := amax / 127
		putHalf(dst[b*q8_0Bytes:], d)
		e.tops[b] = d
	}
	e.reciprocals(blocks)
	nearCodes(&dst[2], q8_0Bytes, &x[0], &e.lows[0], blocks, legacyBlock)
}

// near fills codes with round(x/d) + 1 for the blocks of size values whose largest
// magnitude d, the scale, goes to tops.
func (e *plainWork) near(x []float32, size int) {
	blocks := len(x) / size
	blockMaxima(&e.tops[0], &x[0], blocks, size)
	e.reciprocals(blocks)
	nearCodes(&e.codes[0], size, &x[0], &e.lows[0], blocks, size)
	// Of the bytes -1, 0, 1 and 2 adding one carries into the next where it was -1.
	const ones, low = 0x0101010101010101, 0x7f7f7f7f7f7f7f7f
	for i := 0; i < len(x); i += 8 {
		v := eight(e.codes[i:])
		putEight(e.codes[i:], (v&low+ones)^v&^low)
	}
}

func plainTQ1_0(e *plainWork, dst []byte, x []float32) {
	e.near(x, superBlock)
	for b := range len(x) / superBlock {
		y, codes := dst[b*tq1_0Bytes:][:tq1_0Bytes], e.codes[b*superBlock:][:superBlock]
		putHalf(y[52:], e.tops[b])
		for _, g := range tq1Groups {
			for m := 0; m < g.width; m += 4 {
				var q uint32 // four bytes, none of which overflows
				for n := range g.digits {
					q = 3*q + binary.LittleEndian.Uint32(codes[m+n*g.width:])
				}
				if g.digits == 4 {
					q *= 3
				}
				for k := range 4 {
					y[g.off+m+k] = tritFractions[uint8(q>>(8*k))]
				}
			}
			codes = codes[g.digits*g.width:]
		}
	}
}

// tritFractions are numbers of five trits as fractions of 256, rounded up.
var tritFractions = func() (t [256]uint8) {
	for q := range 243 {
		t[q] = uint8((q*256 + 242) / 243)
	}
	return t
}()

func plainTQ2_0(e *plainWork, dst []byte, x []float32) {
	e.near(x, superBlock)
	for b := range len(x) / superBlock {
		y := dst[b*tq2_0Bytes:]
		putHalf(y[64:], e.tops[b])
		(*kCodes)(e.codes[b*superBlock:]).packPairs(y[:64])
	}
}

func plainQ2_0(e *plainWork, dst []byte, x []float32) {
	e.near(x, q2_0Block)
	for b := range len(x) / q2_0Block {
		y := dst[b*q2_0Bytes:][:q2_0Bytes]
		if math.IsInf(float64(e.lows[b]), 0) { // the scale is too small to have a reciprocal
			encodeQ2_0(y, x[b*q2_0Block:][:q2_0Block], nil)
			continue
		}
		putHalf(y, e.tops[b])
		for j := range 8 {
			// The product moves the codes of four bytes into the uppermost of them.
			v := eight(e.codes[b*q2_0Block+8*j:])
			y[2+2*j] = uint8(uint32(v) * 0x01041040 >> 24)
			y[3+2*j] = uint8(uint32(v>>32) * 0x01041040 >> 24)
		}
	}
}

func plainQ1_0(e *plainWork, dst []byte, x []float32) {
	blocks := len(x) / q1_0Block
	signBits(&dst[2], q1_0Bytes, &x[0], blocks)
	b := 0
	for ; b+4 <= blocks; b += 4 {
		magnitudes(&e.tops[b], &x[b*q1_0Block])
	}
	for ; b < blocks; b++ {
		e.tops[b] = 0
		for _, v := range x[b*q1_0Block:][:q1_0Block] {
			e.tops[b] += abs32(v)
		}
	}
	for b, sum := range e.tops[:blocks] {
		putHalf(dst[b*q1_0Bytes:], sum/q1_0Block)
	}
}

// e2m1Reach is how many times the scale a magnitude may be for thresholds to tell its
// level: beyond, differences that are not equal are rounded to be.
const e2m1Reach = 4096

func plainMXFP4(e *plainWork, dst []byte, x []float32) {
	blocks := len(x) / legacyBlock
	blockMaxima(&e.tops[0], &x[0], blocks, legacyBlock)
	for b, amax := range e.tops[:blocks] {
		code := uint8(0)
		if amax > 0 {
			code = uint8(floorLog2(amax) - 2 + 127)
		}
		dst[b*mxfp4Bytes] = code
		e.lows[b] = halfE8M0(code)
	}
	nibbles32(&dst[1], &x[0], &e.lows[0], &e2m1Thresholds[0][0], blocks)
	for b, d := range e.lows[:blocks] {
		// Under the largest scales the highest levels are infinite, and nothing lies near them.
		if !(e.tops[b] <= e2m1Reach*d) || d >= 0x1p124 {
			encodeE2M1(dst[b*mxfp4Bytes+1:], x[b*legacyBlock:][:legacyBlock], d)
		}
	}
}

func plainNVFP4(e *plainWork, dst []byte, x []float32) {
	blocks := len(x) / nvfp4Block
	blockMaxima(&e.tops[0], &x[0], 4*blocks, 16)
	for b, amax := range e.tops[:4*blocks] {
		code := toUE4M3(amax / 6)
		dst[b/4*nvfp4Bytes+b%4] = code
		e.lows[b] = halfUE4M3(code)
	}
	nibbles16(&dst[0], &x[0], &e.lows[0], &e2m1Thresholds[0][0], blocks)
	for b, d := range e.lows[:4*blocks] {
		if !(e.tops[b] <= e2m1Reach*d) {
			encodeE2M1(dst[b/4*nvfp4Bytes+4+b%4*8:], x[16*b:][:16], d)
		}
	}
}

// overflows says whether a value would become an infinity of a type of 16 bits.
func overflows(t format.Type, x []float32) (over, known bool) {
	var limit uint32
	switch {
	case cpu.Current() == cpu.Generic || len(x) == 0 || len(x)%8 != 0:
		return false, false
	case t == format.F16:
		limit = math.Float32bits(65520)
	case t == format.BF16:
		limit = 0x7f7f8000
	default:
		return false, false
	}
	return largestBits(&x[0], len(x)) >= limit, true
}

//go:noescape
func largestBits(x *float32, n int) uint32

//go:noescape
func blockMaxima(dst, x *float32, blocks, size int)

//go:noescape
func blockTops(dst, x *float32, blocks int)

//go:noescape
func blockRanges(lows, highs, x *float32, blocks int)

//go:noescape
func truncCodes(codes *byte, x, ids, lows *float32, blocks int, add float32, top int)

//go:noescape
func nearCodes(codes *byte, stride int, x, ids *float32, blocks, size int)

//go:noescape
func nibbles32(dst *byte, x, scales, thresholds *float32, blocks int)

//go:noescape
func nibbles16(dst *byte, x, scales, thresholds *float32, blocks int)

//go:noescape
func signBits(dst *byte, stride int, x *float32, blocks int)

//go:noescape
func magnitudes(dst, x *float32)
