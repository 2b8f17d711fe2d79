package kernel

const (
	// maxDepth is how far along k a panel is used before the next rows of c: a panel
	// of that depth and the rows of a that meet it stay near the core.
	maxDepth = 640
	// sharedDepth is the same for panels that all workers use, in jobs of so many rows that
	// their block of that depth, nearFloats elements, stays in the second-level cache while
	// all panels pass by. jobRows bounds them, a multiple of every tile's height. Jobs have
	// fewer rows where a worker would get fewer than jobsEach, so that all end together.
	sharedDepth = 800
	nearFloats  = 3 << 15
	jobRows     = 264
	jobsEach    = 12
	// leftRows is how many rows of the left matrix a job packs.
	leftRows = 48
	// edgeRows is how many rows of a panel cut off by the matrix's edge go through
	// the edge buffer at once: a multiple of every tile's height.
	edgeRows = 12
	// sharedFloats bounds the block of the right-hand matrix that all workers use at
	// once, 4 MiB, and twice it that of the left one; minPanels and minDepth are what
	// the former holds at least, whatever that takes, since each block costs a pass
	// over the left matrix or over c.
	sharedFloats = 1 << 20
	minPanels    = 16
	minDepth     = 64
	// directPanels, directRows, directK: up to so many panels, below so many rows or
	// so short a k, packing the left matrix costs more than it brings. Up to
	// packedFloats elements of it come from the caches fast enough when packed.
	directPanels = 4
	directRows   = 36
	directK      = 32
	packedFloats = 1 << 20
	// directDepth and thinDepth replace maxDepth where the left matrix is not packed,
	// the latter where a step of k touches lines that the next one does not.
	directDepth = 256
	thinDepth   = 128
	// smallProduct is the number of multiply-adds below which waking other workers
	// costs more than they bring; decoding an element counts as decodeWork of them.
	smallProduct = 1 << 18
	decodeWork   = 16
)

// scratch is the memory that one worker keeps between products: a panel and as many
// decoded rows, and for worker 0 the packed blocks of both matrices, each as large as
// the largest product so far needed.
type scratch struct {
	panel, rows, edge, low, left, right, turn []float32

	t   tile
	own product // of a call without a pool
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

// product is one call: c[m, n] (+)= a·b, with element (i, q) of a at i·ai + q·ak and
// element (q, j) of b at q·bk + j·bj, or b from w.
//
// A product goes directly where it can: each job makes one panel and runs over its
// rows of a, packed before where that pays. Where a is too large to stay near the
// cores, it goes block by block: kn along k from k0, nn columns from j0, mm rows from
// i0. All workers pack the two sides into left and right, then multiply.
type product struct {
	step func(g *product, i int, s *scratch) // job i
	pool *Pool
	s0   *scratch
	ts   *tiles
	pair int // elements of the matrices in one of k: 2 for bf16, see gemm_bf16.go

	to             Term   // what is made, or
	terms          []Term // what is made of one left matrix
	a, b           Mat
	ai, ak, bk, bj int
	m, n, k        int // k is in steps of the tiles: elements, or pairs
	deep           int // k in elements

	depth     int // of blocks of k within a job, chosen equal
	blockRows int // direct: rows of a job, of which there are blocks
	blocks    int

	k0, kn, j0, nn, i0, mm int       // the block
	left, right            []float32 // packed
	fill                   func(g *product, i int, s *scratch)
	fills                  int  // jobs that make right
	keep, kept             bool // the left block is to serve again; it is there
	panels, rowsEach       int  // of the block; of a job in it
	q0                     int  // how far along the block the jobs begin
}

// begin takes the pool, or scratch memory where there is none.
func begin(p *Pool, c Compute) *product {
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
	g.pool, g.s0, g.ts, g.pair = p, s, currentTiles(), 1
	if c == BF16 {
		g.ts, g.pair = bf16Tiles(), 2
	}
	return g
}

// end gives back what begin took, and forgets the caller's memory.
func (g *product) end() {
	p, s := g.pool, g.s0
	clear(g.terms)
	*g = product{terms: g.terms[:0]}
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

// shape sets the sizes, k being in elements of the matrices. It is false when there is
// nothing to multiply, after doing what is left to do.
func (g *product) shape(m, n, k int) bool {
	if m == 0 || n == 0 {
		return false
	}
	if k == 0 {
		if !g.to.Acc {
			g.to.Y.Zero()
		}
		return false
	}
	g.m, g.n, g.deep = m, n, k
	g.k = ceil(k, g.pair)
	g.deepen(g.k, maxDepth)
	return true
}

// deepen divides k elements into equal blocks of about most.
func (g *product) deepen(k, most int) {
	steps := ceil(k, most)
	g.depth = ceil(ceil(k, steps), 8) * 8
}

func ceil(a, b int) int { return (a + b - 1) / b }

// direct says whether the product goes panel by panel, and packs the left matrix if
// so and if it pays. alone means that a panel cannot be made twice, for several
// blocks of rows: then there must be enough for all workers.
func (g *product) direct(alone bool) bool {
	panels := ceil(g.n, g.ts.width)
	if threads := g.pool.Threads(); alone && threads > 1 && g.m >= directRows && panels < 4*threads {
		return false
	}
	if g.pair == 1 && (g.m < directRows || panels <= directPanels || g.k < directK) {
		g.deepen(g.k, directDepth)
		if g.ak != 1 || g.m <= 2*edgeRows {
			g.deepen(g.k, thinDepth)
		}
		return true
	}
	if g.m*g.k > packedFloats {
		return false
	}
	if g.ts.height > 0 {
		g.left = grow(&g.s0.left, g.m*g.k)
		g.mm, g.kn = g.m, g.k
		g.loop(ceil(g.m, leftRows), stepLeft)
	}
	return true
}

// loop runs jobs 0 to n-1.
func (g *product) loop(n int, step func(g *product, i int, s *scratch)) {
	g.step = step
	work := g.m * g.n * g.k
	if g.to.W != nil {
		work += decodeWork * g.n * g.k
	}
	if g.pool == nil || work < smallProduct {
		for i := range n {
			step(g, i, g.s0)
		}
		return
	}
	g.pool.loop(n, g.pool.step)
}

// rows computes rows r0 to r1 of the n columns from j0 of y over k elements from k0; b is
// that part of the panel, or of b itself, with bk elements from row to row. Where
// the left block is packed, r0 is the first row of a tile there; the last rows, that
// fill no tile, are taken from a.
func (g *product) rows(s *scratch, y *Term, r0, r1, j0, n int, b []float32, bk, k0, k int) {
	t, width := &s.t, g.ts.width
	t.b, t.bk, t.k = b, bk, k
	t.load = y.Acc || k0 > 0
	if t.step == 0 {
		t.ahead = b // which is near already
	}
	cut := n != width && n != g.ts.narrow
	for r := r0; r < r1; {
		h := r1 - r
		if g.left != nil && h >= g.ts.height {
			h = g.ts.height
			t.a, t.ai, t.ak = g.left[(r-g.i0)*g.kn+(k0-g.k0)*h:], 1, h
			t.ahead = t.ahead[min(k*t.step/4, len(t.ahead)):]
		} else {
			if cut {
				h = min(h, edgeRows)
			}
			if g.pair == 1 {
				t.a, t.ai, t.ak = g.a.Data[r*g.ai+k0*g.ak:], g.ai, g.ak
			} else {
				t.a, t.ai, t.ak = g.left[(r-g.i0)*g.kn+k0-g.k0:], g.kn, 1
			}
		}
		g.run(g.ts, s, y.Y.Data[r*y.Y.Stride+j0:], y.Y.Stride, h, n, cut)
		r += h
	}
}

// low goes on with the chains of the same rows and columns over those of u·bᵀ, if
// there is such a product.
func (g *product) low(s *scratch, y *Term, r0, r1, j0, n int) {
	rank, ts := y.U.Cols, g.ts
	if rank == 0 {
		return
	}
	if g.pair > 1 {
		ts = currentTiles()
	}
	width := ts.width
	t, panel := &s.t, grow(&s.low, rank*width)
	ts.packCols(panel, 0, y.B.Data[j0*y.B.Stride:], y.B.Stride, rank, n)
	ts.zeroCols(panel, rank, n)
	t.b, t.bk, t.k, t.load = panel, width, rank, true
	t.ahead, t.step = panel, 0
	cut := n != width && n != ts.narrow
	for r := r0; r < r1; {
		h := r1 - r
		if cut {
			h = min(h, edgeRows)
		}
		t.a, t.ai, t.ak = y.U.Data[r*y.U.Stride:], y.U.Stride, 1
		g.run(ts, s, y.Y.Data[r*y.Y.Stride+j0:], y.Y.Stride, h, n, cut)
		r += h
	}
}

// run runs a tile, through a buffer if it is cut.
func (g *product) run(ts *tiles, s *scratch, c []float32, ldc, h, n int, cut bool) {
	if cut {
		ts.cut(s, c, ldc, h, n)
		return
	}
	s.t.c, s.t.ldc = c, ldc
	ts.run(&s.t, h, n)
}

// cut runs a tile whose columns the edge of c cuts off, in a buffer.
func (ts *tiles) cut(s *scratch, c []float32, ldc, h, n int) {
	t, width := &s.t, ts.width
	edge := grow(&s.edge, edgeRows*width)
	if t.load {
		for i := range h {
			copy(edge[i*width:i*width+n], c[i*ldc:])
		}
	}
	t.c, t.ldc = edge, width
	ts.run(t, h, n)
	for i := range h {
		copy(c[i*ldc:i*ldc+n], edge[i*width:])
	}
}

// divide cuts c into blocks of rows for direct jobs, where it has few panels for its
// workers. The division depends on the number of threads, the result does not.
func (g *product) divide() (jobs int) {
	panels := ceil(g.n, g.ts.width)
	g.blocks, g.blockRows = 1, g.m
	if want := ceil(8*g.pool.Threads(), panels); g.pool.Threads() > 1 && want > 1 {
		g.blockRows = ceil(max(ceil(g.m, want), 4*edgeRows), edgeRows) * edgeRows
		g.blocks = ceil(g.m, g.blockRows)
	}
	return panels * g.blocks
}

// job gives the rows and columns of direct job i.
func (g *product) job(i int) (r0, r1, j0, n int) {
	j0 = i / g.blocks * g.ts.width
	r0 = i % g.blocks * g.blockRows
	return r0, min(r0+g.blockRows, g.m), j0, min(g.ts.width, g.n-j0)
}

// share multiplies by nn columns from j0 and kn along k from k0 of the right-hand
// matrix, whose panels the jobs of fill make.
func (g *product) share(j0, nn, k0, kn, fills int, fill func(g *product, i int, s *scratch)) {
	g.j0, g.nn, g.k0, g.kn, g.fills, g.fill = j0, nn, k0, kn, fills, fill
	g.panels = ceil(nn, g.ts.width)
	g.right = grow(&g.s0.right, g.panels*g.ts.width*kn)
	g.deepen(kn, sharedDepth)
	rows := ceil(g.m, jobRows)
	if g.ts.height > 0 {
		rows = min(rows, max(2*sharedFloats/kn/jobRows, 1))
		g.left = grow(&g.s0.left, min(rows*jobRows, g.m)*kn)
	}
	for g.i0 = 0; g.i0 < g.m; g.i0 += g.mm {
		g.mm = min(rows*jobRows, g.m-g.i0)
		lefts := 0
		if g.ts.height > 0 && !g.kept {
			lefts = ceil(g.mm, leftRows)
		}
		g.kept = g.keep && g.mm == g.m
		g.loop(g.fills+lefts, stepBoth)
		g.fills = 0
		most := min(nearFloats/g.depth, jobRows)
		g.rowsEach = ceil(g.mm, max(ceil(g.mm, most), ceil(jobsEach*g.pool.Threads(), g.panels)))
		g.rowsEach = max(ceil(g.rowsEach, edgeRows), 4) * edgeRows
		for g.q0 = 0; g.q0 < kn; g.q0 += g.depth {
			g.loop(ceil(g.mm, g.rowsEach)*g.panels, stepShared)
		}
	}
}

// stepBoth packs some of the left or of the right-hand side.
func stepBoth(g *product, i int, s *scratch) {
	if i < g.fills {
		g.fill(g, i, s)
		return
	}
	stepLeft(g, i-g.fills, s)
}

// stepLeft packs some rows of the left block.
func stepLeft(g *product, i int, s *scratch) {
	r, h := i*leftRows, g.ts.height
	if g.pair > 1 {
		g.pairLeft(s, r, min(r+leftRows, g.mm))
		return
	}
	for end := min(r+leftRows, g.mm); r+h <= end; r += h {
		g.ts.packLeft(g.left[r*g.kn:], g.a.Data[(g.i0+r)*g.ai+g.k0*g.ak:], g.ai, g.ak, g.kn)
	}
}

// stepShared multiplies some rows of the left block by a panel of the right one, over
// one depth of k.
func stepShared(g *product, i int, s *scratch) {
	r0 := g.i0 + i/g.panels*g.rowsEach
	r1 := min(r0+g.rowsEach, g.i0+g.mm)
	width := g.ts.width
	j := i % g.panels * width
	k := min(g.depth, g.kn-g.q0)
	next := (i + g.pool.Threads()) % g.panels * width
	s.t.ahead = g.right[next*g.kn+g.q0*width:]
	s.t.step = ceil(4*width, max((r1-r0)/edgeRows, 1))
	n := min(width, g.nn-j)
	g.rows(s, &g.to, r0, r1, g.j0+j, n, g.right[j*g.kn+g.q0*width:], width, g.k0+g.q0, k)
	if g.k0+g.q0+k == g.k {
		g.low(s, &g.to, r0, r1, g.j0+j, n)
	}
}

// gemm is the product of two matrices in memory.
func gemm(p *Pool, how Compute, c, a, b Mat, ai, ak, bk, bj, k int, acc bool) {
	c.check()
	a.check()
	b.check()
	g := begin(p, how)
	defer g.end()
	g.to.Y, g.to.Acc, g.a, g.b, g.ai, g.ak, g.bk, g.bj = c, acc, a, b, ai, ak, bk, bj
	if !g.shape(c.Rows, c.Cols, k) {
		return
	}
	if g.direct(false) {
		g.loop(g.divide(), stepGemm)
		return
	}
	nn := min(g.n, sharedFloats/(4*maxDepth)/g.ts.width*g.ts.width)
	kn := min(g.k, sharedFloats/nn)
	for j0 := 0; j0 < g.n; j0 += nn {
		for k0 := 0; k0 < g.k; k0 += kn {
			n := min(nn, g.n-j0)
			g.share(j0, n, k0, min(kn, g.k-k0), ceil(n, g.ts.width), stepPack)
		}
	}
}

// pack makes k elements from k0 of the panel of n columns from j0.
func (g *product) pack(s *scratch, panel []float32, j0, n, k0, k int) {
	if g.pair > 1 {
		g.packPairs(s, panel, j0, n, k0, k)
		return
	}
	if g.bj == 1 {
		g.ts.packRows(panel, g.b.Data[k0*g.bk+j0:], g.bk, k, n)
		return
	}
	g.ts.packCols(panel, 0, g.b.Data[j0*g.bj+k0:], g.bj, k, n)
	g.ts.zeroCols(panel, k, n)
}

// stepPack packs a shared panel.
func stepPack(g *product, i int, s *scratch) {
	j := i * g.ts.width
	g.pack(s, g.right[j*g.kn:], g.j0+j, min(g.ts.width, g.nn-j), g.k0, g.kn)
}

// stepGemm packs a panel, a block of k at a time, and multiplies. Where there are few
// rows, a panel of rows is used where it lies, and for a single one columns are too.
func stepGemm(g *product, i int, s *scratch) {
	r0, r1, j0, n := g.job(i)
	if g.m == 1 && g.ak == 1 && g.bk == 1 && n == g.ts.width && g.ts.dots != nil {
		g.ts.row(g.to.Y.Data[j0:], g.a.Data, g.b.Data[j0*g.bj:], g.bj, g.k, g.to.Acc)
		return
	}
	for k0 := 0; k0 < g.k; k0 += g.depth {
		k := min(g.depth, g.k-k0)
		b, bk := []float32(nil), g.ts.width
		if g.pair == 1 && g.bj == 1 && n == g.ts.width && r1-r0 <= 2*edgeRows {
			b, bk = g.b.Data[k0*g.bk+j0:], g.bk
			g.askAcross(&s.t, b, bk)
		} else {
			b = grow(&s.panel, g.depth*bk)
			g.pack(s, b, j0, n, k0, k)
		}
		g.rows(s, &g.to, r0, r1, j0, n, b, bk, k0, k)
	}
}

// askAcross makes the tile ask for what this worker is likely to read after b, a panel
// that is used where it lies, in steps too far apart for the processor to foresee.
func (g *product) askAcross(t *tile, b []float32, bk int) {
	t.ahead, t.step = b[min(g.ts.width*g.pool.Threads(), len(b)):], 4*bk
}
