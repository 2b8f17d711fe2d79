package quant

import (
	"math"
	"strings"
	"testing"
)

// TestStatistics checks the numbers against their definitions, on values where they
// can be worked out by hand.
func TestStatistics(t *testing.T) {
	t.Parallel()
	m := &Imatrix{ChunkSize: 1}
	m.SetEntries(map[string]*ImatrixEntry{
		"blk.1.attn_q.weight":        {Name: "blk.1.attn_q.weight", Sums: []float32{2, 2, 2, 2}, Counts: []float32{2}},
		"blk.0.attn_q.weight":        {Name: "blk.0.attn_q.weight", Sums: []float32{8, 0, 0, 0}, Counts: []float32{2}},
		"blk.0.ffn_down_exps.weight": {Name: "blk.0.ffn_down_exps.weight", Sums: []float32{1, 3, 0, 0}, Counts: []float32{1, 0}},
		"blk.1.ffn_up.weight":        {Name: "blk.1.ffn_up.weight", Sums: []float32{0, 0}, Counts: []float32{0}},
	})
	if m.Chunks != 2 || m.Entries[0].Name != "blk.0.attn_q.weight" {
		t.Errorf("%d pieces, first %s", m.Chunks, m.Entries[0].Name)
	}
	tensors, layers, err := m.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	want := []TensorStatistics{
		// Equal sums: in the order of the names.
		{Tensor: "blk.0.attn_q.weight", Layer: 0, Sum: 4, Max: 4, Mean: 1, Dev: float32(math.Sqrt(3)), Active: 0.25, Columns: 4, ZD: 0.25},
		{Tensor: "blk.1.attn_q.weight", Layer: 1, Sum: 4, Min: 1, Max: 1, Mean: 1, Active: 1, Columns: 4, Entropy: 2, Evenly: 1, CosSim: 0.5},
		{Tensor: "blk.0.ffn_down_exps.weight", Layer: 0, Sum: 4, Min: 1, Max: 3, Mean: 2, Dev: 1, Active: 1, Columns: 2, Entropy: 0.8112781, Evenly: 0.8112781},
	}
	if len(tensors) != len(want) {
		t.Fatalf("%d tensors, want %d: one saw no token", len(tensors), len(want))
	}
	for i := range want {
		if tensors[i] != want[i] {
			t.Errorf("got %+v, want %+v", tensors[i], want[i])
		}
	}
	if len(layers) != 2 || layers[1] != (LayerStatistics{Layer: 1, Sum: 4, CosSim: 0.5}) || layers[0].Sum != 4 || math.Abs(float64(layers[0].ZD)-1.0/6) > 1e-7 {
		t.Errorf("layers: %+v", layers)
	}
	if row := strings.Join(tensors[1].Row(), " "); row != "1 attn_q 4.00 1.0000 1.0000 1.00 0.00 100.00% 4 2.0000 100.00% 0.00% 0.5000" {
		t.Errorf("row: %s", row)
	}
	if _, _, err := (&Imatrix{}).Statistics(); err == nil {
		t.Error("no entries and no error")
	}
}
