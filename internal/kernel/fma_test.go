package kernel

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// TestFMA compares with arithmetic of unlimited precision, rounded once.
func TestFMA(t *testing.T) {
	t.Parallel()
	exact := func(a, b, c float32) float32 {
		p := new(big.Float).SetPrec(700).Mul(big.NewFloat(float64(a)), big.NewFloat(float64(b)))
		f, _ := p.Add(p, big.NewFloat(float64(c))).Float32()
		return f
	}
	r := rand.New(rand.NewPCG(1, 2))
	any := func() float32 { // finite, of every exponent, often with few bits
		for {
			u := r.Uint32()
			switch r.IntN(4) {
			case 0:
				u &^= 1<<20 - 1
			case 1:
				u &^= 1<<11 - 1
			case 2:
				u = u&(1<<23|1<<31|1) | 127<<23
			}
			if f := math.Float32frombits(u); f-f == 0 {
				return f
			}
		}
	}
	hard := 0
	for range 400000 {
		a, b, c := any(), any(), any()
		if r.IntN(2) == 0 { // close to cancelling, or to half a unit of c
			c = -a * b
			if r.IntN(2) == 0 {
				c *= float32(math.Ldexp(1, r.IntN(60)-30))
			}
			if c-c != 0 {
				continue
			}
		}
		if math.Float64bits(float64(a)*float64(b)+float64(c))<<36 == 0 {
			hard++
		}
		got, want := FMA(a, b, c), exact(a, b, c)
		if got != want { // == treats zeros alike, whose sign big.Float rounds otherwise
			t.Fatalf("FMA(%x, %x, %x) = %x, want %x", a, b, c, got, want)
		}
	}
	if hard < 1000 {
		t.Errorf("only %d cases took the slow path", hard)
	}
	// Half-way in float64's eyes, but not exactly: 2^24 + 1 + a little.
	for _, v := range [][4]float32{
		{1 + 0x1p-12, 1 - 0x1p-12, 0x1p24, 0x1p24},         // below half
		{1 + 0x1p-12, 1 + 0x1p-12, 0x1p24, 0x1p24 + 2},     // above half
		{0x1p-75, 0x1p-75, 0, 0},                           // half of the smallest, to even
		{0x1p-75, 0x1.000002p-75, 0, 0x1p-149},             // just above it
		{0x1p100, 0x1p100, 0, float32(math.Inf(1))},        // overflow
		{0x1p-140, 0x1p-140, 1, 1},                         // far below
		{0x1p64, 0x1p63, -0x1p127, 0},                      // cancels
		{-0x1p-140, 0x1p-140, 1 + 0x1p-23, 1 + 0x1p-23},    // far below, other sign
		{float32(math.Inf(1)), 1, 1, float32(math.Inf(1))}, // infinite
	} {
		if got := FMA(v[0], v[1], v[2]); got != v[3] {
			t.Errorf("FMA(%x, %x, %x) = %x, want %x", v[0], v[1], v[2], got, v[3])
		}
	}
	if z := FMA(-1, 0, float32(math.Copysign(0, -1))); math.Float32bits(z) != 1<<31 {
		t.Errorf("-1·0 + -0 = %v, want -0", z)
	}
	if n := FMA(float32(math.Inf(1)), 0, 1); n == n {
		t.Errorf("∞·0 + 1 = %v, want NaN", n)
	}
}
