package kernel

// decodeGroup is the number of rows that are decoded at once: those whose transpose
// fills whole cache lines.
const decodeGroup = 16

// Weights is a frozen matrix of float32 values, rows (outputs) by cols (inputs),
// that may be held in any form. Its methods may be called from several goroutines
// at once.
type Weights interface {
	// Dims gives the numbers of rows and columns.
	Dims() (rows, cols int)
	// DecodeRows fills dst, whose length is a multiple of cols, with the rows from
	// row on. It must not keep dst.
	DecodeRows(dst []float32, row int)
}

// MulNT is the forward product through frozen weights: y[T, out] = x[T, in]·wᵀ,
// added to y when acc is set. Each row of w is decoded once, whatever T is.
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
	if !g.shape(x.Rows, out, in) {
		return
	}
	width := g.ts.width
	if g.direct(true) {
		g.loop(ceil(out, width), stepNT)
		return
	}
	nn := max(sharedFloats/in/width, minPanels) * width
	nn = ceil(ceil(out, ceil(out, nn)), width) * width
	for j0 := 0; j0 < out; j0 += nn {
		n := min(nn, out-j0)
		g.share(j0, n, 0, in, ceil(n, width), stepDecodeNT)
	}
}

// decode makes the panel of n columns from j0 of wᵀ.
func (g *product) decode(s *scratch, panel []float32, j0, n int) {
	rows := grow(&s.rows, decodeGroup*g.k)
	for j := 0; j < n; j += decodeGroup {
		h := min(decodeGroup, n-j)
		g.w.DecodeRows(rows[:h*g.k], j0+j)
		g.ts.packCols(panel, j, rows, g.k, g.k, h)
	}
	g.ts.zeroCols(panel, g.k, n)
}

// stepDecodeNT decodes a shared panel.
func stepDecodeNT(g *product, i int, s *scratch) {
	j := i * g.ts.width
	g.decode(s, g.right[j*g.kn:], g.j0+j, min(g.ts.width, g.nn-j))
}

// stepNT decodes a panel and multiplies all rows by it.
func stepNT(g *product, i int, s *scratch) {
	width := g.ts.width
	j0, n := i*width, min(width, g.n-i*width)
	if g.m == 1 && n == width && g.ts.dots != nil {
		rows := grow(&s.rows, n*g.k)
		g.w.DecodeRows(rows, j0)
		g.ts.row(g.c.Data[j0:], g.a.Data, rows, g.k, g.k, g.acc)
		return
	}
	panel := grow(&s.panel, g.k*width)
	g.decode(s, panel, j0, n)
	for k0 := 0; k0 < g.k; k0 += g.depth {
		g.rows(s, 0, g.m, j0, n, panel[k0*width:], width, k0, min(g.depth, g.k-k0))
	}
}

// MulNN is the backward product through frozen weights: dx[T, in] = dy[T, out]·w,
// added to dx when acc is set. Each row of w is decoded once, whatever T is.
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
	kn := max(sharedFloats/in, minDepth)
	kn = ceil(out, ceil(out, kn))
	for k0 := 0; k0 < out; k0 += kn {
		k := min(kn, out-k0)
		g.share(0, in, k0, k, ceil(k, decodeGroup), stepDecodeNN)
	}
}

// stepDecodeNN decodes some rows of w and deals them out to the shared panels.
func stepDecodeNN(g *product, i int, s *scratch) {
	width := g.ts.width
	q := i * decodeGroup
	h := min(decodeGroup, g.kn-q)
	rows := grow(&s.rows, decodeGroup*g.n)[:h*g.n]
	g.w.DecodeRows(rows, g.k0+q)
	for j := 0; j < g.n; j += width {
		g.ts.packRows(g.right[j*g.kn+q*width:], rows[j:], g.n, h, min(width, g.n-j))
	}
}
