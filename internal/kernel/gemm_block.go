package kernel

// scratch is the memory that one worker keeps between products: at most k·(width+16)
// float32s of the largest product so far, and for worker 0 the block that MulNN
// shares (see sharedFloats).
type scratch struct {
	panel, rows, shared []float32
	edge                []float32
	t                   tile
	own                 product // of a call without a pool
}

// spare holds the scratch of calls without a pool.
var spare = make(chan *scratch, 64)

// grow gives n elements of *buf, whose contents are not kept when it must be larger.
func grow(buf *[]float32, n int) []float32 {
	if cap(*buf) < n {
		*buf = make([]float32, n)
	}
	return (*buf)[:n]
}

const (
	// maxDepth is how far along k a panel is used before the next rows of c: a panel
	// of that depth and the rows of a that meet it stay in the first-level cache.
	maxDepth = 320
	// smallProduct is the number of multiply-adds below which waking other workers
	// costs more than they bring.
	smallProduct = 1 << 18
	// directRows is the number of rows of c up to which copying a panel costs more
	// than reading the right-hand matrix where it lies.
	directRows = 16
	// edgeRows is how many rows of a panel cut off by the matrix's edge go through
	// the edge buffer at once: a multiple of every tile's height.
	edgeRows = 12
)

// product is one call: c[m, n] (+)= a·b, with element (i, q) of a at i·ai + q·ak and
// element (q, j) of b at q·bk + j·bj, or b from w.
type product struct {
	step func(g *product, i int, s *scratch) // job i
	pool *Pool
	s0   *scratch
	ts   *tiles

	c, a, b        Mat
	ai, ak, bk, bj int
	w              Weights
	m, n, k        int
	acc            bool

	panels    int // of ts.width columns
	blocks    int // of rows, each blockRows
	blockRows int
	depth     int // of blocks of k, chosen equal

	k0, kn int // MulNN: the rows of w that are decoded now
	shared []float32
}

// begin takes the pool, or scratch memory where there is none.
func begin(p *Pool) *product {
	g, s := (*product)(nil), (*scratch)(nil)
	if p != nil {
		p.acquire()
		g, s = &p.product, p.scratch[0]
	} else {
		select {
		case s = <-spare:
		default:
			s = new(scratch)
		}
		g = &s.own
	}
	g.pool, g.s0, g.ts = p, s, currentTiles()
	return g
}

// end gives back what begin took, and forgets the caller's memory.
func (g *product) end() {
	p, s := g.pool, g.s0
	*g = product{}
	if p != nil {
		for _, s := range p.scratch {
			s.t = tile{}
		}
		p.release()
		return
	}
	s.t = tile{}
	select {
	case spare <- s:
	default:
	}
}

// shape sets the sizes and divides the work. The division depends on the number of
// threads, the result does not. It is false when there is nothing to multiply, after
// doing what is left to do.
func (g *product) shape(m, n, k int) bool {
	if m == 0 || n == 0 {
		return false
	}
	if k == 0 {
		if !g.acc {
			g.c.Zero()
		}
		return false
	}
	g.m, g.n, g.k = m, n, k
	g.panels = (n + g.ts.width - 1) / g.ts.width
	g.blocks, g.blockRows = 1, m
	steps := (k + maxDepth - 1) / maxDepth
	g.depth = (k + steps - 1) / steps
	return true
}

// divide cuts c into blocks of rows too, where it has few panels for its workers.
func (g *product) divide() {
	const minRows = 4 * edgeRows
	want := (8*g.pool.Threads() + g.panels - 1) / g.panels
	if g.pool.Threads() == 1 || want <= 1 {
		return
	}
	h := max((g.m+want-1)/want, minRows)
	g.blockRows = (h + edgeRows - 1) / edgeRows * edgeRows
	g.blocks = (g.m + g.blockRows - 1) / g.blockRows
}

// loop runs jobs 0 to n-1.
func (g *product) loop(n int, step func(g *product, i int, s *scratch)) {
	g.step = step
	if g.pool == nil || g.m*g.n*g.k < smallProduct {
		for i := range n {
			step(g, i, g.s0)
		}
		return
	}
	g.pool.loop(n, g.pool.step)
}

// job gives the rows and columns of job i of panels·blocks.
func (g *product) job(i int) (r0, r1, j0, n int) {
	j0 = i / g.blocks * g.ts.width
	r0 = i % g.blocks * g.blockRows
	return r0, min(r0+g.blockRows, g.m), j0, min(g.ts.width, g.n-j0)
}

// rows computes rows r0 to r1 of the n columns from j0 over k elements from k0; b is
// that part of the panel, or of b itself, with bk elements from row to row.
func (g *product) rows(s *scratch, r0, r1, j0, n int, b []float32, bk, k0, k int) {
	t, width := &s.t, g.ts.width
	t.a, t.ai, t.ak = g.a.Data[r0*g.ai+k0*g.ak:], g.ai, g.ak
	t.b, t.bk, t.k = b, bk, k
	t.load = g.acc || k0 > 0
	c, ldc := g.c.Data[r0*g.c.Stride+j0:], g.c.Stride
	if n == width || n == g.ts.narrow {
		t.c, t.ldc = c, ldc
		g.ts.run(t, r1-r0, n)
		return
	}
	edge := grow(&s.edge, edgeRows*width)
	a := t.a
	for h := r1 - r0; h > 0; h -= edgeRows {
		e := min(h, edgeRows)
		if t.load {
			for i := range e {
				copy(edge[i*width:i*width+n], c[i*ldc:])
			}
		}
		t.a, t.c, t.ldc = a, edge, width
		g.ts.run(t, e, n)
		for i := range e {
			copy(c[i*ldc:i*ldc+n], edge[i*width:])
		}
		if h > edgeRows {
			c, a = c[edgeRows*ldc:], a[edgeRows*g.ai:]
		}
	}
}

// gemm is the product of two matrices in memory.
func gemm(p *Pool, c, a, b Mat, ai, ak, bk, bj, k int, acc bool) {
	c.check()
	a.check()
	b.check()
	g := begin(p)
	defer g.end()
	g.c, g.a, g.b, g.ai, g.ak, g.bk, g.bj, g.acc = c, a, b, ai, ak, bk, bj, acc
	if g.shape(c.Rows, c.Cols, k) {
		g.divide()
		g.loop(g.panels*g.blocks, stepGemm)
	}
}

// stepGemm packs a panel, a block of k at a time, and multiplies.
func stepGemm(g *product, i int, s *scratch) {
	r0, r1, j0, n := g.job(i)
	width := g.ts.width
	for k0 := 0; k0 < g.k; k0 += g.depth {
		k := min(g.depth, g.k-k0)
		if g.bj == 1 && n == width && r1-r0 <= directRows {
			g.rows(s, r0, r1, j0, n, g.b.Data[k0*g.bk+j0:], g.bk, k0, k)
			continue
		}
		panel := grow(&s.panel, g.depth*width)[:k*width]
		if g.bj == 1 {
			packRows(panel, width, g.b.Data[k0*g.bk+j0:], g.bk, k, n)
		} else {
			g.ts.packCols(panel, 0, g.b.Data[j0*g.bj+k0:], g.bj, k, n)
			zeroCols(panel, width, k, n)
		}
		g.rows(s, r0, r1, j0, n, panel, width, k0, k)
	}
}
