package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestAdd16: one pass gives what its parts give, to the last bit, in rows of more than one buffer.
func TestAdd16(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(4, 2))
	for _, c := range []struct {
		name   string
		add    func(dst, src []byte, d []float32) Added
		widen  func([]float32, []byte)
		narrow func([]byte, []float32)
	}{{"F16", AddF16, F16ToF32, F32ToF16}, {"BF16", AddBF16, BF16ToF32, F32ToBF16}} {
		for _, n := range []int{0, 1, 16, 511, 512, 530, 1700} {
			d, w, r, src := make([]float32, n), make([]float32, n), make([]float32, n), make([]byte, 2*n)
			for i := range d {
				w[i], d[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64())/3000
			}
			c.narrow(src, w)
			c.widen(w, src)
			copy(r, w)
			Add(r, d)
			want := make([]byte, 2*n)
			c.narrow(want, r)
			c.widen(r, want)
			sums := Added{Changed: differing16(src, want), WW: SumSquares64(w), DD: SumSquares64(d)}
			Sub(r, r, w)
			sums.RD, sums.RR = Dot64(r, d), SumSquares64(r)
			dst := make([]byte, 2*n)
			if got := c.add(dst, src, d); got != sums {
				t.Errorf("%s, %d: %+v, its parts give %+v", c.name, n, got, sums)
			}
			if string(dst) != string(want) {
				t.Errorf("%s, %d: other bytes than of its parts", c.name, n)
			}
		}
		src := make([]byte, 40)
		d := make([]float32, 20)
		d[17] = math.MaxFloat32
		if got := c.add(src, src, d); c.name == "F16" && !math.IsInf(got.RR, 1) {
			t.Errorf("%s: a value too large gives %v", c.name, got.RR)
		}
		d[17] = float32(math.NaN())
		if got := c.add(src, src, d); got.RR == got.RR {
			t.Errorf("%s: a NaN gives %v", c.name, got.RR)
		}
	}
}

func TestDiffering16(t *testing.T) {
	t.Parallel()
	x := make([]byte, 2*1003)
	y := make([]byte, len(x))
	var want int64
	for i := range x {
		x[i], y[i] = byte(i*7), byte(i*7)
		if i%5 == 0 {
			y[i] ^= byte(1 << (i % 8))
		}
	}
	for i := 0; i < len(x); i += 2 {
		if x[i] != y[i] || x[i+1] != y[i+1] {
			want++
		}
	}
	if got := differing16(x, y); got != want {
		t.Errorf("%d of %d pairs differ", got, want)
	}
}

func BenchmarkAddF16(b *testing.B) {
	d, src := make([]float32, 2048), make([]byte, 4096)
	b.SetBytes(4096)
	for b.Loop() {
		AddF16(src, src, d)
	}
}
