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

// Term is a product y[T, out] = x[T, in]·wᵀ, added to y when Acc is set, and u[T, r]·b[out, r]ᵀ
// added to that, if U has columns: the chain of each element goes on over those, as
// if a product of its own added them.
type Term struct {
	Y    Mat
	W    Weights
	Acc  bool
	U, B Mat
}

// MulNT is the forward product through frozen weights: y[T, out] = x[T, in]·wᵀ,
// added to y when acc is set. Each row of w is decoded once, whatever T is.
func MulNT(p *Pool, y, x Mat, w Weights, acc bool) {
	Float32.MulNTs(p, x, Term{Y: y, W: w, Acc: acc})
}

// MulNTs makes several products of one x, which costs less than one by one.
func MulNTs(p *Pool, x Mat, terms ...Term) { Float32.MulNTs(p, x, terms...) }

// MulNTs is [MulNTs] in the arithmetic c; the low-rank parts of terms are float32 in any.
func (c Compute) MulNTs(p *Pool, x Mat, terms ...Term) {
	x.check()
	outs := 0
	for i := range terms {
		t := &terms[i]
		out, in := t.W.Dims()
		if t.Y.Rows != x.Rows || t.Y.Cols != out || x.Cols != in ||
			t.U.Cols > 0 && (t.U.Rows != x.Rows || t.B.Rows != out || t.B.Cols != t.U.Cols) {
			panic("kernel: MulNT: shapes do not fit")
		}
		t.Y.check()
		t.U.check()
		t.B.check()
		outs += out
	}
	if x.Rows == 0 || outs == 0 {
		return
	}
	if x.Cols == 0 {
		for _, t := range terms {
			if !t.Acc {
				t.Y.Zero()
			}
			if t.U.Cols > 0 {
				GemmNT(p, t.Y, t.U, t.B, true)
			}
		}
		return
	}
	g := begin(p, c)
	defer g.end()
	g.terms = append(g.terms, terms...)
	g.to, g.a, g.ai, g.ak = g.terms[0], x, x.Stride, 1
	g.shape(x.Rows, outs, x.Cols)
	width := g.ts.width
	if g.direct(true) {
		panels := 0
		for i := range g.terms {
			panels += ceil(g.terms[i].Y.Cols, width)
		}
		g.loop(panels, stepNT)
		return
	}
	g.keep = true
	for _, t := range g.terms {
		g.to, g.n = t, t.Y.Cols
		nn := max(sharedFloats/g.k/width, minPanels) * width
		nn = ceil(ceil(g.n, ceil(g.n, nn)), width) * width
		for j0 := 0; j0 < g.n; j0 += nn {
			n := min(nn, g.n-j0)
			g.share(j0, n, 0, g.k, ceil(n, width), stepDecodeNT)
		}
	}
}

// decode makes the panel of n columns from j0 of wᵀ.
func (g *product) decode(s *scratch, w Weights, panel []float32, j0, n int) {
	rows := grow(&s.rows, decodeGroup*g.deep)
	for j := 0; j < n; j += decodeGroup {
		h := min(decodeGroup, n-j)
		w.DecodeRows(rows[:h*g.deep], j0+j)
		if g.pair > 1 {
			pairRows(rows, g.k, rows, g.deep, h, g.deep)
		}
		g.ts.packCols(panel, j, rows, g.k, g.k, h)
	}
	g.ts.zeroCols(panel, g.k, n)
}

// stepDecodeNT decodes a shared panel.
func stepDecodeNT(g *product, i int, s *scratch) {
	j := i * g.ts.width
	g.decode(s, g.to.W, g.right[j*g.kn:], g.j0+j, min(g.ts.width, g.nn-j))
}

// stepNT decodes a panel of one of the terms and multiplies all rows by it.
func stepNT(g *product, i int, s *scratch) {
	width, y := g.ts.width, &g.terms[0]
	for at := 1; i >= ceil(y.Y.Cols, width); at++ {
		i -= ceil(y.Y.Cols, width)
		y = &g.terms[at]
	}
	j0, n := i*width, min(width, y.Y.Cols-i*width)
	if g.m == 1 && n == width && g.ts.dots != nil {
		rows := grow(&s.rows, n*g.k)
		y.W.DecodeRows(rows, j0)
		g.ts.row(y.Y.Data[j0:], g.a.Data, rows, g.k, g.k, y.Acc)
		g.low(s, y, 0, 1, j0, n)
		return
	}
	panel := grow(&s.panel, g.k*width)
	g.decode(s, y.W, panel, j0, n)
	for k0 := 0; k0 < g.k; k0 += g.depth {
		g.rows(s, y, 0, g.m, j0, n, panel[k0*width:], width, k0, min(g.depth, g.k-k0))
	}
	g.low(s, y, 0, g.m, j0, n)
}

// MulNN is the backward product through frozen weights: dx[T, in] = dy[T, out]·w,
// added to dx when acc is set. Each row of w is decoded once, whatever T is.
func MulNN(p *Pool, dx, dy Mat, w Weights, acc bool) { Float32.MulNN(p, dx, dy, w, acc) }

// MulNN is [MulNN] in the arithmetic c.
func (c Compute) MulNN(p *Pool, dx, dy Mat, w Weights, acc bool) {
	out, in := w.Dims()
	if dx.Rows != dy.Rows || dy.Cols != out || dx.Cols != in {
		panic("kernel: MulNN: shapes do not fit")
	}
	dx.check()
	dy.check()
	g := begin(p, c)
	defer g.end()
	g.to.Y, g.to.W, g.to.Acc, g.a, g.ai, g.ak = dx, w, acc, dy, dy.Stride, 1
	if !g.shape(dy.Rows, in, out) {
		return
	}
	kn := max(sharedFloats/in, minDepth)
	kn = ceil(g.k, ceil(g.k, kn))
	for k0 := 0; k0 < g.k; k0 += kn {
		k := min(kn, g.k-k0)
		g.share(0, in, k0, k, ceil(k*g.pair, decodeGroup), stepDecodeNN)
	}
}

// stepDecodeNN decodes some rows of w and deals them out to the shared panels.
func stepDecodeNN(g *product, i int, s *scratch) {
	width := g.ts.width
	q := i * (decodeGroup / g.pair)
	first := (g.k0 + q) * g.pair
	h := min(decodeGroup, (g.k0+g.kn)*g.pair-first, g.deep-first)
	rows := grow(&s.rows, decodeGroup*g.n)[:h*g.n]
	g.to.W.DecodeRows(rows, first)
	for j := 0; j < g.n; j += width {
		if g.pair > 1 {
			n := min(width, g.n-j)
			pairColumns(g.right[j*g.kn+q*width:], width, rows[j:], g.n, h, n)
			continue
		}
		g.ts.packRows(g.right[j*g.kn+q*width:], rows[j:], g.n, h, min(width, g.n-j))
	}
}
