//go:build amd64 && !noasm

package quant

import (
	"math"

	"github.com/graft-lora/graft/internal/cpu"
)

// iq1Work is the scratch of the searches of IQ1 by the assembly, in the order of
// simd_enciq1_amd64.s.
//
//lint:ignore U1000 the assembly writes and reads what Go does not
type iq1Work struct {
	sumsX, sumsW     [96]float32 // prefix sums, each twice
	levels           [3][8]float32
	qx, q2           [8]float32
	scale            float32
	first, second    int32
	way              int32
	terms            iq1Vectors
	weights, values  [16]float32 // in order
	halves           [16]uint8
	ready, waysReady bool
	table            [2][3][8]float32 // the values by eight and level, for all ways twice
	_                [4]byte
}

// iq1Vectors are the terms of sixteen values, and sums of them.
//
//lint:ignore U1000 the assembly writes and reads it
type iq1Vectors struct {
	terms [16][3][8]float32
	mids  [20][8]float32
	sums  [20][17][8]float32
}

// cuts is [iq1Group.searchS] in assembly. done is false if the tier has none.
func (g *iq1Group) cuts(x []float32) (i1, i2 int, scale float32, minus, done bool) {
	if cpu.Current() == cpu.Generic {
		return 0, 0, 0, false, false
	}
	c := &g.cutWork
	if !c.ready {
		for i := range c.sumsW {
			c.sumsW[i] = float32(math.NaN())
		}
		for level := range c.levels {
			for i := range c.levels[level] {
				c.levels[level][i] = iq1Values[i&1][level]
			}
		}
		c.ready = true
	}
	var sumx, sumw float32
	c.sumsX[0], c.sumsX[1], c.sumsW[0], c.sumsW[1] = 0, 0, 0, 0
	for j, i := range g.order[:len(x)] {
		sumx += float32(g.weights[i] * x[i])
		sumw += g.weights[i]
		at := 2*j + 2
		c.sumsX[at], c.sumsX[at+1], c.sumsW[at], c.sumsW[at+1] = sumx, sumx, sumw, sumw
	}
	c.first, c.scale = -2, 0
	iq1Cuts(c, len(x))
	return int(c.first / 2), int(c.second / 2), c.scale, c.second&1 != 0, true
}

// ways is [iq1Group.searchM] in assembly. done is false if the tier has none.
func (g *iq1Group) ways(x []float32) (i1, i2 int, scale float32, way int, done bool) {
	if cpu.Current() == cpu.Generic {
		return 0, 0, 0, 0, false
	}
	c := &g.cutWork
	if !c.waysReady {
		for half := range c.table {
			for level := range c.table[half] {
				for i := range c.table[half][level] {
					c.table[half][level][i] = iq1Values[shiftOf(i&3, half)][level]
				}
			}
		}
		c.waysReady = true
	}
	for j, i := range g.order[:16] {
		c.weights[j], c.values[j], c.halves[j] = g.weights[i], x[i], i/8
	}
	c.first, c.scale = -1, 0
	iq1Ways(c, &c.terms, &c.weights[0], &c.values[0], &c.halves[0], &c.table[0][0][0])
	return int(c.first), int(c.second), c.scale, int(c.way), true
}

//go:noescape
func iq1Cuts(c *iq1Work, n int)

//go:noescape
func iq1Ways(c *iq1Work, t *iq1Vectors, w, x *float32, halves *uint8, table *float32)
