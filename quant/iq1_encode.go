package quant

import (
	"encoding/binary"
	"math"
	"sync"

	"github.com/graft-lora/graft/internal/kernel"
)

// iq1Values are the three values under the shift upward and downward.
var iq1Values = [2][3]float32{
	{-1 + iq1Shift, iq1Shift, 1 + iq1Shift},
	{-1 - iq1Shift, -iq1Shift, 1 - iq1Shift},
}

// iq1Group is the search for 32 (IQ1_S) or 16 (IQ1_M) values that share a scale:
// sorted, they are cut in two places into those that become -1, 0 and 1, and every
// pair of cuts is tried.
type iq1Group struct {
	weights [32]float32
	order   [32]uint8 // of the values, ascending
	levels  [32]uint8
	index   [4]int // of the point of each eight
	work    latticeWork
	cutWork iq1Work
}

var iq1Groups = sync.Pool{New: func() any { return new(iq1Group) }}

// sort fills order; equal values stay in their order.
func (g *iq1Group) sort(x []float32) {
	for i, v := range x {
		j := i
		for ; j > 0 && x[g.order[j-1]] > v; j-- {
			g.order[j] = g.order[j-1]
		}
		g.order[j] = uint8(i)
	}
}

// cut gives the first i1 values in order the level 0, those to i2 the level 1 and
// the rest 2, or the reverse where the scale came out negative.
func (g *iq1Group) cut(n, i1, i2 int, reverse bool) {
	for j := range n {
		level := uint8(0)
		if j >= i1 {
			level++
		}
		if j >= i2 {
			level++
		}
		if reverse {
			level = 2 - level
		}
		g.levels[g.order[j]] = level
	}
}

// snap finds the point of the k-th eight of x, whose values are those of a shift: its
// levels, or the candidate with the least error. on says that the levels were one.
func (g *iq1Group) snap(l *lattice, x []float32, k int, scale float32, shift int) (on bool) {
	levels := g.levels[8*k:][:8]
	u := l.pack(levels)
	if i := l.index[u]; i >= 0 {
		g.index[k] = int(i)
		return true
	}
	x, weights := x[8*k:][:8], g.weights[8*k:][:8]
	if best, done := g.work.nearest(l, u, x, weights, scale, shift); done {
		copy(levels, l.points[best][:])
		g.index[k] = best
		return false
	}
	best, least, values := -1, float32(math.MaxFloat32), &iq1Values[shift]
	for _, n := range l.candidates(u) {
		var d2 float32
		for i, p := range l.points[n] {
			diff := float32(scale*values[p]) - x[i]
			d2 += float32(weights[i] * diff * diff)
		}
		if d2 < least {
			best, least = int(n), d2
		}
	}
	if best < 0 {
		best = int(l.candidates(u)[0])
	}
	copy(levels, l.points[best][:])
	g.index[k] = best
	return false
}

// addFit adds weight*q*x and weight*q*q over an eight whose values q are those of
// its point times factor.
func (g *iq1Group) addFit(sumqx, sumq2 *float32, x []float32, k int, p *[8]uint8, values *[3]float32, factor float32) {
	x, weights := x[8*k:][:8], g.weights[8*k:][:8]
	for i, level := range p {
		w, q := weights[i], values[level]*factor
		*sumqx += float32(w * q * x[i])
		*sumq2 += float32(w * q * q)
	}
}

func encodeIQ1S(dst []byte, row, columns []float32) {
	g := iq1Groups.Get().(*iq1Group)
	defer iq1Groups.Put(g)
	var scales [8]float32
	var down [8]bool
	l := lattice1()
	for ; len(row) > 0; row, columns, dst = row[superBlock:], columns[superBlock:], dst[iq1SBytes:] {
		clear(dst[:iq1SBytes])
		sigma2 := 2 * sumSquares(row[:superBlock]) / superBlock
		var top float32
		for ib := range scales {
			x := row[32*ib:][:32]
			importance(g.weights[:], x, columns[32*ib:], sigma2)
			scales[ib], down[ib] = 0, false
			if _, amax := extreme(x); amax < 1e-12 {
				continue
			}
			g.sort(x)
			i1, i2, scale, minus := g.searchS(x)
			if i1 < 0 {
				continue
			}
			g.cut(32, i1, i2, scale < 0)
			if scale < 0 {
				scale, minus = -scale, !minus
			}
			shift := 0
			if minus {
				shift = 1
			}
			on := true
			for k := range 4 {
				on = g.snap(l, x, k, scale, shift) && on
			}
			if !on {
				var sumqx, sumq2 float32
				for k := range 4 {
					g.addFit(&sumqx, &sumq2, x, k, &l.points[g.index[k]], &iq1Values[shift], 1)
				}
				if sumqx > 0 && sumq2 > 0 {
					scale = sumqx / sumq2
				}
			}
			var high uint16
			for k, p := range g.index {
				dst[2+4*ib+k] = uint8(p)
				high |= uint16(p>>8) << (3 * k)
			}
			binary.LittleEndian.PutUint16(dst[34+2*ib:], high)
			scales[ib], down[ib] = scale, minus
			top = max(top, scale)
		}
		if top == 0 {
			continue
		}
		d := top / 15
		putHalf(dst, d*1.125)
		for ib, s := range scales {
			code := oddCode(s, 1/d, 7)
			if down[ib] {
				code |= 8
			}
			dst[35+2*ib] |= uint8(code << 4)
		}
	}
}

// searchS tries all cuts of 32 values under both shifts. i1 is -1 if none is any
// good. minus says that the shift is downward.
func (g *iq1Group) searchS(x []float32) (i1, i2 int, scale float32, minus bool) {
	if i1, i2, scale, minus, done := g.cuts(x); done {
		return i1, i2, scale, minus
	}
	const n = 32
	var sumx, sumw [n + 1]float32
	for j := range n {
		i := g.order[j]
		sumx[j+1] = sumx[j] + float32(g.weights[i]*x[i])
		sumw[j+1] = sumw[j] + g.weights[i]
	}
	i1, i2 = -1, -1
	best := float32(-math.MaxFloat32)
	for a := 0; a <= n; a++ {
		for b := a; b <= n; b++ {
			x0, x1, x2 := sumx[a]-sumx[0], sumx[b]-sumx[a], sumx[n]-sumx[b]
			w0, w1, w2 := sumw[a]-sumw[0], sumw[b]-sumw[a], sumw[n]-sumw[b]
			for s := range iq1Values {
				v := &iq1Values[s]
				sumqx := float32(x0*v[0]) + float32(x1*v[1]) + float32(x2*v[2])
				sumq2 := float32(w0*v[0]*v[0]) + float32(w1*v[1]*v[1]) + float32(w2*v[2]*v[2])
				if sumq2 > 0 && sumqx*sumqx > best*sumq2 {
					scale = sumqx / sumq2
					best = scale * sumqx
					i1, i2, minus = a, b, s == 1
				}
			}
		}
	}
	return i1, i2, scale, minus
}

// iq1Sums are the sums of a search under the four ways to shift two eights: both
// upward, the first only, the second only, none. They hold weight*q*x, then weight*q*q.
type iq1Sums [8]float32

// iq1Terms are what a value adds to the sums at one level.
type iq1Terms [3]iq1Sums

func (s *iq1Sums) add(t *iq1Sums) {
	for i := range s {
		s[i] += t[i]
	}
}

// shiftOf gives the shift of the k-th eight under the way to shift.
func shiftOf(way, k int) int { return way >> (1 - k) & 1 }

// searchM tries all cuts of 16 values under the four ways to shift; see searchS.
func (g *iq1Group) searchM(x []float32) (i1, i2 int, scale float32, way int) {
	if i1, i2, scale, way, done := g.ways(x); done {
		return i1, i2, scale, way
	}
	const n = 16
	var terms [n]iq1Terms
	for j := range n {
		i := int(g.order[j])
		w, v := g.weights[i], x[i]
		for level := range 3 {
			for way := range 4 {
				q := iq1Values[shiftOf(way, i/8)][level]
				terms[j][level][way] = w * q * v
				terms[j][level][4+way] = w * q * q
			}
		}
	}
	i1, i2 = -1, -1
	best := float32(-math.MaxFloat32)
	// The sums are chains along the order, so those before a cut are shared.
	var low iq1Sums
	for a := 0; a <= n; a++ {
		mid := low
		for b := a; b <= n; b++ {
			sums := mid
			for j := b; j < n; j++ {
				sums.add(&terms[j][2])
			}
			for k := range 4 {
				if qx, q2 := sums[k], sums[4+k]; q2 > 0 && qx*qx > best*q2 {
					scale = qx / q2
					best = scale * qx
					i1, i2, way = a, b, k
				}
			}
			if b < n {
				mid.add(&terms[b][1])
			}
		}
		if a < n {
			low.add(&terms[a][0])
		}
	}
	return i1, i2, scale, way
}

// iq1MShifts are the shift bits of the two eights, by the way to shift.
var iq1MShifts = [4]uint8{0x00, 0x80, 0x08, 0x88}

func encodeIQ1M(dst []byte, row, columns []float32) {
	g := iq1Groups.Get().(*iq1Group)
	defer iq1Groups.Put(g)
	var scales [16]float32
	var ways [16]int
	var points [16][2]int
	l := lattice1()
	for ; len(row) > 0; row, columns, dst = row[superBlock:], columnsFrom(columns, superBlock), dst[iq1MBytes:] {
		clear(dst[:iq1MBytes])
		sigma2 := 2 * sumSquares(row[:superBlock]) / superBlock
		var top float32
		for ib := range scales {
			x := row[16*ib:][:16]
			g.weighM(x, columnsFrom(columns, 16*ib), sigma2)
			scales[ib], ways[ib], points[ib] = 0, 0, [2]int{}
			if _, amax := extreme(x); amax < 1e-7 {
				continue
			}
			g.sort(x)
			i1, i2, scale, way := g.searchM(x)
			if i1 < 0 {
				continue
			}
			g.cut(16, i1, i2, scale < 0)
			if scale < 0 {
				scale, way = -scale, 3-way
			}
			on := true
			for k := range 2 {
				on = g.snap(l, x, k, scale, shiftOf(way, k)) && on
			}
			if !on {
				var sumqx, sumq2 float32
				for k := range 2 {
					g.addFit(&sumqx, &sumq2, x, k, &l.points[g.index[k]], &iq1Values[shiftOf(way, k)], 1)
				}
				if sumqx > 0 && sumq2 > 0 {
					scale = sumqx / sumq2
				}
			}
			for k := range 2 {
				points[ib][k] = g.index[k]
			}
			scales[ib], ways[ib] = scale, way
			top = max(top, scale)
		}
		if top == 0 {
			continue
		}
		d := top / 15
		id := 1 / d
		var words [4]uint16
		var sumqx, sumq2 float32
		for ib, s := range scales {
			code := oddCode(s, id, 7)
			way := ways[ib]
			words[ib/4] |= uint16(code) << (3 * (ib & 3))
			x := row[16*ib:][:16]
			g.weighM(x, columnsFrom(columns, 16*ib), sigma2)
			for k, p := range points[ib] {
				dst[2*ib+k] = uint8(p)
				dst[32+ib] |= uint8(p>>8) << (4 * k)
				g.addFit(&sumqx, &sumq2, x, k, &l.points[p], &iq1Values[shiftOf(way, k)], float32(2*code+1))
			}
			dst[32+ib] |= iq1MShifts[way]
		}
		if sumq2 > 0 {
			d = sumqx / sumq2
		}
		h := kernel.F16Bits(d * 1.1125)
		for i, w := range words {
			binary.LittleEndian.PutUint16(dst[48+2*i:], w|h>>(4*i)&15<<12)
		}
	}
}

// overflowedIQ1M says that the scattered scale is not finite.
func overflowedIQ1M(block []byte) bool { return iq1MScale(block[48:])&0x7c00 == 0x7c00 }

// weighM fills the weights of 16 values: squares without importance.
func (g *iq1Group) weighM(x, columns []float32, sigma2 float32) {
	if columns != nil {
		importance(g.weights[:], x, columns, sigma2)
		return
	}
	for i, v := range x {
		g.weights[i] = v * v
	}
}
