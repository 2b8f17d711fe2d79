package fmath

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

var functions = []struct {
	name      string
	f, g      func(x float64) float64
	low, high float64
	least     float64 // unit near a zero that is not at 0
	ulps      float64
	digest    string
}{
	{"Exp", Exp, math.Exp, -745, 709, 0, 2, "3e887ca69279d5e1"},
	{"Exp near 0", Exp, math.Exp, -1, 1, 0, 2, "1378215ad7202d72"},
	{"Expm1", Expm1, math.Expm1, -40, 1e-3, 0, 3, "e0bb808b7b222123"},
	{"Expm1 near 0", Expm1, math.Expm1, -0.4, 0.4, 0, 3, "da6592632f132896"},
	{"Log", Log, math.Log, 1e-300, 1e6, 0, 2, "ee4f1f2c58f3ccbe"},
	{"Log near 1", Log, math.Log, 0.5, 2, 0, 2, "17ca8414bf1f3d44"},
	{"Log1p", Log1p, math.Log1p, 0, 1, 0, 3, "1f6eedf77491c205"},
	{"power -0.8", func(x float64) float64 { return Pow(x, -0.8) }, func(x float64) float64 { return math.Pow(x, -0.8) }, 1, 1e4, 0, 6, "bcf9e77df6081f03"},
	{"power of 0.999", func(x float64) float64 { return Pow(0.999, math.Floor(x)) }, func(x float64) float64 { return math.Pow(0.999, math.Floor(x)) }, 1, 1e4, 0, 0, "e925a3890203ebd8"},
	{"Sin", Sin, math.Sin, -3.2, 3.2, 0x1p-56, 2, "ad4c3a7689c71148"},
	{"Cos", Cos, math.Cos, -3.2, 3.2, 0x1p-56, 2, "2437ac1ff08b4ff4"},
	{"Acos", Acos, math.Acos, -1, 1, 0x1p-52, 6, "3cc8b79fa299c046"},
}

// TestFunctions compares with package math, and wants the same bits of every machine.
func TestFunctions(t *testing.T) {
	t.Parallel()
	for _, c := range functions {
		rng := rand.New(rand.NewPCG(1, 2))
		var all bytes.Buffer
		worst := 0.0
		for range 20000 {
			x := c.low + float64((c.high-c.low)*rng.Float64())
			got, want := c.f(x), c.g(x)
			unit := math.Max(math.Abs(math.Nextafter(want, 2*want)-want), 0x1p-1074)
			unit = math.Max(unit, c.least)
			worst = math.Max(worst, math.Abs(got-want)/unit)
			binary.Write(&all, binary.LittleEndian, got)
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(all.Bytes()))[:16]
		t.Logf("%s: at most %.2g units, digest %s", c.name, worst, sum)
		if worst > c.ulps {
			t.Errorf("%s: %.2g units from package math", c.name, worst)
		}
		if sum != c.digest {
			t.Errorf("%s: digest %s, want %s", c.name, sum, c.digest)
		}
	}
}

func TestSpecials(t *testing.T) {
	t.Parallel()
	inf, nan := math.Inf(1), math.NaN()
	for i, c := range [][2]float64{
		{Exp(0), 1}, {Exp(-inf), 0}, {Exp(inf), inf}, {Exp(nan), nan}, {Exp(710), inf}, {Exp(-746), 0}, {Exp(-745), 0x1p-1074},
		{Log(1), 0}, {Log(0), -inf}, {Log(-1), nan}, {Log(inf), inf}, {Log(0x1p-1074), -744.4400719213812},
		{Log1p(0), 0}, {Log1p(1e-20), 1e-20}, {Log1p(inf), inf}, {Expm1(0), 0}, {Expm1(-1e-20), -1e-20}, {Expm1(-800), -1},
		{Pow(0, 2), 0}, {Pow(0, 0), 1}, {Pow(2, -3), 0.125}, {Pow(9, 0.5), 3}, {Pow(nan, 1), nan}, {Pow(2, inf), inf},
		{Cos(0), 1}, {Sin(0), 0}, {Acos(1), 0}, {Acos(-1), math.Pi}, {Acos(2), nan},
	} {
		if c[0] != c[1] && (c[0] == c[0] || c[1] == c[1]) {
			t.Errorf("case %d: %v, want %v", i, c[0], c[1])
		}
	}
}
