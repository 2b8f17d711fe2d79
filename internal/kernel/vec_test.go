package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/cpu"
)

// A rowOp runs an operation over rows of n elements. a are six rows, of which it may
// overwrite any; b are 2n bytes; what it returns besides is compared too.
type rowOp struct {
	name string
	run  func(a [6][]float32, b []byte) float64
}

var rowOps = []rowOp{
	{"Dot", func(a [6][]float32, b []byte) float64 { return float64(Dot(a[0], a[1])) }},
	{"SumSquares", func(a [6][]float32, b []byte) float64 { return float64(SumSquares(a[0])) }},
	{"Sum", func(a [6][]float32, b []byte) float64 { return float64(Sum(a[0])) }},
	{"SumSquares64", func(a [6][]float32, b []byte) float64 { return SumSquares64(a[0]) }},
	{"Dot64", func(a [6][]float32, b []byte) float64 { return Dot64(a[0], a[1]) }},
	{"MaxVal", func(a [6][]float32, b []byte) float64 { return float64(MaxVal(a[0])) }},
	{"ArgMax", func(a [6][]float32, b []byte) float64 { return float64(ArgMax(a[0])) }},
	{"Add", func(a [6][]float32, b []byte) float64 { Add(a[0], a[1]); return 0 }},
	{"Sub", func(a [6][]float32, b []byte) float64 { Sub(a[0], a[1], a[2]); return 0 }},
	{"Mul", func(a [6][]float32, b []byte) float64 { Mul(a[0], a[1], a[2]); return 0 }},
	{"Scale", func(a [6][]float32, b []byte) float64 { Scale(a[0], 1.37, a[1]); return 0 }},
	{"Axpy", func(a [6][]float32, b []byte) float64 { Axpy(a[0], -0.71, a[1]); return 0 }},
	{"VecExp", func(a [6][]float32, b []byte) float64 { VecExp(a[0], a[1]); return 0 }},
	{"VecSigmoid", func(a [6][]float32, b []byte) float64 { VecSigmoid(a[0], a[0]); return 0 }},
	{"VecTanh", func(a [6][]float32, b []byte) float64 { VecTanh(a[0], a[1]); return 0 }},
	{"SumExp", func(a [6][]float32, b []byte) float64 { return float64(SumExp(a[0], a[1], 0.5)) }},
	{"Softmax", func(a [6][]float32, b []byte) float64 { Softmax(a[0], a[1]); return 0 }},
	{"SoftmaxBackward", func(a [6][]float32, b []byte) float64 { SoftmaxBackward(a[0], a[1], a[2]); return 0 }},
	{"LogSumExp", func(a [6][]float32, b []byte) float64 { return float64(LogSumExp(a[0])) }},
	{"CrossEntropy", func(a [6][]float32, b []byte) float64 {
		if len(a[0]) == 0 {
			return 0
		}
		return float64(CrossEntropy(a[0], a[1], len(a[1])/2, 0.25))
	}},
	{"RMSNorm", func(a [6][]float32, b []byte) float64 { return float64(RMSNorm(a[0], a[1], a[2], 1e-5)) }},
	{"RMSNorm ones", func(a [6][]float32, b []byte) float64 { return float64(RMSNorm(a[0], a[0], nil, 1e-5)) }},
	{"RMSNormBackward", func(a [6][]float32, b []byte) float64 {
		RMSNormBackward(a[0], a[1], a[2], a[3], 0.7, false)
		return 0
	}},
	{"RMSNormBackward acc ones", func(a [6][]float32, b []byte) float64 {
		RMSNormBackward(a[0], a[1], a[2], nil, 0.7, true)
		return 0
	}},
	{"SiLUMul", func(a [6][]float32, b []byte) float64 { SiLUMul(a[0], a[1], a[2]); return 0 }},
	{"SiLUMul in place", func(a [6][]float32, b []byte) float64 { SiLUMul(a[0], a[0], a[1]); return 0 }},
	{"SiLUMulBackward", func(a [6][]float32, b []byte) float64 {
		SiLUMulBackward(a[0], a[1], a[2], a[3], a[4])
		return 0
	}},
	{"SiLUMulBackward in place", func(a [6][]float32, b []byte) float64 {
		SiLUMulBackward(a[0], a[1], a[2], a[0], a[1])
		return 0
	}},
	{"GELUMul", func(a [6][]float32, b []byte) float64 { GELUMul(a[0], a[1], a[2]); return 0 }},
	{"GELUMulBackward", func(a [6][]float32, b []byte) float64 {
		GELUMulBackward(a[0], a[1], a[2], a[3], a[4])
		return 0
	}},
	{"Softcap", func(a [6][]float32, b []byte) float64 { Softcap(a[0], a[1], 30); return 0 }},
	{"SoftcapBackward", func(a [6][]float32, b []byte) float64 { SoftcapBackward(a[0], a[1], a[2], 30); return 0 }},
	{"Rope pairs", func(a [6][]float32, b []byte) float64 { ropeBoth(a, false, Rope); return 0 }},
	{"Rope halves", func(a [6][]float32, b []byte) float64 { ropeBoth(a, true, Rope); return 0 }},
	{"RopeBackward pairs", func(a [6][]float32, b []byte) float64 { ropeBoth(a, false, RopeBackward); return 0 }},
	{"RopeBackward halves", func(a [6][]float32, b []byte) float64 { ropeBoth(a, true, RopeBackward); return 0 }},
	{"F16ToF32", func(a [6][]float32, b []byte) float64 { F16ToF32(a[0], b); return 0 }},
	{"F32ToF16", func(a [6][]float32, b []byte) float64 { F32ToF16(b, a[0]); return 0 }},
	{"BF16ToF32", func(a [6][]float32, b []byte) float64 { BF16ToF32(a[0], b); return 0 }},
	{"F32ToBF16", func(a [6][]float32, b []byte) float64 { F32ToBF16(b, a[0]); return 0 }},
	{"AddF16", func(a [6][]float32, b []byte) float64 { return oneOf(AddF16(b, b, a[0]), b, F16ToF32, F32ToF16) }},
	{"AddBF16", func(a [6][]float32, b []byte) float64 { return oneOf(AddBF16(b, b, a[0]), b, BF16ToF32, F32ToBF16) }},
	{"MulAdd", func(a [6][]float32, b []byte) float64 { MulAdd(a[0], a[1], a[2]); return 0 }},
	{"DotColumns", func(a [6][]float32, b []byte) float64 {
		m := len(a[0]) / 3
		DotColumns(a[0][:m], columns(a[1], 3), columns(a[2], 3))
		return 0
	}},
	{"AxpyColumns", func(a [6][]float32, b []byte) float64 {
		m := len(a[0]) / 3
		AxpyColumns(columns(a[0], 3), a[1][:m], columns(a[2], 3))
		return 0
	}},
	{"ProductColumns", func(a [6][]float32, b []byte) float64 {
		m := len(a[0]) / 5
		ProductColumns(columns(a[0], 5), a[3][:min(4, m)], columns(a[1], 5).Sub(0, min(4, m), 0, m), columns(a[2], 5).Sub(0, min(4, m), 0, m))
		return 0
	}},
	{"RangeColumns", func(a [6][]float32, b []byte) float64 {
		m := len(a[0]) / 3
		RangeColumns(a[0][:m], a[1][:m], a[2][:m], columns(a[3], 3), columns(a[4], 3))
		return 0
	}},
	{"MixRows", func(a [6][]float32, b []byte) float64 {
		m := len(a[0]) / 3
		MixRows(a[0][:m], a[1][:min(3, m)], columns(a[2], 3).Sub(0, min(3, m), 0, m))
		return 0
	}},
	{"SquareColumns", func(a [6][]float32, b []byte) float64 {
		m := len(a[0]) / 4
		SquareColumns(columns(a[0], 4), a[1][:m], columns(a[2], 4).Sub(0, 2, 0, m))
		return 0
	}},
	{"Outside", func(a [6][]float32, b []byte) float64 {
		n := min(64, len(a[0]))
		bits := Outside(a[0][:n], 0.7, a[1][:n], a[2][:n], 1.3, a[3][:n])
		return float64(bits>>32) + float64(bits&0xffffffff)/(1<<32)
	}},
	{"AdamW", func(a [6][]float32, b []byte) float64 {
		AdamW(a[0], a[1], a[2], a[3], AdamWStep{0.999, 0.1, 0.999, 0.001, 0.3, 1e-8, 1e-3})
		return 0
	}},
}

// oneOf makes one number of an Added, and one NaN of all those in b.
func oneOf(s Added, b []byte, widen func([]float32, []byte), narrow func([]byte, []float32)) float64 {
	x := make([]float32, len(b)/2)
	widen(x, b)
	for i, v := range x {
		if v != v {
			x[i] = float32(math.NaN())
		}
	}
	narrow(b, x)
	return s.RD + 2*s.DD + 4*s.RR + 8*s.WW + float64(s.Changed)
}

// columns is a matrix of x, whose last elements it leaves out.
func columns(x []float32, rows int) Mat {
	return Mat{Data: x, Rows: rows, Cols: len(x) / rows, Stride: len(x) / rows}
}

// ropeBoth rotates rows of which nothing, one element, or a whole further row is
// left unrotated.
func ropeBoth(a [6][]float32, neox bool, f func(x, cos, sin []float32, neox bool)) {
	n := len(a[0]) / 2
	f(a[0], a[1][:n], a[2][:n], neox)
	f(a[3], a[4][:n/2], a[5][:n/2], neox)
}

// special are the values that need care, besides ordinary ones.
var special = []float32{0, float32(math.Copysign(0, -1)), 1, -1, float32(math.Inf(1)), float32(math.Inf(-1)),
	float32(math.NaN()), 1e-45, -1e-45, 0x1p-126, -0x1p-126, 1e-39, math.MaxFloat32, -math.MaxFloat32, 88.7, 88.8, 89,
	-87.3, -87.4, -103.9, -104, -105, 65504, 65519, 65520, -65520, 0x1p-24, 0x1p-25, 0x1.8p-25, 0.625, -0.625, 0.6249999,
	3.3895313e38, 1e-20, 1e20}

// arena has six rows of n elements and 2n bytes, each at an odd offset from the
// start of its allocation, between words that no operation may touch.
type arena struct {
	words [6][]float32
	bytes []byte
	n     int
	off   int
}

func newArena(n, off int, rng *rand.Rand, specials bool) *arena {
	a := &arena{n: n, off: off}
	value := func() float32 {
		if specials && rng.IntN(4) == 0 {
			return special[rng.IntN(len(special))]
		}
		return float32(rng.NormFloat64() * math.Exp(2*rng.NormFloat64()))
	}
	for i := range a.words {
		a.words[i] = make([]float32, n+off+20)
		for j := range a.words[i] {
			a.words[i][j] = value()
		}
	}
	a.bytes = make([]byte, 2*n+off+20)
	for j := range a.bytes {
		a.bytes[j] = byte(rng.Uint32())
	}
	return a
}

func (a *arena) clone() *arena {
	c := *a
	for i := range c.words {
		c.words[i] = append([]float32(nil), a.words[i]...)
	}
	c.bytes = append([]byte(nil), a.bytes...)
	return &c
}

func (a *arena) run(op rowOp) float64 {
	var rows [6][]float32
	for i := range rows {
		rows[i] = a.words[i][a.off : a.off+a.n : a.off+a.n]
	}
	return op.run(rows, a.bytes[a.off:a.off+2*a.n:a.off+2*a.n])
}

// diff says where two arenas differ. Two NaN are the same: the payload is not promised.
func (a *arena) diff(b *arena) string {
	for i := range a.words {
		for j, v := range a.words[i] {
			w := b.words[i][j]
			if math.Float32bits(v) != math.Float32bits(w) && (v == v || w == w) {
				return fmt.Sprintf("row %d, element %d of %d: %v (%#x), in Go %v (%#x)", i, j-a.off, a.n, w, math.Float32bits(w), v, math.Float32bits(v))
			}
		}
	}
	for j := range a.bytes {
		if a.bytes[j] != b.bytes[j] {
			return fmt.Sprintf("byte %d of %d: %#x, in Go %#x", j-a.off, 2*a.n, b.bytes[j], a.bytes[j])
		}
	}
	return ""
}

// TestRowTiers runs every operation in every tier over lengths 0 to 130 (and some
// longer ones), odd offsets, special values and guard words: all bytes must be the
// same. It switches the tier of the process, so it cannot run beside other tests.
func TestRowTiers(t *testing.T) {
	for _, op := range rowOps {
		t.Run(op.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, uint64(len(op.name))))
			for n := 0; n <= 140; n++ {
				length := n
				if n > 130 {
					length = n * 7
				}
				for _, specials := range []bool{false, true} {
					start := newArena(length, n%5+n&1, rng, specials)
					want := start.clone()
					restore := cpu.Force(cpu.Generic)
					ret := want.run(op)
					restore()
					for _, tier := range cpu.Tiers()[1:] {
						got := start.clone()
						restore := cpu.Force(tier)
						r := got.run(op)
						restore()
						if math.Float64bits(r) != math.Float64bits(ret) && (r == r || ret == ret) {
							t.Fatalf("%v: n = %d: returned %v, in Go %v", tier, length, r, ret)
						}
						if d := want.diff(got); d != "" {
							t.Fatalf("%v: specials %v: %s", tier, specials, d)
						}
					}
					// Guard words: nothing outside the rows changes in Go either.
					for i := range start.words {
						for j, v := range start.words[i] {
							if (j < start.off || j >= start.off+length) && math.Float32bits(v) != math.Float32bits(want.words[i][j]) {
								t.Fatalf("row %d: wrote outside, at %d of %d", i, j-start.off, length)
							}
						}
					}
				}
			}
		})
	}
}

// TestLanes spells the order of the sums out.
func TestLanes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	x, y := make([]float32, 77), make([]float32, 77)
	for i := range x {
		x[i], y[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64())
	}
	var s, d [16]float32
	for i := range x {
		s[i%16] += x[i]
		d[i%16] = FMA(x[i], y[i], d[i%16])
	}
	tree := func(l [16]float32) float32 {
		var e [8]float32
		for i := range e {
			e[i] = l[i] + l[i+8]
		}
		a, b, c, f := e[0]+e[4], e[1]+e[5], e[2]+e[6], e[3]+e[7]
		return (a + c) + (b + f)
	}
	if got, want := Sum(x), tree(s); got != want {
		t.Errorf("Sum is %v, want %v", got, want)
	}
	if got, want := Dot(x, y), tree(d); got != want {
		t.Errorf("Dot is %v, want %v", got, want)
	}
}

func TestLengthsPanic(t *testing.T) {
	t.Parallel()
	a, b := make([]float32, 3), make([]float32, 4)
	for name, f := range map[string]func(){
		"Dot":      func() { Dot(a, b) },
		"Add":      func() { Add(a, b) },
		"Softmax":  func() { Softmax(a, b) },
		"RMSNorm":  func() { RMSNorm(a, a, b, 1) },
		"SiLUMul":  func() { SiLUMul(a, a, b) },
		"Rope":     func() { Rope(a, b, b, false) },
		"F16ToF32": func() { F16ToF32(a, make([]byte, 7)) },
		"AdamW":    func() { AdamW(a, a, b, a, AdamWStep{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: slices of different lengths did not panic", name)
				}
			}()
			f()
		}()
	}
}

func BenchmarkRows(b *testing.B) {
	const n = 4096
	rng := rand.New(rand.NewPCG(1, 2))
	var a [6][]float32
	for i := range a {
		a[i] = make([]float32, n)
	}
	buf := make([]byte, 2*n)
	for _, op := range rowOps {
		for _, tier := range cpu.Tiers() {
			b.Run(op.name+"/"+tier.String(), func(b *testing.B) {
				defer cpu.Force(tier)()
				for i := range a {
					for j := range a[i] {
						a[i][j] = float32(rng.NormFloat64())
					}
				}
				for i := range n {
					// Angles, so that what is rotated again and again keeps its length.
					a[4][i], a[5][i] = float32(math.Cos(float64(i))), float32(math.Sin(float64(i)))
					if strings.HasPrefix(op.name, "Rope") {
						a[1][i], a[2][i] = a[4][i], a[5][i]
					}
					binary.LittleEndian.PutUint16(buf[2*i:], F16Bits(a[0][i]))
				}
				b.SetBytes(4 * n)
				for b.Loop() {
					op.run(a, buf)
				}
			})
		}
	}
}
