package merge

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// noisy is a low-rank matrix under noise whose variance differs by row and by element.
type noisy struct {
	rows, cols int
	data       []float32
}

func (n noisy) Dims() (int64, int64) { return int64(n.rows), int64(n.cols) }
func (n noisy) ReadRows(dst []float32, row int64) error {
	copy(dst, n.data[int(row)*n.cols:])
	return nil
}

func makeNoisy(seed uint64, rows, cols, rank int, strength, noise float64) noisy {
	r := rand.New(rand.NewPCG(seed, 7))
	n := noisy{rows, cols, make([]float32, rows*cols)}
	for i := range rows {
		size := noise * math.Exp(r.NormFloat64()/2) // rows of quite different noise
		for j := range cols {
			n.data[i*cols+j] = float32(size * r.NormFloat64() * (0.5 + r.Float64()))
		}
	}
	for range rank {
		b, a := make([]float64, rows), make([]float64, cols)
		for i := range b {
			b[i] = r.NormFloat64() / math.Sqrt(float64(rows))
		}
		for j := range a {
			a[j] = r.NormFloat64() / math.Sqrt(float64(cols))
		}
		for i := range rows {
			for j := range cols {
				n.data[i*cols+j] += float32(strength * b[i] * a[j])
			}
		}
	}
	return n
}

func TestSignalRank(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		rows, cols      int
		rank            int
		strength, noise float64
		want            int
	}{
		{"noise alone", 200, 300, 0, 0, 1, 0},
		{"noise alone, wide", 40, 900, 0, 0, 0.01, 0},
		{"noise alone, small", 32, 64, 0, 0, 1, 0},
		{"noise alone, nearly all of it", 14, 20, 0, 0, 1, 0},
		{"noise alone, all of it", 12, 20, 0, 0, 1, 0},
		{"many values beyond noise, small", 32, 64, 8, 300, 0.01, 8},
		{"values beyond noise, tiny", 16, 64, 4, 300, 0.01, 4},
		{"signal under noise", 200, 300, 4, 5, 1, 0},
		{"signal beyond noise", 200, 300, 4, 300, 1, 4},
		{"signal and rounding", 200, 300, 4, 1, 1e-6, 4},
		{"signal alone", 100, 80, 3, 1, 0, 3},
		// About a millionth of the squares is rounding, of which the values found take some.
		{"signal and 16-bit rounding", 200, 300, 4, 1, 5.6e-6, 4},
		{"signal and 16-bit rounding", 200, 300, 4, 1, 5.8e-6, 4},
		{"signal and 16-bit rounding", 200, 300, 4, 1, 6.0e-6, 4},
		{"signal and 16-bit rounding", 200, 300, 4, 1, 6.2e-6, 4},
		{"signal and 16-bit rounding", 200, 300, 4, 1, 6.4e-6, 4},
	} {
		for seed := range uint64(8) {
			m := makeNoisy(seed, c.rows, c.cols, c.rank, c.strength, c.noise)
			l, s, err := truncatedSVD(context.Background(), nil, m, Cut{Rank: 12}, seed)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := signalRank(context.Background(), nil, m, l, s, seed); err != nil || got != c.want {
				t.Errorf("%s, seed %d: %d values stand out, want %d", c.name, seed, got, c.want)
			}
		}
	}
}

func TestShareOut(t *testing.T) {
	t.Parallel()
	spectra := [][]float64{{10, 1, 0.5}, {9, 8, 7}, {3}}
	costs := []int64{100, 100, 10}
	for budget, want := range map[int64][]int{
		0: {0, 0, 0}, 9: {0, 0, 0}, 10: {0, 0, 1}, 110: {1, 0, 1}, 200: {1, 0, 1}, 210: {1, 1, 1}, 410: {1, 3, 1}, 510: {2, 3, 1}, 9999: {3, 3, 1},
	} {
		if got := shareOut(spectra, costs, budget); !slices.Equal(got, want) {
			t.Errorf("budget %d: ranks %v, want %v", budget, got, want)
		}
	}
}
