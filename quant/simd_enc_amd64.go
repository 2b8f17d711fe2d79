//go:build amd64 && !noasm

package quant

import (
	"encoding/binary"
	"math"
	"sync"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
)

// encLanes is how many groups are searched at once, in both tiers.
const encLanes = 16

// Rows of the state of a search, in the order of simd_enc_amd64.h.
const (
	stateScale = iota
	stateLow
	stateIscale
	stateRange
	stateBest
	stateHigh
	stateSumW
	stateSumX
	stateAlive
	stateRows
)

// encConst are the constants of simd_enc_amd64.h, in its order.
//
//lint:ignore U1000 the assembly reads it
var encConst = func() (t [22][64]byte) {
	for i, v := range []uint32{0x4b400000, 0x7fffff, 0x4b000000, 0x7fffffff, 0x3f800000, math.Float32bits(groupMaxEps), 0xff, 0x400000} {
		for j := 0; j < 64; j += 4 {
			binary.LittleEndian.PutUint32(t[i][j:], v)
		}
	}
	for j := range 16 {
		mid := func(i int) float32 { return (iq4Levels[i] + iq4Levels[i+1]) / 2 }
		for i, v := range []float32{mid(7), mid(3), mid(11), mid(1 + j%4*4), mid(j % 8 * 2), iq4Levels[j%8*2], iq4Levels[j%8*2+1], math.Float32frombits(1), iq4Levels[0],
			0.5, math.MaxFloat32, math.Float32frombits(uint32(j)), math.Float32frombits(16), math.Float32frombits(8)} {
			binary.LittleEndian.PutUint32(t[8+i][4*j:], math.Float32bits(v))
		}
	}
	return t
}()

// vectorEncoder encodes whole rows; weights is nil or one row.
type vectorEncoder func(e *encWork, dst []byte, src []float32, cols int, weights []float32)

// encodeVector is encode of all rows by the assembly of the current tier. It says
// false, and has done nothing that matters, where there is none.
func encodeVector(t format.Type, dst []byte, src []float32, cols int, weights []float32) bool {
	if encodePlain(t, dst, src, weights) {
		return true
	}
	tier := cpu.Current()
	f, ok := vectorEncoders[t]
	if weights == nil && vectorWeighted[t] {
		return false
	}
	if !ok || tier == cpu.Generic || len(src) == 0 {
		return false
	}
	e := encPool.Get().(*encWork)
	e.f = &encFuncs[tier]
	f(e, dst, src, cols, weights)
	encPool.Put(e)
	return true
}

var vectorEncoders = map[format.Type]vectorEncoder{
	format.Q2_K: vectorQ2K,
	format.Q3_K: vectorQ3K,
	format.Q4_K: func(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
		e.encodeK45(format.Q4_K, dst, src, cols, weights, 15, q4KTries)
	},
	format.Q5_K: func(e *encWork, dst []byte, src []float32, cols int, weights []float32) {
		e.encodeK45(format.Q5_K, dst, src, cols, weights, 31, q5KTries)
	},
	format.Q6_K:   vectorQ6K,
	format.Q4_0:   vectorQ4_0,
	format.Q4_1:   vectorQ4_1,
	format.Q5_0:   vectorQ5_0,
	format.Q5_1:   vectorQ5_1,
	format.IQ4_NL: vectorIQ4NL,
	format.IQ4_XS: vectorIQ4XS,
}

// vectorWeighted are the types whose vector encoders need weights.
var vectorWeighted = map[format.Type]bool{format.Q4_0: true, format.Q4_1: true, format.Q5_0: true, format.Q5_1: true}

var encPool = sync.Pool{New: func() any { return new(encWork) }}

type (
	weighFunc  func(x, w, codes, state *float32, n int)
	searchFunc func(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32)
)

// encTier is the assembly of a tier.
type encTier struct {
	width                                             int
	weighImportance, weighMean, weighAbs, weighSquare weighFunc
	searchScale, searchDescent, searchIQ4             searchFunc
	searchMin                                         func(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32, mad int)
	searchPositive                                    func(x, w, codes, state *float32, n int, tries *float32, count int, high int32)
	requantize, roundCodes, codesIQ4                  func(codes *byte, x, scales, mins *float32, groups, n int, low, high float32)
}

var encFuncs = [...]encTier{
	cpu.AVX2: {8, weighImportanceAVX2, weighMeanAVX2, weighAbsAVX2, weighSquareAVX2, searchScaleAVX2, searchDescentAVX2, searchIQ4AVX2,
		searchMinAVX2, searchPositiveAVX2, requantizeAVX2, roundCodesAVX2, codesIQ4AVX2},
	cpu.AVX512: {16, weighImportanceAVX512, weighMeanAVX512, weighAbsAVX512, weighSquareAVX512, searchScaleAVX512, searchDescentAVX512, searchIQ4AVX512,
		searchMinAVX512, searchPositiveAVX512, requantizeAVX512, roundCodesAVX512, codesIQ4AVX512},
}

// encBatch is how many super-blocks are encoded together: their scales are a search
// of their own, one super-block a lane.
const encBatch = encLanes

// encWork is the scratch of a call.
type encWork struct {
	f     *encTier
	block int // values in a block
	// Sixteen groups, turned: values, weights, codes.
	x, w, codes [32 * encLanes]float32
	state       [stateRows * encLanes]float32
	padded      [32 * encLanes]float32
	columns     [encBatch * superBlock]float32      // importance of the columns of a batch
	sigma2      [encBatch * superBlock / 32]float32 // of each block
	// Of each group of the batch, in order.
	scales, mins, sums, iscales, ranges [encBatch * superBlock / 16]float32
	scaleCodes, minCodes                [encBatch * superBlock / 16]uint8
	d, dmin                             [encBatch]float32
	bytes                               [encBatch * superBlock]uint8 // codes, in order
}

func (e *encWork) row(i int) *[encLanes]float32 { return (*[encLanes]float32)(e.state[i*encLanes:]) }

// turn puts the sixteen groups of n values that x begins with into dst; what x lacks is zero.
func (e *encWork) turn(dst *[32 * encLanes]float32, x []float32, n int) {
	if len(x) < encLanes*n {
		clear(e.padded[copy(e.padded[:], x):])
		x = e.padded[:]
	}
	turnRows(&dst[0], &x[0], n)
	turnRows(&dst[8], &x[8*n], n)
}

// lanes calls f for each vector of the sixteen lanes.
func (e *encWork) lanes(f func(x, w, codes, state *float32)) {
	for l := 0; l < encLanes; l += e.f.width {
		f(&e.x[l], &e.w[l], &e.codes[l], &e.state[l])
	}
}

func (e *encWork) weigh(f weighFunc, n int) {
	e.lanes(func(x, w, codes, state *float32) { f(x, w, codes, state, n) })
}

func (e *encWork) search(f searchFunc, n int, tries []float32, low, high float32) {
	e.lanes(func(x, w, codes, state *float32) { f(x, w, codes, state, n, &tries[0], len(tries), low, high) })
}

func (e *encWork) searchMin(n int, tries []float32, mad int) {
	e.lanes(func(x, w, codes, state *float32) {
		e.f.searchMin(x, w, codes, state, n, &tries[0], len(tries), 0, tries[0], mad)
	})
}

// minTries are the levels that searchScaleMin tries.
func minTries(nmax int, rmin, rdelta float32, nstep int) []float32 {
	t := []float32{float32(nmax)}
	for is := range nstep + 1 {
		t = append(t, rmin+float32(rdelta*float32(is))+float32(nmax))
	}
	return t
}

// scaleTries are the levels that searchScale tries.
func scaleTries(nmax int) []float32 {
	t := []float32{float32(-nmax)}
	for is := -9; is <= 9; is++ {
		if is != 0 {
			t = append(t, -(float32(nmax) + float32(0.1*float32(is))))
		}
	}
	return t
}

// positiveTries are the levels that searchPositive tries.
func positiveTries(nmax int) []float32 {
	t := []float32{float32(nmax)}
	for is := -4; is <= 4; is++ {
		if is != 0 {
			t = append(t, float32(0.1*float32(is))+float32(nmax))
		}
	}
	return t
}

// byGroup turns what a search found for the first groups of each super-block, lanes
// being super-blocks, into codes in the order of groups.
func (e *encWork) byGroup(codes []uint8, groups, offset int) {
	for j := range groups {
		for b, v := range e.codes[j*encLanes:][:encLanes] {
			codes[b*groups+j] = uint8(int(v) + offset)
		}
	}
}

// positive is searchPositive for the scales or minimums of all super-blocks.
func (e *encWork) positive(codes []uint8, values, weights []float32, groups int, tries []float32) (d [encBatch]float32) {
	e.turn(&e.x, values, groups)
	e.turn(&e.w, weights, groups)
	e.lanes(func(x, w, codes, state *float32) {
		e.f.searchPositive(x, w, codes, state, groups, &tries[0], len(tries), int32(tries[0]))
	})
	e.byGroup(codes, groups, 0)
	return *e.row(stateScale)
}

// sigmas fills sigma2 with times the sum of squares of each block of size values over
// part, added in order, four blocks at a time.
func (e *encWork) sigmas(x []float32, size int, times, part float32) {
	n := len(x) / size
	b := 0
	for ; b+4 <= n; b += 4 {
		x0, x1, x2, x3 := x[b*size:][:size], x[(b+1)*size:][:size], x[(b+2)*size:][:size], x[(b+3)*size:][:size]
		var s0, s1, s2, s3 float32
		for i, v0 := range x0 {
			v1, v2, v3 := x1[i], x2[i], x3[i]
			s0 += float32(v0 * v0)
			s1 += float32(v1 * v1)
			s2 += float32(v2 * v2)
			s3 += float32(v3 * v3)
		}
		e.sigma2[b], e.sigma2[b+1], e.sigma2[b+2], e.sigma2[b+3] = s0, s1, s2, s3
	}
	for ; b < n; b++ {
		e.sigma2[b] = sumSquares(x[b*size:][:size])
	}
	for b := range n {
		e.sigma2[b] = times * e.sigma2[b] / part
	}
}

// batches calls f for each batch of blocks of src, of type t: their values and the
// bytes they become. columns is filled if there are weights.
func (e *encWork) batches(t format.Type, dst []byte, src []float32, cols int, weights []float32, f func(dst []byte, x []float32)) {
	block, size := t.BlockSize(), t.BlockBytes()
	e.block = block
	for at := 0; at < len(src); at += encBatch * superBlock {
		x := src[at:min(at+encBatch*superBlock, len(src))]
		if weights != nil {
			for i := 0; i < len(x); i += block {
				copy(e.columns[i:i+block], weights[(at+i)%cols:])
			}
		}
		f(dst[at/block*size:][:len(x)/block*size], x)
	}
}

// groups turns the values of a batch, sixteen groups of n at a time, calls f to
// search, and keeps what it found.
func (e *encWork) groups(x []float32, n int, weighted bool, f func()) {
	perBlock := e.block / n
	for g := 0; g < len(x)/n; g += encLanes {
		e.turn(&e.x, x[g*n:], n)
		if weighted {
			e.turn(&e.w, e.columns[g*n:len(x)], n)
			for l := range encLanes {
				e.row(stateSumX)[l] = e.sigma2[(g+l)/perBlock%len(e.sigma2)]
			}
		}
		f()
		copy(e.scales[g:], e.row(stateScale)[:])
		copy(e.mins[g:], e.row(stateLow)[:])
		copy(e.sums[g:], e.row(stateSumW)[:])
		copy(e.iscales[g:], e.row(stateIscale)[:])
		copy(e.ranges[g:], e.row(stateRange)[:])
	}
}

// finish gives all groups of x the codes of their stored scales and minimums, which
// scales and mins hold. low is the code that becomes 0. A group whose stored scale is zero keeps the
// codes of its search.
func (e *encWork) finish(x []float32, n, low, high int, searched bool) {
	groups := len(x) / n
	if !searched {
		for g, d := range e.scales[:groups] {
			if d == 0 {
				e.searched(x[g*n:][:n], g, low, high)
			}
		}
	}
	e.f.requantize(&e.bytes[0], &x[0], &e.scales[0], &e.mins[0], groups, n, float32(low), float32(high))
}

// searched writes the codes that the search of group g chose.
func (e *encWork) searched(x []float32, g, low, high int) {
	codes := e.bytes[g*len(x):][:len(x)]
	if e.iscales[g] == 0 {
		clear(codes)
		return
	}
	for i, v := range x {
		codes[i] = uint8(clampInt(nearestInt(e.iscales[g]*(v-e.ranges[g])), low, high) - low)
	}
}

// codesOf are the codes of super-block b.
func (e *encWork) codesOf(b int) *kCodes { return (*kCodes)(e.bytes[b*superBlock:]) }
