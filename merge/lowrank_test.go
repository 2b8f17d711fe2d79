package merge

import (
	"context"
	"math"
	"testing"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

func randomMat(name string, rows, cols int) kernel.Mat {
	m := kernel.NewMat(rows, cols)
	s := rng.New(7, name)
	for i := range m.Data {
		m.Data[i] = 2*s.Uniform(uint64(i)) - 1
	}
	return m
}

func mul(b, a kernel.Mat) kernel.Mat {
	c := kernel.NewMat(b.Rows, a.Cols)
	kernel.GemmNN(nil, c, b, a, false)
	return c
}

// relative is |x - y| / |y|.
func relative(x, y kernel.Mat, scale float64) float64 {
	var d, n float64
	for i := range y.Data {
		v := scale * float64(y.Data[i])
		d += (float64(x.Data[i]) - v) * (float64(x.Data[i]) - v)
		n += v * v
	}
	return math.Sqrt(d / n)
}

// matRows lets a matrix in memory be read by rows.
type matRows struct{ kernel.Mat }

func (m matRows) Dims() (rows, cols int64) { return int64(m.Rows), int64(m.Cols) }
func (m matRows) ReadRows(dst []float32, row int64) error {
	m.Mat.DecodeRows(dst, int(row))
	return nil
}

func TestRecompressIsExactAtFullRank(t *testing.T) {
	t.Parallel()
	for _, dims := range [][3]int{{40, 4, 30}, {3, 8, 50}, {50, 8, 3}, {1, 1, 1}, {16, 16, 16}} {
		b, a := randomMat("b", dims[0], dims[1]), randomMat("a", dims[1], dims[2])
		l, err := Recompress(b, a, 0.75, Cut{})
		if err != nil {
			t.Fatal(err)
		}
		if e := relative(mul(l.B, l.A), mul(b, a), 0.75); e > 1e-6 { // 2e-7 seen
			t.Errorf("%v: relative error %g", dims, e)
		}
	}
}

func TestRecompressKeepsTheLargestPart(t *testing.T) {
	t.Parallel()
	b, a := randomMat("b", 60, 8), randomMat("a", 8, 50)
	// Directions 3 to 7 are a hundred times weaker.
	for i := range b.Rows {
		for k := 3; k < 8; k++ {
			b.Row(i)[k] *= 0.01
		}
	}
	l, err := Recompress(b, a, 1, Cut{Energy: 0.999})
	if err != nil {
		t.Fatal(err)
	}
	if l.B.Cols != 3 {
		t.Errorf("energy 0.999 keeps rank %d, want 3; singular values %v", l.B.Cols, l.Singular)
	}
	want := math.Sqrt(1 - l.Kept)
	if e := relative(mul(l.B, l.A), mul(b, a), 1); math.Abs(e-want) > 1e-5 {
		t.Errorf("error %g, the singular values that were cut say %g", e, want)
	}
}

func TestTruncatedSVDFindsAPlantedDelta(t *testing.T) {
	t.Parallel()
	b, a := randomMat("b", 300, 6), randomMat("a", 6, 200)
	m := mul(b, a)
	pool := kernel.NewPool(2)
	defer pool.Close()
	l, norm, err := TruncatedSVD(context.Background(), pool, matRows{m}, Cut{Rank: 6}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if e := relative(mul(l.B, l.A), m, 1); e > 1e-6 {
		t.Errorf("relative error %g", e)
	}
	var sum float64
	for _, s := range l.Singular {
		sum += s * s
	}
	if math.Abs(math.Sqrt(sum)/norm-1) > 1e-6 {
		t.Errorf("singular values have norm %g, the matrix %g", math.Sqrt(sum), norm)
	}
	one, _, err := TruncatedSVD(context.Background(), nil, matRows{m}, Cut{Rank: 6}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range one.A.Data {
		if v != l.A.Data[i] {
			t.Fatal("another number of threads gives another result")
		}
	}
}
