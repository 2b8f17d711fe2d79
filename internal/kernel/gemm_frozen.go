package kernel

// decodeGroup is the number of rows that are decoded at once: those whose transpose
// fills whole cache lines.
const decodeGroup = 16

// sharedFloats bounds the decoded block of MulNN: 4 MiB, or 64 rows of w where those
// are more.
const sharedFloats = 1 << 20

// MulNT is the forward product through frozen weights: y[T, out] = x[T, in]·wᵀ,
// added to y when acc is set. Each row of w is decoded once, whatever T is: a worker
// decodes the rows of one panel and uses them for all rows of x.
func MulNT(p *Pool, y, x Mat, w Weights, acc bool) {
	out, in := w.Dims()
	if y.Rows != x.Rows || y.Cols != out || x.Cols != in {
		panic("kernel: MulNT: shapes do not fit")
	}
	y.check()
	x.check()
	g := begin(p)
	defer g.end()
	g.c, g.a, g.ai, g.ak, g.w, g.acc = y, x, x.Stride, 1, w, acc
	if g.shape(x.Rows, out, in) {
		g.loop(g.panels, stepNT)
	}
}

// stepNT decodes the rows of w that make one panel of wᵀ and multiplies.
func stepNT(g *product, i int, s *scratch) {
	r0, r1, j0, n := g.job(i)
	width := g.ts.width
	panel := grow(&s.panel, g.k*width)
	rows := grow(&s.rows, decodeGroup*g.k)
	for j := 0; j < n; j += decodeGroup {
		h := min(decodeGroup, n-j)
		g.w.DecodeRows(rows[:h*g.k], j0+j)
		g.ts.packCols(panel, j, rows, g.k, g.k, h)
	}
	zeroCols(panel, width, g.k, n)
	for k0 := 0; k0 < g.k; k0 += g.depth {
		g.rows(s, r0, r1, j0, n, panel[k0*width:], width, k0, min(g.depth, g.k-k0))
	}
}

// MulNN is the backward product through frozen weights: dx[T, in] = dy[T, out]·w,
// added to dx when acc is set. Each row of w is decoded once, whatever T is: all
// workers decode a block of rows into shared panels, then all multiply.
func MulNN(p *Pool, dx, dy Mat, w Weights, acc bool) {
	out, in := w.Dims()
	if dx.Rows != dy.Rows || dy.Cols != out || dx.Cols != in {
		panic("kernel: MulNN: shapes do not fit")
	}
	dx.check()
	dy.check()
	g := begin(p)
	defer g.end()
	g.c, g.a, g.ai, g.ak, g.w, g.acc = dx, dy, dy.Stride, 1, w, acc
	if !g.shape(dy.Rows, in, out) {
		return
	}
	g.divide()
	across := g.panels * g.ts.width
	most := max(sharedFloats/across, 64)
	steps := (g.k + most - 1) / most
	block := (g.k + steps - 1) / steps
	g.shared = grow(&g.s0.shared, across*block)
	for g.k0 = 0; g.k0 < g.k; g.k0 += block {
		g.kn = min(block, g.k-g.k0)
		g.loop((g.kn+decodeGroup-1)/decodeGroup, stepDecode)
		g.loop(g.panels*g.blocks, stepNN)
	}
}

// stepDecode decodes some rows of w and deals them out to the panels.
func stepDecode(g *product, i int, s *scratch) {
	width := g.ts.width
	q := i * decodeGroup
	h := min(decodeGroup, g.kn-q)
	rows := grow(&s.rows, h*g.n)
	g.w.DecodeRows(rows, g.k0+q)
	for j := range g.panels {
		j0 := j * width
		packRows(g.shared[(j*g.kn+q)*width:], width, rows[j0:], g.n, h, min(width, g.n-j0))
	}
}

// stepNN multiplies by one shared panel.
func stepNN(g *product, i int, s *scratch) {
	r0, r1, j0, n := g.job(i)
	width := g.ts.width
	panel := g.shared[j0*g.kn : (j0+width)*g.kn]
	for q := 0; q < g.kn; q += g.depth {
		g.rows(s, r0, r1, j0, n, panel[q*width:], width, g.k0+q, min(g.depth, g.kn-q))
	}
}
