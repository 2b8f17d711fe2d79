package kernel

import (
	"math"
	"testing"
)

// ulps is the distance of got from the exact want in units in the last place of a
// float32 of want's size.
func ulps(got float32, want float64) float64 {
	if math.IsNaN(want) || math.IsInf(want, 0) || math.Abs(want) > math.MaxFloat32*(1+0x1p-25) {
		switch {
		case math.IsNaN(want) && got != got, !math.IsNaN(want) && math.IsInf(float64(got), int(math.Copysign(1, want))):
			return 0
		}
		return math.Inf(1)
	}
	_, e := math.Frexp(want)
	ulp := math.Ldexp(1, max(e-24, -149))
	return math.Abs(float64(got)-want) / ulp
}

// TestExpFamily compares with float64 over the whole range of float32, one bit
// pattern in 1009. The bounds are what was seen, rounded up to a tenth.
func TestExpFamily(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		got   func(float32) float32
		want  func(float64) float64
		bound float64
	}{
		{"Exp", Exp, math.Exp, 1},
		{"Sigmoid", Sigmoid, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, 2.3},
		{"Tanh", Tanh, math.Tanh, 1.3},
		{"Log", Log, math.Log, 0.8},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			worst, at := 0.0, float32(0)
			try := func(x float32) {
				if u := ulps(c.got(x), c.want(float64(x))); u > worst {
					worst, at = u, x
				}
			}
			for u := uint64(0); u < 1<<32; u += 1009 {
				try(math.Float32frombits(uint32(u)))
			}
			for i := range 1 << 20 { // where the interesting values are
				try(float32(i-1<<19) * (1.0 / 4096))
			}
			for _, x := range special {
				try(x)
			}
			if worst > c.bound {
				t.Errorf("%v units in the last place at %v: %v, want %v", worst, at, c.got(at), c.want(float64(at)))
			}
		})
	}
}

func TestExpSpecials(t *testing.T) {
	t.Parallel()
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	negZero := float32(math.Copysign(0, -1))
	for _, c := range []struct {
		name string
		f    func(float32) float32
		x    float32
		want float32
	}{
		{"Exp", Exp, 0, 1}, {"Exp", Exp, -inf, 0}, {"Exp", Exp, inf, inf}, {"Exp", Exp, nan, nan},
		{"Sigmoid", Sigmoid, 0, 0.5}, {"Sigmoid", Sigmoid, inf, 1}, {"Sigmoid", Sigmoid, -inf, 0}, {"Sigmoid", Sigmoid, nan, nan},
		{"Tanh", Tanh, 0, 0}, {"Tanh", Tanh, negZero, negZero}, {"Tanh", Tanh, inf, 1}, {"Tanh", Tanh, -inf, -1}, {"Tanh", Tanh, nan, nan},
		{"Log", Log, 1, 0}, {"Log", Log, 0, -inf}, {"Log", Log, negZero, -inf}, {"Log", Log, inf, inf}, {"Log", Log, -1, nan}, {"Log", Log, nan, nan},
	} {
		got := c.f(c.x)
		if math.Float32bits(got) != math.Float32bits(c.want) && (got == got || c.want == c.want) {
			t.Errorf("%s(%v) = %v, want %v", c.name, c.x, got, c.want)
		}
	}
}
