package merge

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format/adapter"
)

// TestReview makes an adapter of six layers in which one matrix is dead, one is another's
// twin and one is ten times as large as its kind.
func TestReview(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	matrix := func(rows, cols int, size float64) adapter.Matrix {
		m := adapter.Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}
		for i := range m.Data {
			m.Data[i] = float32(size * r.NormFloat64())
		}
		return m
	}
	var pairs []*adapter.Pair
	for layer := range 6 {
		size := 1.0
		switch layer {
		case 2:
			size = 0
		case 4:
			size = 10
		}
		p := &adapter.Pair{Target: fmt.Sprintf("blk.%d.ffn_up.weight", layer), Expert: -1}
		p.SetFactors(matrix(2, 30, 1), matrix(20, 2, size), 0.5)
		if layer == 5 {
			first := pairs[0]
			p.SetFactors(first.A, first.B, 0.5)
		}
		pairs = append(pairs, p)
	}
	got, err := ReviewAdapter(adapter.New("x", "llama", pairs), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Dead, []string{"blk.2.ffn_up.weight"}) {
		t.Errorf("dead: %v", got.Dead)
	}
	if !slices.Equal(got.Duplicates, []string{"blk.5.ffn_up.weight is blk.0.ffn_up.weight"}) {
		t.Errorf("duplicates: %v", got.Duplicates)
	}
	if len(got.Outliers) != 1 || !strings.HasPrefix(got.Outliers[0], "blk.4.ffn_up.weight: ") {
		t.Errorf("outliers: %v", got.Outliers)
	}
	if got.RankPaid != 12 || got.Needed != 10 || got.RankUsed < 5 || got.RankUsed > 10 {
		t.Errorf("rank: %+v", got)
	}
}
