package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The functions of this file are the formulas in float64, written without regard to
// how the kernels do them.

func sigmoid64(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
func silu64(x float64) float64    { return x * sigmoid64(x) }
func gelu64(x float64) float64 {
	return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

func softmax64(x []float64) []float64 {
	y, sum := make([]float64, len(x)), 0.0
	for i, v := range x {
		y[i] = math.Exp(v)
		sum += y[i]
	}
	for i := range y {
		y[i] /= sum
	}
	return y
}

func norm64(x []float64, w []float32, eps float64) []float64 {
	y, s := make([]float64, len(x)), 0.0
	for _, v := range x {
		s += v * v
	}
	for i, v := range x {
		y[i] = v / math.Sqrt(s/float64(len(x))+eps) * float64(w[i])
	}
	return y
}

func map64(f func(float64) float64) func([]float64) []float64 {
	return func(x []float64) []float64 {
		y := make([]float64, len(x))
		for i, v := range x {
			y[i] = f(v)
		}
		return y
	}
}

func rope64(cos, sin []float32, neox bool) func(x []float64) []float64 {
	return func(x []float64) []float64 {
		y := append([]float64(nil), x...)
		for i := range cos {
			a, b := 2*i, 2*i+1
			if neox {
				a, b = i, i+len(cos)
			}
			c, s := float64(cos[i]), float64(sin[i])
			y[a], y[b] = x[a]*c-x[b]*s, x[a]*s+x[b]*c
		}
		return y
	}
}

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// relative is the norm of the difference over the norm of want.
func relative(got []float32, want []float64) float64 {
	var d, n float64
	for i, v := range want {
		d += (float64(got[i]) - v) * (float64(got[i]) - v)
		n += v * v
	}
	return math.Sqrt(d / n)
}

// TestForwardBackward checks each forward against its formula in float64, and each
// backward against central differences of that formula. Errors are relative, by
// norm, over rows of 83: the worst seen were 8.2e-8 forward and 6.1e-8 backward, except
// for GELU backward, 3.8e-7, where 1 - s loses digits for large x.
func TestForwardBackward(t *testing.T) {
	t.Parallel()
	const n = 83
	rng := rand.New(rand.NewPCG(5, 6))
	row := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(1.5 * rng.NormFloat64())
		}
		return x
	}
	x, dy, w, up := row(n), row(n), row(n), row(n)
	cos, sin := make([]float32, 40), make([]float32, 40)
	for i := range cos {
		s, c := math.Sincos(float64(i) * 0.7)
		cos[i], sin[i] = float32(c), float32(s)
	}
	mulUp := func(f func(float64) float64) func([]float64) []float64 {
		return func(x []float64) []float64 {
			y := map64(f)(x)
			for i := range y {
				y[i] *= float64(up[i])
			}
			return y
		}
	}
	out := func(f func(y []float32)) []float32 {
		y := make([]float32, n)
		f(y)
		return y
	}
	rope := func(neox, back bool) func(in []float32) []float32 {
		return func(in []float32) []float32 {
			y := append([]float32(nil), in...)
			if back {
				RopeBackward(y, cos, sin, neox)
			} else {
				Rope(y, cos, sin, neox)
			}
			return y
		}
	}
	y := out(func(y []float32) { Softcap(y, x, 3) })
	p := out(func(y []float32) { Softmax(y, x) })
	r := RMSNorm(make([]float32, n), x, w, 1e-5)
	for _, c := range []struct {
		name          string
		formula       func([]float64) []float64
		forward, back []float32
	}{
		{"Softmax", softmax64, p, out(func(dx []float32) { SoftmaxBackward(dx, p, dy) })},
		{"RMSNorm", func(x []float64) []float64 { return norm64(x, w, 1e-5) },
			out(func(y []float32) { RMSNorm(y, x, w, 1e-5) }),
			out(func(dx []float32) { RMSNormBackward(dx, dy, x, w, r, false) })},
		{"SiLUMul", mulUp(silu64), out(func(y []float32) { SiLUMul(y, x, up) }),
			out(func(dx []float32) { SiLUMulBackward(dx, make([]float32, n), dy, x, up) })},
		{"GELUMul", mulUp(gelu64), out(func(y []float32) { GELUMul(y, x, up) }),
			out(func(dx []float32) { GELUMulBackward(dx, make([]float32, n), dy, x, up) })},
		{"Softcap", map64(func(x float64) float64 { return 3 * math.Tanh(x/3) }), y,
			out(func(dx []float32) { SoftcapBackward(dx, dy, y, 3) })},
		{"Rope", rope64(cos, sin, false), rope(false, false)(x), rope(false, true)(dy)},
		{"Rope neox", rope64(cos, sin, true), rope(true, false)(x), rope(true, true)(dy)},
	} {
		in := wide(x)
		if e := relative(c.forward, c.formula(in)); !(e < 1e-7) {
			t.Errorf("%s: relative error %.2g", c.name, e)
		} else {
			t.Logf("%s: forward %.2g", c.name, e)
		}
		if c.back == nil {
			continue
		}
		grad := make([]float64, n)
		const h = 1e-4
		for i := range grad {
			v := in[i]
			in[i] = v + h
			up := c.formula(in)
			in[i] = v - h
			down := c.formula(in)
			in[i] = v
			for j := range up {
				grad[i] += (up[j] - down[j]) / (2 * h) * float64(dy[j])
			}
		}
		if e := relative(c.back, grad); !(e < 4e-7) {
			t.Errorf("%s: backward: relative error %.2g", c.name, e)
		} else {
			t.Logf("%s: backward %.2g", c.name, e)
		}
	}

	// The other output of the gated backwards: the gradient of up is dy∘act(gate).
	for _, c := range []struct {
		act  func(float64) float64
		back func(dgate, dup, dy, gate, up []float32)
	}{{silu64, SiLUMulBackward}, {gelu64, GELUMulBackward}} {
		want := map64(c.act)(wide(x))
		for i := range want {
			want[i] *= float64(dy[i])
		}
		if e := relative(out(func(dup []float32) { c.back(make([]float32, n), dup, dy, x, up) }), want); !(e < 1e-7) {
			t.Errorf("dup: relative error %.2g", e)
		}
	}
	// RMSNormBackward that adds.
	one := out(func(dx []float32) { RMSNormBackward(dx, dy, x, w, r, false) })
	acc := append([]float32(nil), up...)
	RMSNormBackward(acc, dy, x, w, r, true)
	for i := range acc {
		if acc[i] != one[i]+up[i] {
			t.Fatalf("RMSNormBackward with acc: element %d is %v, want %v", i, acc[i], one[i]+up[i])
		}
	}
}

// TestCrossEntropy checks loss and gradient with the softmax in float64, and that
// masked logits and large ones do no harm.
func TestCrossEntropy(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(8, 9))
	x := make([]float32, 1000)
	for i := range x {
		x[i] = float32(6*rng.NormFloat64()) + 500
	}
	x[3] = float32(math.Inf(-1))
	in := wide(x)
	for i := range in {
		in[i] -= 500
	}
	p := softmax64(in)
	const target, scale = 17, 0.125
	want := append([]float64(nil), p...)
	want[target]--
	for i := range want {
		want[i] *= scale
	}
	dx := make([]float32, len(x))
	loss := CrossEntropy(dx, x, target, scale)
	if e := math.Abs(float64(loss) + math.Log(p[target])); e > 3e-5 { // float32 around 500 has steps of 3e-5
		t.Errorf("loss is off by %v", e)
	}
	if e := relative(dx, want); !(e < 1e-6) {
		t.Errorf("gradient: relative error %v", e)
	}
	if l := CrossEntropy(nil, x, target, scale); l != loss {
		t.Errorf("loss without gradient is %v, with it %v", l, loss)
	}
	if dx[3] != 0 {
		t.Errorf("a masked logit has gradient %v", dx[3])
	}
}

func TestSoftmaxEdges(t *testing.T) {
	t.Parallel()
	inf := float32(math.Inf(1))
	y := make([]float32, 3)
	Softmax(y, []float32{-inf, 2, -inf})
	if y[0] != 0 || y[1] != 1 || y[2] != 0 {
		t.Errorf("one logit left: %v", y)
	}
	Softmax(y, []float32{-inf, -inf, -inf})
	if y[0] == y[0] {
		t.Errorf("no logit left: %v", y)
	}
	if v := LogSumExp(nil); v != -inf {
		t.Errorf("LogSumExp of nothing is %v", v)
	}
	if v := LogSumExp([]float32{-inf, -inf}); v != -inf {
		t.Errorf("LogSumExp of -Inf is %v", v)
	}
	if v := LogSumExp([]float32{1, float32(math.NaN())}); v == v {
		t.Errorf("LogSumExp with a NaN is %v", v)
	}
	if v := LogSumExp([]float32{1, inf}); v != inf {
		t.Errorf("LogSumExp with +Inf is %v", v)
	}
	if v := MaxVal([]float32{float32(math.NaN()), 2, 1}); v != 2 {
		t.Errorf("MaxVal is %v", v)
	}
	if i := ArgMax([]float32{float32(math.NaN()), 2, 5, 5}); i != 2 {
		t.Errorf("ArgMax is %v", i)
	}
}
