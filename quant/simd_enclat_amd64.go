//go:build amd64 && !noasm

package quant

import "github.com/graft-lora/graft/internal/cpu"

// latticeVector is what the assembly needs to know of a lattice, in the order of
// simd_enclat_amd64.h.
type latticeVector struct {
	// start says where in lists the candidates for packed levels begin: the number of
	// chunks of sixteen, that of chunks of eight, and the packed levels of each, filled up
	// to a whole chunk with the first. A point has one candidate, itself.
	start      *int32
	lists      *uint16
	dims, bits int
	_          [4]int
	shifts     [8]uint32
	tops       [8]uint32
	values     [16]float32
}

func (v *latticeVector) fill(l *lattice, packed []int) {
	start := make([]int32, len(l.index))
	var lists []uint16
	add := func(u int, candidates ...uint16) {
		n := len(candidates)
		start[u] = int32(len(lists))
		lists = append(lists, uint16((n+15)/16), uint16((n+7)/8))
		for i := range (n + 15) / 16 * 16 {
			c := candidates[0]
			if i < n {
				c = candidates[i]
			}
			lists = append(lists, uint16(packed[c]))
		}
	}
	for u, at := range l.index {
		if at >= 0 {
			add(u, uint16(at))
		} else if l.within(u) {
			add(u, l.candidates(u)...)
		}
	}
	*v = latticeVector{start: &start[0], lists: &lists[0], dims: l.dims, bits: l.bits}
	for i := range v.shifts {
		v.shifts[i], v.tops[i] = uint32(l.bits*(i%l.dims)), uint32(l.top)
	}
	for i := range v.values {
		v.values[i] = float32(2*(i&(1<<l.bits-1)) + 1)
	}
}

// latticeFuncs is the assembly of a tier.
type latticeFuncs struct {
	scan  func(t *latticeVector, x, w, values, scales *float32, u *uint32, count int)
	round func(t *latticeVector, x, ids *float32, count int, u *uint32, stride, n int)
	fit   func(t *latticeVector, wx, w *float32, u *uint32, stride, groups int, sumqx, sumq2 *float32, count int)
}

var latticeTiers = [...]latticeFuncs{
	cpu.AVX2:   {latticeScanAVX2, latticeRoundAVX2, latticeFitAVX2},
	cpu.AVX512: {latticeScanAVX512, latticeRoundAVX512, latticeFitAVX512},
}

// maxTries is as many tries as a search has at most, rounded up to vectors.
const maxTries = 32

// latticeWork is the scratch of a search by the assembly.
type latticeWork struct {
	ids, scales, sumqx, sumq2 [maxTries]float32
	wx                        [32]float32
	u, rounded                [8 * maxTries]uint32 // packed levels of each group, try by try
}

// search is [latticeGroup.search] in assembly: all tries are rounded, moved to points
// and summed before the best is chosen. done is false if the tier has no assembly.
func (v *latticeVector) search(l *lattice, g *latticeGroup, n int, top, scale float32, t latticeTries) (_ float32, done bool) {
	tier := cpu.Current()
	if tier == cpu.Generic {
		return 0, false
	}
	f, w := &latticeTiers[tier], &g.work
	groups, count := n/l.dims, 2*t.n+1
	highest := float32(2*l.top + 1)
	for i := range count {
		id := (highest + float32(float32(i-t.n)*t.step)) / top
		w.ids[i], w.scales[i] = id, 1/id
	}
	f.round(v, &g.x[0], &w.ids[0], count, &w.u[0], maxTries, n)
	if !t.always {
		w.rounded = w.u
	}
	for k := range groups {
		f.scan(v, &g.x[k*l.dims], &g.roots[k*l.dims], &v.values[0], &w.scales[0], &w.u[k*maxTries], count)
	}
	for i, x := range g.x[:n] {
		w.wx[i] = g.weights[i] * x
	}
	f.fit(v, &w.wx[0], &g.weights[0], &w.u[0], maxTries, groups, &w.sumqx[0], &w.sumq2[0], count)
	best, chosen := float32(0), -1
	for i := range count {
		if qx, q2 := w.sumqx[i], w.sumq2[i]; q2 > 0 && qx*qx > best*q2 {
			scale = qx / q2
			best = scale * qx
			chosen = i
		}
	}
	var moved [8]bool // those that lay on no point
	anyMoved := t.always || chosen < 0 && t.whole
	if chosen >= 0 {
		for k := range groups {
			at := k*maxTries + chosen
			l.unpack(g.levels[k*l.dims:], w.u[at])
			moved[k] = !t.always && w.u[at] != w.rounded[at]
			anyMoved = anyMoved || moved[k]
		}
	}
	if !anyMoved || !(scale > 0) {
		return scale, true
	}
	w.ids[0], w.scales[0] = 1/scale, scale
	f.round(v, &g.x[0], &w.ids[0], 1, &w.u[0], maxTries, n)
	for k := range groups {
		if moved[k] || t.always || t.whole {
			f.scan(v, &g.x[k*l.dims], &g.roots[k*l.dims], &v.values[0], &w.scales[0], &w.u[k*maxTries], 1)
			l.unpack(g.levels[k*l.dims:], w.u[k*maxTries])
		}
	}
	if sumqx, sumq2 := g.fit(g.levels[:n]); sumq2 > 0 {
		scale = sumqx / sumq2
	}
	return scale, true
}

// iq1Tables are iq1Values for sixteen levels.
var iq1Tables = func() (t [2][16]float32) {
	for shift, values := range iq1Values {
		for i := range t[shift] {
			t[shift][i] = values[min(i&3, 2)]
		}
	}
	return t
}()

// nearest gives the point nearest to x for packed levels, under a shift. done is false if
// the tier has no assembly.
func (w *latticeWork) nearest(l *lattice, u int, x, weights []float32, scale float32, shift int) (point int, done bool) {
	tier := cpu.Current()
	if tier == cpu.Generic {
		return 0, false
	}
	w.scales[0], w.u[0] = scale, uint32(u)
	latticeTiers[tier].scan(&l.vector, &x[0], &weights[0], &iq1Tables[shift][0], &w.scales[0], &w.u[0], 1)
	return int(l.index[w.u[0]]), true
}
