package quant

import (
	"math"
	"sync"
)

// lattice is a list of points with what the encoders need to find the best one for
// a group of values.
type lattice struct {
	dims, bits int
	top        int          // the highest level a group is rounded to
	points     [][8]uint8   // levels; four of them in lattices of four dimensions
	odd        [][8]float32 // the levels as values, 2*level + 1
	// index is, for levels packed into a number, the point they are, or -1-n for
	// levels that are no point: near[n] is the number of points that come into
	// question, which follow it.
	index []int32
	near  []uint16
	// vector is what the assembly needs to know of it.
	vector latticeVector
}

// The lattices of the encoders, built when first used. shells is how many of the
// nearest distances a point may have to come into question.
var (
	lattice2XXS = sync.OnceValue(func() *lattice { return newLattice(points2XXS, 2, 2, 2) })
	lattice2XS  = sync.OnceValue(func() *lattice { return newLattice(points2XS, 2, 2, 2) })
	lattice2S   = sync.OnceValue(func() *lattice { return newLattice(points2S, 2, 2, 1) })
	lattice1    = sync.OnceValue(func() *lattice { return newLattice(points1, 2, 2, 3) })
	lattice3XXS = sync.OnceValue(func() *lattice { return newLattice(points3XXS, 3, 7, 2) })
	lattice3S   = sync.OnceValue(func() *lattice { return newLattice(points3S, 3, 7, 3) })
)

func newLattice[P [4]uint8 | [8]uint8](points []P, bits, top, shells int) *lattice {
	l := &lattice{dims: len(points[0]), bits: bits, top: top}
	packed := make([]int, len(points))
	l.index = make([]int32, 1<<(bits*l.dims))
	for i := range l.index {
		l.index[i] = -1
	}
	for i, p := range points {
		var levels [8]uint8
		var odd [8]float32
		for j := range l.dims {
			levels[j], odd[j] = p[j], float32(2*int(p[j])+1)
			packed[i] |= int(p[j]) << (bits * j)
		}
		l.points, l.odd = append(l.points, levels), append(l.odd, odd)
		l.index[packed[i]] = int32(i)
	}
	l.findNear(packed, shells)
	l.vector.fill(l, packed)
	return l
}

// findNear fills near for all levels up to top that are no point, in the order of
// distance and then of the list.
func (l *lattice) findNear(packed []int, shells int) {
	halfBits := l.bits * l.dims / 2
	halves := l.halfDistances(halfBits)
	mask := 1<<halfBits - 1
	dist := make([]uint16, len(packed))
	for u, at := range l.index {
		if at >= 0 || !l.within(u) {
			continue
		}
		low, high := halves[u&mask], halves[u>>halfBits]
		var count [512]uint16
		for j, p := range packed {
			dist[j] = uint16(low[p&mask]) + uint16(high[p>>halfBits])
			count[dist[j]]++
		}
		l.index[u] = -1 - int32(len(l.near))
		start := len(l.near)
		l.near = append(l.near, 0)
		for d, shell := 0, 0; d < len(count) && shell < shells; d++ {
			if count[d] == 0 {
				continue
			}
			shell++
			for j, dj := range dist {
				if int(dj) == d {
					l.near = append(l.near, uint16(j))
				}
			}
		}
		l.near[start] = uint16(len(l.near) - start - 1)
	}
}

// within says whether no packed level of u is above top.
func (l *lattice) within(u int) bool {
	for ; u != 0; u >>= l.bits {
		if u&(1<<l.bits-1) > l.top {
			return false
		}
	}
	return true
}

// halfDistances gives the squared distances between all halves of packed levels.
func (l *lattice) halfDistances(halfBits int) [][]uint8 {
	t := make([][]uint8, 1<<halfBits)
	for a := range t {
		t[a] = make([]uint8, 1<<halfBits)
		for b := range t[a] {
			var d int
			for s := 0; s < halfBits; s += l.bits {
				diff := a>>s&(1<<l.bits-1) - b>>s&(1<<l.bits-1)
				d += diff * diff
			}
			t[a][b] = uint8(d)
		}
	}
	return t
}

// pack gives the number that stands for levels.
func (l *lattice) pack(levels []uint8) (u int) {
	for i, v := range levels[:l.dims] {
		u |= int(v) << (l.bits * i)
	}
	return u
}

// unpack is the inverse of pack.
func (l *lattice) unpack(levels []uint8, u uint32) {
	for i := range levels[:l.dims] {
		levels[i] = uint8(u >> (l.bits * i) & (1<<l.bits - 1))
	}
}

// candidates are the points that come into question for packed levels that are none.
func (l *lattice) candidates(u int) []uint16 {
	at := -1 - l.index[u]
	return l.near[at+1:][:l.near[at]]
}

// point gives the index of levels that are a point.
func (l *lattice) point(levels []uint8) int {
	u := l.pack(levels)
	if i := l.index[u]; i >= 0 {
		return int(i)
	}
	// Levels that a search left are points; where sums overflowed they may not be.
	if l.within(u) {
		return int(l.candidates(u)[0])
	}
	return 0
}

// snap rounds a group of magnitudes to levels under the scale 1/id, and moves them to the best point if
// they are none; on says that they were one. weights are the roots of the weights.
func (l *lattice) snap(levels []uint8, x, weights []float32, id, scale float32) (on bool) {
	u := 0
	for i, v := range x {
		q := clampInt(nearestInt(0.5*(float32(id*v)-1)), 0, l.top)
		levels[i] = uint8(q)
		u |= q << (l.bits * i)
	}
	if l.index[u] >= 0 {
		return true
	}
	best, least := -1, float32(math.MaxFloat32)
	weights = weights[:len(x)]
	for _, n := range l.candidates(u) {
		odd := l.odd[n][:len(x)]
		var d2 float32
		for i, v := range x {
			diff := float32(scale*odd[i]) - v
			d2 += float32(weights[i] * diff * diff)
		}
		if d2 < least {
			best, least = int(n), d2
		}
	}
	if best < 0 {
		best = int(l.candidates(u)[0])
	}
	copy(levels[:l.dims], l.points[best][:])
	return false
}

// latticeGroup is the search for the scale and the points of the 16 or 32 values
// that share a scale.
type latticeGroup struct {
	x, weights, roots [32]float32 // magnitudes, weights and their square roots
	levels, try       [32]uint8
	signs             [4]uint8 // of each eight values
	work              latticeWork
}

var latticeGroups = sync.Pool{New: func() any { return new(latticeGroup) }}

// load takes values and their weights. With even, the number of signs in each eight is made even,
// by turning that of the value that weighs least.
func (g *latticeGroup) load(x []float32, even bool) {
	for k := 0; k < len(x); k += 8 {
		var s uint8
		flips := 0
		for i, v := range x[k : k+8] {
			if v >= 0 {
				g.x[k+i] = v
			} else {
				g.x[k+i] = -v
				s |= 1 << i
				flips++
			}
		}
		if even {
			if flips&1 != 0 {
				least := 0
				low := g.weights[k] * x[k] * x[k]
				for i := 1; i < 8; i++ {
					if a := g.weights[k+i] * x[k+i] * x[k+i]; a < low {
						low, least = a, i
					}
				}
				g.x[k+least] = -g.x[k+least]
				s ^= 1 << least
			}
			s &= 127
		}
		g.signs[k/8] = s
	}
}

// latticeTries says how a lattice search goes about it.
type latticeTries struct {
	n    int     // tries to either side
	step float32 // between them, in levels
	// always refines all groups at the end; otherwise only those that lay on no
	// point. whole refines all as soon as there is one such.
	always, whole bool
}

// search finds levels and scale for the first n values, of which top is to become
// the highest level. scale is the one to start from.
func (g *latticeGroup) search(l *lattice, n int, top, scale float32, t latticeTries) float32 {
	if scale, done := l.vector.search(l, g, n, top, scale, t); done {
		return scale
	}
	var offGrid, tryOff [8]bool
	if t.always || t.whole {
		offGrid = [8]bool{true, true, true, true, true, true, true, true}
	}
	best := float32(0)
	highest := float32(2*l.top + 1)
	groups := n / l.dims
	for is := -t.n; is <= t.n; is++ {
		id := (highest + float32(float32(is)*t.step)) / top
		scaleTry := 1 / id
		for k := range groups {
			a := k * l.dims
			tryOff[k] = !l.snap(g.try[a:], g.x[a:a+l.dims], g.roots[a:], id, scaleTry)
		}
		sumqx, sumq2 := g.fit(g.try[:n])
		if sumq2 > 0 && sumqx*sumqx > best*sumq2 {
			scale = sumqx / sumq2
			best = scale * sumqx
			copy(g.levels[:n], g.try[:n])
			offGrid = tryOff
			if t.always {
				offGrid = [8]bool{true, true, true, true, true, true, true, true}
			}
		}
	}
	anyOff := false
	for _, off := range offGrid[:groups] {
		anyOff = anyOff || off
	}
	if anyOff && scale > 0 {
		id := 1 / scale
		for k := range groups {
			if offGrid[k] || t.whole {
				a := k * l.dims
				l.snap(g.levels[a:], g.x[a:a+l.dims], g.roots[a:], id, scale)
			}
		}
		if sumqx, sumq2 := g.fit(g.levels[:n]); sumq2 > 0 {
			scale = sumqx / sumq2
		}
	}
	return scale
}

// fit sums weight*x*q and weight*q*q over the values q of levels.
func (g *latticeGroup) fit(levels []uint8) (sumqx, sumq2 float32) {
	for i, l := range levels {
		w, q := g.weights[i], float32(2*int(l)+1)
		sumqx += float32(w * g.x[i] * q)
		sumq2 += float32(w * q * q)
	}
	return sumqx, sumq2
}

// largest is the largest of the first n magnitudes.
func (g *latticeGroup) largest(n int) float32 {
	top := g.x[0]
	for _, v := range g.x[1:n] {
		top = max(top, v)
	}
	return top
}

// turn makes a negative scale positive and turns the signs, those of mask.
func (g *latticeGroup) turn(scale float32, mask uint8) float32 {
	if scale >= 0 {
		return scale
	}
	for k := range g.signs {
		g.signs[k] = ^g.signs[k] & mask
	}
	return -scale
}

// oddCode rounds a scale to a code 0 to top that stands for 2*code + 1 units of 1/id.
func oddCode(scale, id float32, top int) int {
	return clampInt(nearestInt(0.5*(float32(id*scale)-1)), 0, top)
}
