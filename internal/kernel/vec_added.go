package kernel

import (
	"encoding/binary"
	"math/bits"
)

// Added is what [AddF16] and [AddBF16] say of a row. With w the values that were there, d
// what was to be added, and r what was, after rounding:
type Added struct {
	Changed        int64   // values whose bits are others now
	RD, DD, RR, WW float64 // <r, d>, <d, d>, <r, r>, <w, w>, as Dot64 and SumSquares64 make them
}

// AddF16 makes float16 of those at src with d added, in float32, at dst, which may be src.
// The sums are those of Dot64, in one pass over the row:
//
//	w = F16ToF32(src);  dst = F32ToF16(w + d);  r = F16ToF32(dst) - w
//
// A value that is not finite, before or after, makes RR an infinity or NaN.
func AddF16(dst, src []byte, d []float32) Added {
	return add16(dst, src, d, false)
}

// AddBF16 is AddF16 for bfloat16.
func AddBF16(dst, src []byte, d []float32) Added {
	return add16(dst, src, d, true)
}

// addedSums are the sums as they stand, element i being in lane i%16.
type addedSums struct {
	rd, dd, rr, ww [16]float64
	changed        int64
}

// addedAtOnce is how many elements go through the buffers of add16, which stay in the
// first-level cache. It is a multiple of 16, so that each part begins with lane 0.
const addedAtOnce = 512

func add16(dst, src []byte, d []float32, bfloat bool) Added {
	sameLen(2*len(d), len(src))
	sameLen(len(src), len(dst))
	var s addedSums
	n := 0
	if bfloat {
		n = addBF16Vec(dst, src, d, &s)
	} else {
		n = addF16Vec(dst, src, d, &s)
	}
	if n < len(d) {
		s.add16(dst[2*n:], src[2*n:], d[n:], bfloat)
	}
	return Added{s.changed, sum64(&s.rd), sum64(&s.dd), sum64(&s.rr), sum64(&s.ww)}
}

// add16 goes on with a row, from lane 0 on.
func (s *addedSums) add16(dst, src []byte, d []float32, bfloat bool) {
	var was, now [addedAtOnce]float32
	var low [2 * addedAtOnce]byte
	for len(d) > 0 {
		k := min(addedAtOnce, len(d))
		w, r, h := was[:k], now[:k], low[:2*k]
		widen16(w, src[:2*k], bfloat)
		copy(r, w)
		Add(r, d[:k])
		narrow16(h, r, bfloat)
		s.changed += differing16(h, src[:2*k])
		copy(dst, h)
		widen16(r, h, bfloat)
		Sub(r, r, w)
		dot64(&s.rd, r, d[:k])
		squares64(&s.dd, d[:k])
		squares64(&s.rr, r)
		squares64(&s.ww, w)
		dst, src, d = dst[2*k:], src[2*k:], d[k:]
	}
}

// widen16 and narrow16 name the conversions, so that buffers stay where they are: what is called
// through a variable might keep them.
func widen16(dst []float32, src []byte, bfloat bool) {
	if bfloat {
		BF16ToF32(dst, src)
	} else {
		F16ToF32(dst, src)
	}
}

func narrow16(dst []byte, src []float32, bfloat bool) {
	if bfloat {
		F32ToBF16(dst, src)
	} else {
		F32ToF16(dst, src)
	}
}

// differing16 counts the pairs of bytes that differ, four pairs at a time.
func differing16(x, y []byte) (n int64) {
	const low, high = 0x7fff7fff7fff7fff, 0x8000800080008000
	for ; len(x) >= 8; x, y = x[8:], y[8:] {
		d := binary.LittleEndian.Uint64(x) ^ binary.LittleEndian.Uint64(y)
		n += int64(bits.OnesCount64((d&low + low | d) & high))
	}
	for i := 0; i < len(x); i += 2 {
		if x[i] != y[i] || x[i+1] != y[i+1] {
			n++
		}
	}
	return n
}
