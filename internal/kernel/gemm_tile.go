package kernel

import "math"

// tile is one call of the innermost kernels: h rows of c, one panel wide,
//
//	for i := range h { for j := range width {
//		s := load ? c[i*ldc+j] : 0
//		for q := range k { s = fma(a[i*ai+q*ak], b[q*bk+j], s) }
//		c[i*ldc+j] = s
//	} }
//
// with k at least 1. Strides are in elements. The layout is known to the assembly.
type tile struct {
	c, a, b     []float32
	ldc, ai, ak int
	bk, k       int
	load        bool
	// ahead is what the next tiles are going to read and is far away, as yet; a tile
	// that asks for it goes step bytes on for each step of k.
	ahead []float32
	step  int
}

// drop moves t down by h rows.
func (t *tile) drop(h int) {
	t.c = t.c[min(h*t.ldc, len(t.c)):]
	t.a = t.a[min(h*t.ai, len(t.a)):]
}

// tiles is the set of innermost kernels of a tier.
type tiles struct {
	width  int // columns of a panel
	narrow int // the other number of columns that run takes; 0 if none
	height int // rows of the tallest tile; 0 if packing the left matrix brings nothing
	group  int // columns that turn makes
	// run does h rows of the panel's first n columns, n being width or narrow.
	// Elsewhere n may be less, and then run writes up to width columns.
	run func(t *tile, h, n int)
	// turn writes the transpose of 4·quads columns of group rows of src, a row of
	// group elements every width elements of dst; copy copies k rows of width
	// elements to rows that touch. The same for the left matrix, with height
	// elements to the row.
	turn, turnLeft func(dst, src []float32, stride, quads int)
	copy, copyLeft func(dst, src []float32, stride, k int)
	// dots continues in y, from zero unless load is set, the products of x with width
	// rows, over 4·quads elements, quads being at least 1; nil if there is none.
	dots func(y, x, rows []float32, stride, quads int, load bool)
}

// row is a tile of one row, without a panel: y is x times width rows of k elements.
func (ts *tiles) row(y, x, rows []float32, stride, k int, load bool) {
	whole := k &^ 3
	if whole > 0 {
		ts.dots(y, x, rows, stride, k/4, load)
	} else if !load {
		clear(y[:ts.width])
	}
	for j := range y[:ts.width] {
		for q := whole; q < k; q++ {
			y[j] = FMA(x[q], rows[j*stride+q], y[j])
		}
	}
}

var genericTiles = tiles{width: 16, run: runGeneric}

// runGeneric is the reference. Each lane is FMA, written out since it is too large
// for the compiler to inline; the running sums are float32 values held as float64.
func runGeneric(t *tile, h, _ int) {
	for i := range h {
		c := t.c[i*t.ldc:][:16]
		var s [16]float64
		if t.load {
			for j, v := range c {
				s[j] = float64(v)
			}
		}
		for q := range t.k {
			x := float64(t.a[i*t.ai+q*t.ak])
			b := t.b[q*t.bk:][:16]
			for j := range s {
				p := x * float64(b[j])
				if v := p + s[j]; math.Float64bits(v)<<36 != 0 { // exact: p is
					s[j] = float64(float32(v))
				} else {
					s[j] = float64(addOdd(p, s[j]))
				}
			}
		}
		for j := range c {
			c[j] = float32(s[j])
		}
	}
}
