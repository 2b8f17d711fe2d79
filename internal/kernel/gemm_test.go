package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/graft-lora/graft/internal/cpu"
)

// tierLock keeps tests that force a tier apart; the others do not care which runs.
var tierLock sync.Mutex

// eachTier runs f once in each tier that this machine has.
func eachTier(t *testing.T, f func(t *testing.T)) {
	for _, tier := range cpu.Tiers() {
		t.Run(tier.String(), func(t *testing.T) {
			tierLock.Lock()
			defer tierLock.Unlock()
			defer cpu.Force(tier)()
			f(t)
		})
	}
}

const guard = 12345.678

// randMat makes a matrix with gap unused elements after each row, guard words in
// them, before the first and after the last. Some values are zero, huge or tiny.
func randMat(r *rand.Rand, rows, cols, gap int) (m Mat, whole []float32) {
	const before = 3
	stride := cols + gap
	whole = make([]float32, before+rows*stride+5)
	for i := range whole {
		whole[i] = guard
	}
	m = Mat{Data: whole[before : before+rows*stride], Rows: rows, Cols: cols, Stride: stride}
	if rows > 0 && cols > 0 { // as short as Mat allows
		m.Data = m.Data[: (rows-1)*stride+cols : (rows-1)*stride+cols]
	}
	for i := range rows {
		for j := range m.Row(i) {
			v := float32(r.NormFloat64())
			switch r.IntN(40) {
			case 0:
				v = 0
			case 1:
				v *= 1e18
			case 2:
				v *= 1e-30
			}
			m.Row(i)[j] = v
		}
	}
	return m, whole
}

// chain is one element of a product, as the package defines it.
func chain(s float32, k int, a, b func(q int) float32) float32 {
	for q := range k {
		s = FMA(a(q), b(q), s)
	}
	return s
}

// chain is one element of a product in how.
func (how Compute) chain(s float32, k int, a, b func(q int) float32) float32 {
	if how == Float32 {
		return chain(s, k, a, b)
	}
	round := func(f float32) float32 { return BF16Value(roundBF16(f)) }
	s = unsubnormal(s)
	for q := 0; q < k; q += 2 {
		for _, i := range []int{q + 1, q} {
			if i < k {
				s = unsubnormal(FMA(round(a(i)), round(b(i)), s))
			} else {
				s = unsubnormal(FMA(0, 0, s))
			}
		}
	}
	return s
}

// unsubnormal is f, but zero where it is subnormal.
func unsubnormal(f float32) float32 {
	if u := math.Float32bits(f); u&0x7f800000 == 0 {
		return math.Float32frombits(u & 0x80000000)
	}
	return f
}

// counted is a Weights that says how often each row was decoded.
type counted struct {
	Mat
	decoded []atomic.Int32
}

func (w *counted) DecodeRows(dst []float32, row int) {
	for i := range len(dst) / w.Cols {
		w.decoded[row+i].Add(1)
	}
	w.Mat.DecodeRows(dst, row)
}

// form is one of the five products, on operands given as a[m, k] and b[k, n].
type form struct {
	name         string
	turnA, turnB bool // how the operands lie
	run          func(how Compute, p *Pool, c, a, b Mat, acc bool)
	frozen       bool
	how          Compute
}

// formsOf are the products in an arithmetic.
func formsOf(how Compute) []form {
	return []form{
		{name: "GemmNN", run: Compute.GemmNN, how: how},
		{name: "GemmNT", turnB: true, run: Compute.GemmNT, how: how},
		{name: "GemmTN", turnA: true, run: Compute.GemmTN, how: how},
		{name: "MulNT", turnB: true, frozen: true, how: how},
		{name: "MulNN", frozen: true, how: how},
	}
}

// eachCompute runs f once in each tier and each arithmetic that this machine has there.
func eachCompute(t *testing.T, f func(t *testing.T, how Compute)) {
	eachTier(t, func(t *testing.T) {
		for _, how := range []Compute{Float32, BF16} {
			if how == BF16 && cpu.Current() != cpu.AVX512 {
				continue // is of that tier
			}
			t.Run(how.String(), func(t *testing.T) {
				if !how.Available() {
					t.Skip("the processor has no AVX512_BF16")
				}
				f(t, how)
			})
		}
	})
}

func at(m Mat, turned bool) func(i, j int) float32 {
	if turned {
		return func(i, j int) float32 { return m.Data[j*m.Stride+i] }
	}
	return func(i, j int) float32 { return m.Data[i*m.Stride+j] }
}

// checkProduct compares one product with the chains, bit for bit, and the guard
// words with what they were.
func checkProduct(t *testing.T, r *rand.Rand, p *Pool, f form, m, n, k int, acc bool) {
	t.Helper()
	name := fmt.Sprintf("%v %s %dx%dx%d acc=%v threads=%d", f.how, f.name, m, n, k, acc, p.Threads())
	ar, ac, br, bc := m, k, k, n
	if f.turnA {
		ar, ac = k, m
	}
	if f.turnB {
		br, bc = n, k
	}
	a, _ := randMat(r, ar, ac, r.IntN(4))
	b, _ := randMat(r, br, bc, r.IntN(4))
	c, whole := randMat(r, m, n, r.IntN(4))
	old := append([]float32(nil), whole...)
	const before = 3
	if f.frozen {
		w := &counted{Mat: b, decoded: make([]atomic.Int32, br)}
		if f.turnB {
			f.how.MulNTs(p, a, Term{Y: c, W: w, Acc: acc})
		} else {
			f.how.MulNN(p, c, a, w, acc)
		}
		for i := range w.decoded {
			if v := w.decoded[i].Load(); v > 1 || v == 0 && m > 0 && bc > 0 {
				t.Fatalf("%s: row %d was decoded %d times", name, i, v)
			}
		}
	} else {
		f.run(f.how, p, c, a, b, acc)
	}
	ea, eb := at(a, f.turnA), at(b, f.turnB)
	for i := range whole {
		want := old[i]
		row, col := (i-before)/max(c.Stride, 1), (i-before)%max(c.Stride, 1)
		if i >= before && row < m && col < n {
			s := want
			if !acc {
				s = 0
			}
			want = f.how.chain(s, k, func(q int) float32 { return ea(row, q) }, func(q int) float32 { return eb(q, col) })
		}
		if math.Float32bits(whole[i]) != math.Float32bits(want) && !(want != want && whole[i] != whole[i]) {
			t.Fatalf("%s: element %d (row %d, column %d) is %x, want %x", name, i, row, col, whole[i], want)
		}
	}
}

// TestProducts compares every form in every tier and arithmetic with the naive chain, bit
// for bit.
func TestProducts(t *testing.T) {
	pools := []*Pool{nil, NewPool(1), NewPool(2), NewPool(3), NewPool(4)}
	defer func() {
		for _, p := range pools {
			p.Close()
		}
	}()
	eachCompute(t, func(t *testing.T, how Compute) {
		r := rand.New(rand.NewPCG(3, 4))
		for _, f := range formsOf(how) {
			for l := range 131 { // each length in each place, the others small
				checkProduct(t, r, pools[r.IntN(5)], f, l, 1+r.IntN(5), 1+r.IntN(9), r.IntN(2) == 0)
				checkProduct(t, r, pools[r.IntN(5)], f, 1+r.IntN(14), l, 1+r.IntN(9), r.IntN(2) == 0)
				checkProduct(t, r, pools[r.IntN(5)], f, 1+r.IntN(3), 1+r.IntN(34), l, r.IntN(2) == 0)
			}
			for k := range 70 { // a single row
				checkProduct(t, r, pools[r.IntN(5)], f, 1, 60+r.IntN(10), k, k%2 == 0)
			}
			for range 15 {
				checkProduct(t, r, pools[r.IntN(5)], f, r.IntN(60), r.IntN(80), r.IntN(100), r.IntN(2) == 0)
			}
			for i, p := range pools { // packed on both sides, cut off everywhere
				checkProduct(t, r, p, f, 97+i, 150+i, 30+i, i%2 == 0)
			}
			checkProduct(t, r, pools[1], f, 40, 135, maxDepth+5, true)
			checkProduct(t, r, pools[2], f, 20, 20, maxDepth+6, false)
			checkProduct(t, r, pools[2], f, 300, 70, 40, true)
		}
	})
}

// TestBlocks runs products that take several blocks of each kind, and compares some
// elements with their chains.
func TestBlocks(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	eachCompute(t, func(t *testing.T, how Compute) {
		for _, s := range []struct{ m, n, k int }{
			{2, 9000, 150},   // MulNN: blocks of k
			{50, 2100, 600},  // all: blocks of columns or of k
			{700, 200, 4000}, // blocks of rows
		} {
			if cpu.Current() == cpu.Generic && s.m*s.n*s.k > 1e8 {
				continue // slow, and the same code
			}
			r := rand.New(rand.NewPCG(5, 6))
			a, b, c := NewMat(s.m, s.k), NewMat(s.k, s.n), NewMat(s.m, s.n)
			for _, m := range []Mat{a, b, c} {
				for i := range m.Data {
					m.Data[i] = r.Float32() - 0.5
				}
			}
			old := append([]float32(nil), c.Data...)
			for _, f := range formsOf(how) {
				copy(c.Data, old)
				a, b := a, b
				if f.turnA {
					a.Rows, a.Cols, a.Stride = s.k, s.m, s.m
				}
				if f.turnB {
					b.Rows, b.Cols, b.Stride = s.n, s.k, s.k
				}
				switch f.name {
				case "MulNT":
					how.MulNTs(p, a, Term{Y: c, W: b, Acc: true})
				case "MulNN":
					how.MulNN(p, c, a, b, true)
				default:
					f.run(how, p, c, a, b, true)
				}
				ea, eb := at(a, f.turnA), at(b, f.turnB)
				for n := range 400 {
					i, j := r.IntN(s.m), r.IntN(s.n)
					if n == 0 {
						i, j = s.m-1, s.n-1
					}
					want := how.chain(old[i*s.n+j], s.k, func(q int) float32 { return ea(i, q) }, func(q int) float32 { return eb(q, j) })
					if got := c.Row(i)[j]; got != want {
						t.Fatalf("%s %dx%dx%d: row %d, column %d is %x, want %x", f.name, s.m, s.n, s.k, i, j, got, want)
					}
				}
			}
		}
	})
}

func TestNoAllocation(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	x, _ := randMat(r, 70, 100, 0)
	y := NewMat(70, 90)
	wm, _ := randMat(r, 90, 100, 0)
	var w Weights = wm
	p := NewPool(2)
	defer p.Close()
	for _, p := range []*Pool{nil, p} {
		if n := testing.AllocsPerRun(20, func() {
			MulNT(p, y, x, w, false)
			MulNN(p, x, y, w, true)
			GemmNT(p, y, x, wm, false)
		}); n != 0 {
			t.Errorf("%d threads: %v allocations a round", p.Threads(), n)
		}
	}
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	p := NewPool(2)
	defer p.Close()
	m := func(r, c int) Mat { return NewMat(r, c) }
	for name, f := range map[string]func(){
		"shape":  func() { GemmNN(nil, m(2, 2), m(2, 3), m(2, 2), false) },
		"shapes": func() { MulNT(nil, m(2, 2), m(2, 3), m(3, 3), false) },
		"memory": func() {
			GemmNN(nil, Mat{Data: make([]float32, 3), Rows: 2, Cols: 2, Stride: 2}, m(2, 2), m(2, 2), false)
		},
		"nested": func() { p.For(2, func(int, int) { GemmNN(p, m(2, 2), m(2, 2), m(2, 2), false) }) },
		"sub":    func() { m(2, 2).Sub(0, 3, 0, 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
	var n atomic.Int32 // and the pool still works
	p.For(100, func(int, int) { n.Add(1) })
	if n.Load() != 100 {
		t.Errorf("%d calls of 100", n.Load())
	}
}
