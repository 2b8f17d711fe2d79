package merge

import (
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// columnSystem is, for each of some rows, the problem of choosing a change x of the scale and m of
// the minimum of every place (a sub-block, or a block), each from a set of its own, so that
//
//	xᵀ G x - 2 bᵀ x
//
// is small, all numbers together being x. They are coupled through few directions,
//
//	G_vw = z_v·z_w + what v and w have in common if they are of one place
//
// and G is never formed. Rows lie side by side, as columns of the matrices.
//
// What a scale and the minimum of its place have in common is taken out first (ready): with slope
// as the part of a scale that does in the own part what one of the minimum does, the variables
// are x + slope·m and m, which share nothing but directions.
type columnSystem struct {
	places, k           int
	min                 bool
	scale2, both, min2  kernel.Mat // places x lanes: the own part; after ready min2 is without both
	b, bMin             kernel.Mat // places x lanes
	z, zMin             kernel.Mat // places·k x lanes
	down, downMin       kernel.Mat // places x lanes: -1 / G_vv; 0 where the variable stays
	downBoth            kernel.Mat // places x lanes: the same of m with x as it is
	slope               kernel.Mat // places x lanes
	x, m                kernel.Mat // places x lanes: with x as x + slope·m
	from, fromMin       kernel.Mat // places x lanes: x alone and m before anything is changed
	u                   kernel.Mat // k x lanes: the sum of the z by their variables
	ones, push, by, byM kernel.Mat // 1 x lanes
	now, lean           kernel.Mat // 1 x lanes
	ok                  []bool
	core                kernel.Mat // k·k x lanes
	root, inner, sum    kernel.Mat // k x lanes
	all                 []*kernel.Mat
}

func (y *columnSystem) open(places, k, lanes int, min bool) {
	y.places, y.k, y.min = places, k, min
	add := func(rows int, ms ...*kernel.Mat) {
		for _, m := range ms {
			*m = kernel.NewMat(rows, lanes)
			y.all = append(y.all, m)
		}
	}
	add(places, &y.scale2, &y.b, &y.down, &y.x, &y.from)
	add(places*k, &y.z)
	add(k, &y.u, &y.root, &y.inner, &y.sum)
	add(k*k, &y.core)
	add(1, &y.ones, &y.push, &y.by, &y.byM, &y.now, &y.lean)
	for i := range y.ones.Data {
		y.ones.Data[i] = 1
	}
	if min {
		add(places, &y.both, &y.min2, &y.bMin, &y.downMin, &y.downBoth, &y.slope, &y.m, &y.fromMin)
		add(places*k, &y.zMin)
	}
}

// narrow makes the matrices so wide.
func (y *columnSystem) narrow(lanes int) {
	for _, m := range y.all {
		m.Cols, m.Stride, m.Data = lanes, lanes, m.Data[:m.Rows*lanes]
	}
}

// scales and mins are the directions of a place's variables.
func (y *columnSystem) scales(p int) kernel.Mat { return y.z.Sub(p*y.k, (p+1)*y.k, 0, y.z.Cols) }
func (y *columnSystem) mins(p int) kernel.Mat {
	return y.zMin.Sub(p*y.k, (p+1)*y.k, 0, y.zMin.Cols)
}

// start sets changes and u to zero.
func (y *columnSystem) start() {
	for _, m := range []*kernel.Mat{&y.from, &y.fromMin, &y.u} {
		clear(m.Data)
	}
}

// ready makes the system ready for changes from from and fromMin on, with u as these have it. A
// scale that does what its minimum does, or nothing, stays, and so does what stays says.
func (y *columnSystem) ready(rows int, stays func(p, r int, min bool) bool) {
	for p := range y.places {
		z, square := y.scales(p), y.push.Data
		clear(square)
		kernel.DotColumns(square, z, z)
		down, a, x := y.down.Row(p), y.scale2.Row(p), y.x.Row(p)
		copy(x, y.from.Row(p))
		if !y.min {
			for r, a := range a {
				down[r] = 0
				if r < rows && a > 0 && !stays(p, r, false) {
					down[r] = -1 / (a + square[r])
				}
			}
			continue
		}
		both, min2, slope, b, bMin := y.both.Row(p), y.min2.Row(p), y.slope.Row(p), y.b.Row(p), y.bMin.Row(p)
		m := y.m.Row(p)
		copy(m, y.fromMin.Row(p))
		for r, a := range a {
			c := both[r]
			down[r], slope[r] = 0, 0
			if r < rows && float64(a)*float64(min2[r])*(1-1e-4) > float64(c)*float64(c) && !stays(p, r, false) {
				down[r], slope[r] = -1/(a+square[r]), c/a
				min2[r] -= float32(c * slope[r])
				bMin[r] -= float32(slope[r] * b[r])
				x[r] += float32(slope[r] * m[r])
			} else {
				bMin[r] -= float32(c * x[r])
			}
		}
		kernel.Scale(y.by.Data, -1, slope)
		zMin := y.mins(p)
		kernel.AxpyColumns(zMin, y.by.Data, z)
		clear(square)
		kernel.DotColumns(square, zMin, zMin)
		cross := y.by.Data
		clear(cross)
		kernel.DotColumns(cross, z, zMin)
		downMin, downBoth := y.downMin.Row(p), y.downBoth.Row(p)
		for r, d := range min2 {
			downMin[r], downBoth[r] = 0, 0
			if r < rows && d > 0 && !stays(p, r, true) {
				d += square[r]
				downMin[r], downBoth[r] = -1/d, -1/d
				if s := slope[r]; s != 0 {
					downBoth[r] = -1 / (d + float32(s*(float32(2*cross[r])-float32(s/down[r]))))
				}
			}
		}
	}
}

// frameSweeps is how often every variable is brought to its best value, given all others, after
// they were solved for: they were in float32, through a sum that is large in few directions.
const frameSweeps = 1

// relax brings the variables near to the best there are, whatever the sets.
func (y *columnSystem) relax() {
	y.newton()
	for range frameSweeps {
		y.each(func(z kernel.Mat, own, x, b, down []float32) {
			kernel.Add(x, y.better(z, own, x, b, down))
			kernel.AxpyColumns(y.u, y.push.Data, z)
		})
	}
}

// each visits the variables.
func (y *columnSystem) each(f func(z kernel.Mat, own, x, b, down []float32)) {
	for p := range y.places {
		if y.min {
			f(y.mins(p), y.min2.Row(p), y.m.Row(p), y.bMin.Row(p), y.downMin.Row(p))
		}
		f(y.scales(p), y.scale2.Row(p), y.x.Row(p), y.b.Row(p), y.down.Row(p))
	}
}

// newton changes the variables by what solves for them. With the own parts as C, the z as
// the rows of Z and the gradient g, that is
//
//	-C⁻¹g + C⁻¹Z (1 + ZᵀC⁻¹Z)⁻¹ ZᵀC⁻¹g
//
// (Woodbury).
func (y *columnSystem) newton() {
	clear(y.core.Data)
	clear(y.inner.Data)
	inverse, f := y.by.Data, y.byM.Data
	y.each(func(z kernel.Mat, own, x, b, down []float32) {
		reciprocals(inverse, own, down)
		g := y.gradient(z, own, x, b)
		kernel.Mul(f, inverse, g)
		kernel.AxpyColumns(y.inner, f, z)
		kernel.SquareColumns(y.core, inverse, z)
	})
	y.throughCore()
	y.each(func(z kernel.Mat, own, x, b, down []float32) {
		reciprocals(inverse, own, down)
		// What the gradient is without the others is still in b and x: u is added to afterwards.
		g := y.gradient(z, own, x, b)
		kernel.Scale(g, -1, g)
		kernel.DotColumns(g, z, y.inner)
		kernel.Mul(g, g, inverse)
		kernel.Add(x, g)
		kernel.AxpyColumns(y.sum, g, z)
	})
	kernel.Add(y.u.Data, y.sum.Data)
	clear(y.sum.Data)
}

// reciprocals are 1/x, but for variables that stay.
func reciprocals(dst, x, down []float32) {
	for r, v := range x {
		dst[r] = 0
		if down[r] != 0 {
			dst[r] = 1 / v
		}
	}
}

// throughCore solves (1 + core) inner' = inner in place, by Cholesky's factors. Of core only what is below the diagonal and on it
// is used, and overwritten.
func (y *columnSystem) throughCore() {
	k, lanes := y.k, y.u.Cols
	t := y.push.Data
	row := func(i, to int) kernel.Mat { return y.core.Sub(i*k, i*k+to, 0, lanes) }
	for i := range k {
		for j := range i + 1 {
			l := y.core.Row(i*k + j)
			kernel.Scale(l, -1, l)
			kernel.DotColumns(l, row(i, j), row(j, j))
			if j < i {
				kernel.Mul(l, l, y.root.Row(j))
				kernel.Scale(l, -1, l)
				continue
			}
			root := y.root.Row(i)
			for r, v := range l {
				root[r] = float32(1 / math.Sqrt(max(1, 1-float64(v)))) // 1 and more, but for rounding
			}
		}
	}
	for i := range k {
		v := y.inner.Row(i)
		kernel.Scale(t, -1, v)
		kernel.DotColumns(t, row(i, i), y.inner.Sub(0, i, 0, lanes))
		kernel.Scale(t, -1, t)
		kernel.Mul(v, t, y.root.Row(i))
	}
	for i := k - 1; i >= 0; i-- {
		v := y.inner.Row(i)
		kernel.Scale(t, -1, v)
		if i+1 < k {
			column := kernel.Mat{Data: y.core.Data[((i+1)*k+i)*lanes:], Rows: k - i - 1, Cols: lanes, Stride: k * lanes}
			kernel.DotColumns(t, column, y.inner.Sub(i+1, k, 0, lanes))
		}
		kernel.Scale(t, -1, t)
		kernel.Mul(v, t, y.root.Row(i))
	}
}

// gradient is half of what the cost rises by with one more of a variable.
func (y *columnSystem) gradient(z kernel.Mat, own, x, b []float32) []float32 {
	g := y.push.Data
	kernel.Mul(g, own, x)
	kernel.Sub(g, g, b)
	kernel.DotColumns(g, z, y.u)
	return g
}

// better is by how much a variable is to be changed to be at its best.
func (y *columnSystem) better(z kernel.Mat, own, x, b, down []float32) []float32 {
	g := y.gradient(z, own, x, b)
	kernel.Mul(g, g, down)
	return g
}

// cost is what the variables as they are cost each row.
func (y *columnSystem) cost(sum []float64) {
	g := y.push.Data
	clear(g)
	kernel.DotColumns(g, y.u, y.u)
	for r := range sum {
		sum[r] = float64(g[r])
	}
	add := func(own, x, b []float32) {
		for r := range sum {
			v := float64(x[r])
			sum[r] += float64(v * (float64(float64(own[r])*v) - float64(2*float64(b[r]))))
		}
	}
	for p := range y.places {
		add(y.scale2.Row(p), y.x.Row(p), y.b.Row(p))
		if y.min {
			add(y.min2.Row(p), y.m.Row(p), y.bMin.Row(p))
		}
	}
}

// numbers are the sets that the variables are of.
type numbers interface {
	// scales and mins bring changes of a place, of all rows, to the next that its numbers can have.
	scales(p int, x []float32)
	mins(p int, m []float32)
	// fits finds whether a place of each row may change by x and m.
	fits(p int, x, m []float32, ok []bool)
}

// round moves every variable to a number of its set next to its best value, given all others;
// those that come later make up for the rounding of those before. Further sweeps look at all once
// more. A place whose new numbers do not fit stays as it was.
func (y *columnSystem) round(rows, sweeps int, set numbers) {
	for sweep := range sweeps {
		for p := y.places - 1; p >= 0; p-- {
			if y.min {
				y.roundMin(p, rows, set, sweep == 0)
			}
			y.roundScale(p, rows, set)
		}
	}
}

// roundMin rounds the minimum of a place for a scale that makes up for it, or else for the scale
// that there is.
func (y *columnSystem) roundMin(p, rows int, set numbers, free bool) {
	m, down, by, slope := y.m.Row(p), y.downMin.Row(p), y.by.Data, y.slope.Row(p)
	g := y.byM.Data
	copy(g, y.gradient(y.mins(p), y.min2.Row(p), m, y.bMin.Row(p)))
	if !free {
		kernel.MulAdd(g, slope, y.gradient(y.scales(p), y.scale2.Row(p), y.x.Row(p), y.b.Row(p)))
		down = y.downBoth.Row(p)
	}
	kernel.Mul(g, g, down)
	kernel.Add(g, m)
	set.mins(p, g)
	clear(by)
	for r, v := range g[:rows] {
		if down[r] != 0 && v-v == 0 {
			by[r] = v - m[r]
			m[r] = v
		}
	}
	kernel.AxpyColumns(y.u, by, y.mins(p))
	if !free {
		kernel.Mul(by, by, slope)
		kernel.Add(y.x.Row(p), by)
		kernel.AxpyColumns(y.u, by, y.scales(p))
	}
}

func (y *columnSystem) roundScale(p, rows int, set numbers) {
	x, from, down, by, byM := y.x.Row(p), y.from.Row(p), y.down.Row(p), y.by.Data, y.byM.Data
	g := y.better(y.scales(p), y.scale2.Row(p), x, y.b.Row(p), down)
	now, lean := y.now.Data, y.lean.Data
	var m, fromMin, slope []float32
	if y.min {
		m, fromMin, slope = y.m.Row(p), y.fromMin.Row(p), y.slope.Row(p)
		kernel.Mul(lean, slope, m)
	}
	kernel.Sub(now, x, lean) // as it is, without what makes up for the minimum
	kernel.Add(g, now)
	set.scales(p, g)
	for r, v := range g[:rows] {
		if down[r] != 0 && v-v == 0 {
			now[r] = v
		}
	}
	y.ok = append(y.ok[:0], make([]bool, rows)...)
	set.fits(p, now, m, y.ok)
	clear(byM)
	back := false
	for r, ok := range y.ok {
		if ok {
			continue
		}
		now[r] = from[r]
		if y.min {
			byM[r] = fromMin[r] - m[r]
			m[r] = fromMin[r]
			lean[r] = float32(slope[r] * m[r])
			back = true
		}
	}
	kernel.Add(now, lean)
	kernel.Sub(by, now, x)
	copy(x, now)
	kernel.AxpyColumns(y.u, by, y.scales(p))
	if back {
		kernel.AxpyColumns(y.u, byM, y.mins(p))
	}
}

// changes are those of the scales and the minimums of a place; they are overwritten with the next call.
func (y *columnSystem) changes(p int) (x, m []float32) {
	x = y.now.Data
	if !y.min {
		copy(x, y.x.Row(p))
		return x, nil
	}
	m = y.m.Row(p)
	kernel.Mul(x, y.slope.Row(p), m)
	kernel.Sub(x, y.x.Row(p), x)
	return x, m
}

// back takes the changes of a row back.
func (y *columnSystem) back(r int) {
	for p := range y.places {
		y.x.Row(p)[r] = y.from.Row(p)[r]
		if y.min {
			m := y.fromMin.Row(p)[r]
			y.m.Row(p)[r] = m
			y.x.Row(p)[r] += float32(y.slope.Row(p)[r] * m)
		}
	}
}

// solve does it all: the changes are the best that were found, or none in rows where these are
// no better.
func (y *columnSystem) solve(rows, sweeps int, set numbers, stays func(p, r int, min bool) bool) {
	before, after := make([]float64, rows), make([]float64, rows)
	y.ready(rows, stays)
	y.cost(before)
	y.relax()
	y.round(rows, sweeps, set)
	y.cost(after)
	for r := range rows {
		if !(after[r] < before[r]) {
			y.back(r)
		}
	}
}
