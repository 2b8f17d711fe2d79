package adapter_test

import (
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
)

func filled(rows, cols int, at float32) adapter.Matrix {
	m := adapter.Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}
	for i := range m.Data {
		m.Data[i] = at + float32(i%7)/8
	}
	return m
}

// TestExperts adapts two of four experts, with other ranks and scales, and an
// attention matrix: through either format the changes are the same, and those of
// the other experts are zero.
func TestExperts(t *testing.T) {
	m := openBase(t, "oracle", "zoo", "qwen3moe", "hf")
	down := "blk.0.ffn_down_exps.weight" // 4 experts of 64 x 32
	pairs := []*adapter.Pair{
		{Target: down, Expert: 0, A: filled(2, 32, 1), B: filled(64, 2, -1), Rank: 2, Scale: 0.5},
		{Target: down, Expert: 2, A: filled(3, 32, 2), B: filled(64, 3, 0.5), Rank: 3, Scale: 2},
		{Target: "blk.1.attn_q.weight", Expert: -1, A: filled(4, 64, 0), B: filled(128, 4, 3), Rank: 4, Scale: 0.375},
	}
	a := adapter.New("test-lora", "qwen3moe", pairs)
	if err := a.Resolve(m); err != nil {
		t.Fatal(err)
	}
	if want := "model.layers.0.mlp.experts.2.down_proj"; pairs[1].Module != want {
		t.Errorf("expert 2 is %s, want %s", pairs[1].Module, want)
	}
	type place struct {
		target string
		expert int
	}
	want := map[place][]float64{}
	for _, p := range pairs {
		want[place{p.Target, p.Expert}] = delta(p, nil)
	}
	for _, name := range []string{"peft", "out.gguf"} {
		path := filepath.Join(t.TempDir(), name)
		write := adapter.WritePEFT
		if name == "out.gguf" {
			write = adapter.WriteGGUF
		}
		// Everything here fits float16, with the factors on B too.
		if err := write(path, a, adapter.WriteOptions{Type: format.F16}); err != nil {
			t.Fatal(err)
		}
		b, err := adapter.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Resolve(m); err != nil {
			t.Fatal(err)
		}
		if b.Type != format.F16 {
			t.Errorf("%s has type %v", name, b.Type)
		}
		found := 0
		for _, p := range b.Pairs {
			w, given := want[place{p.Target, p.Expert}]
			if given {
				found++
			}
			for i, x := range delta(p, nil) {
				if y := 0.0; given && w[i] != x || !given && x != y {
					t.Fatalf("%s: %s, expert %d: element %d is %g", name, p.Target, p.Expert, i, x)
				}
			}
		}
		if found != len(pairs) {
			t.Errorf("%s: %d of %d pairs came back", name, found, len(pairs))
		}
	}
}

// TestNotResolved: a writer needs the base's terms where they are not the source's,
// and something to write.
func TestNotResolved(t *testing.T) {
	pair := &adapter.Pair{Target: "blk.0.attn_q.weight", Expert: -1, A: filled(2, 8, 1), B: filled(8, 2, 1), Rank: 2, Scale: 1}
	a := adapter.New("x", "llama", []*adapter.Pair{pair})
	if adapter.WritePEFT(filepath.Join(t.TempDir(), "a"), a, adapter.WriteOptions{}) == nil {
		t.Error("pairs with GGUF's names were written for PEFT")
	}
	a.Pairs = nil
	if adapter.WriteGGUF(filepath.Join(t.TempDir(), "a.gguf"), a, adapter.WriteOptions{}) == nil {
		t.Error("an adapter without pairs was written")
	}
}
