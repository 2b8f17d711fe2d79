package adapter

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/internal/testutil"
)

func zoo(t *testing.T, name string) *arch.Model {
	t.Helper()
	m, err := arch.Open(testutil.Shared(t, "oracle", "zoo", name, "hf"), arch.Options{NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func numbers(rows, cols int, at float32) Matrix {
	m := Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}
	for i := range m.Data {
		m.Data[i] = at + float32(i*i%13)/4
	}
	return m
}

// TestPEFTExperts writes experts of several ranks and scales, and other matrices, as PEFT
// takes them: one rank and scale for all experts, and no change of what they do.
func TestPEFTExperts(t *testing.T) {
	t.Parallel()
	m := zoo(t, "qwen3moe") // 4 experts of 64 x 32
	var pairs []*Pair
	for e := range 4 {
		p := &Pair{Target: "blk.0.ffn_down_exps.weight", Expert: e, Rank: 2, Scale: 2, A: numbers(2, 32, 0), B: numbers(64, 2, 1)}
		if e == 3 {
			p.Rank, p.Scale, p.A, p.B = 1, 0.5, numbers(1, 32, 2), numbers(64, 1, 0)
		}
		pairs = append(pairs, p)
		for _, name := range []string{"gate", "up"} {
			pairs = append(pairs, &Pair{Target: "blk.0.ffn_" + name + "_exps.weight", Expert: e, Rank: 2, Scale: 2, A: numbers(2, 64, 0), B: numbers(32, 2, 1)})
		}
	}
	pairs = append(pairs, &Pair{Target: "blk.1.attn_q.weight", Expert: -1, Rank: 4, Scale: 1, A: numbers(4, 64, 0), B: numbers(128, 4, 1)})
	a := New("x", "qwen3moe", pairs)
	if err := a.Resolve(m); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "a")
	if err := WritePEFT(dir, a, WriteOptions{Dropout: 0.1}); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, checkpoint.AdapterConfigName))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"r": 2,`, `"lora_alpha": 4,`, `"lora_dropout": 0,`, `"\.\*\\\\.gate_up_proj": 4`, `"\.\*\\\\.gate_up_proj": 8`,
		`"model.layers.1.self_attn.q_proj": 4`, `"experts.3.down_proj"`, `"experts.down_proj",\s+"experts.gate_up_proj"\s`,
	} {
		if !regexp.MustCompile(want).Match(config) {
			t.Errorf("the configuration has no %s:\n%s", want, config)
		}
	}
	b, err := Open(dir)
	if err == nil {
		err = b.Resolve(m)
	}
	if err != nil {
		t.Fatal(err)
	}
	same(t, a.Pairs, b.Pairs)
	for _, p := range b.Pairs {
		if p.Expert >= 0 && (p.Rank != 2 || p.Scale != 2) {
			t.Errorf("%s has rank %d and scale %v", p.Module, p.Rank, p.Scale)
		}
	}
}

// same wants the same changes of the same matrices.
func same(t *testing.T, x, y []*Pair) {
	t.Helper()
	changes := map[string][]float32{}
	for _, p := range x {
		d := product(p.B, p.A)
		for i := range d.Data {
			d.Data[i] *= p.Scale
		}
		changes[fmt.Sprint(p.Target, p.Expert)] = d.Data
	}
	for _, p := range y {
		d, w := product(p.B, p.A), changes[fmt.Sprint(p.Target, p.Expert)]
		for i := range d.Data {
			if w == nil || math.Abs(float64(d.Data[i]*p.Scale-w[i])) > 1e-5*math.Abs(float64(w[i])) {
				t.Fatalf("%s: number %d is %v", p.Module, i, d.Data[i]*p.Scale)
			}
		}
	}
	if len(x) != len(y) {
		t.Errorf("%d pairs are %d", len(x), len(y))
	}
}

// TestPEFTParameters takes the pairs of transformers 5's parameters apart, made here of those
// of single experts by the rule that PEFT has for that.
func TestPEFTParameters(t *testing.T) {
	t.Parallel()
	const n, r, hidden, ff = 4, 2, 64, 96
	m := zoo(t, "mixtral")
	var experts []*Pair
	inner := &Pair{Module: "model.layers.1.mlp.experts.base_layer", Expert: -1, A: Matrix{Rows: n * 2 * r, Cols: hidden}, B: numbers(2*ff, 2*r*n, 0)}
	outer := &Pair{Module: "model.layers.1.mlp.experts", Expert: -1, A: Matrix{Rows: n * r, Cols: ff}, B: numbers(hidden, r*n, 0)}
	clear(inner.B.Data)
	for e := range n {
		at := float32(e)
		gate := &Pair{Target: "blk.1.ffn_gate_exps.weight", Expert: e, Rank: r, Scale: 3, A: numbers(r, hidden, at), B: numbers(ff, r, at)}
		up := &Pair{Target: "blk.1.ffn_up_exps.weight", Expert: e, Rank: r, Scale: 3, A: numbers(r, hidden, at+1), B: numbers(ff, r, at-1)}
		dn := &Pair{Target: "blk.1.ffn_down_exps.weight", Expert: e, Rank: r, Scale: 3, A: numbers(r, ff, at), B: numbers(hidden, r, at)}
		experts = append(experts, gate, up, dn)
		inner.A.Data = append(append(inner.A.Data, gate.A.Data...), up.A.Data...)
		outer.A.Data = append(outer.A.Data, dn.A.Data...)
		for o := range ff {
			for j := range r {
				inner.B.Row(o)[j*n+e] = gate.B.Row(o)[j]
				inner.B.Row(ff + o)[(r+j)*n+e] = up.B.Row(o)[j]
			}
		}
		for o := range hidden {
			for j := range r {
				outer.B.Row(o)[j*n+e] = dn.B.Row(o)[j]
			}
		}
	}
	c := &peftConfig{rank: r, alpha: 6, values: map[string]any{"target_parameters": []any{"gate_up_proj", "experts.down_proj"}},
		ranks: []namePattern{{regexp.MustCompile(`^(?:.*\.)?(?:.*\.gate_up_proj)$`), 2 * r}}, alphas: []namePattern{{regexp.MustCompile(`gate_up_proj$`), 12}}}
	var got []*Pair
	for _, p := range []*Pair{inner, outer} {
		list, ok, err := c.apart(p)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		got = append(got, list...)
	}
	a, b := New("x", "llama", experts), &Adapter{Pairs: got, Format: "peft"}
	for _, x := range []*Adapter{a, b} {
		if err := x.Resolve(m); err != nil {
			t.Fatal(err)
		}
	}
	same(t, a.Pairs, b.Pairs)
	if want := "model.layers.1.block_sparse_moe.experts.2.w2"; !slices.ContainsFunc(b.Pairs, func(p *Pair) bool { return p.Module == want }) {
		t.Errorf("no pair is %s", want)
	}

	// Of one parameter alone the module is the experts' own.
	outer.Module, c.values["target_parameters"] = "model.layers.1.mlp.experts", []any{"experts.gate_up_proj"}
	inner.Module = outer.Module
	if list, _, err := c.apart(inner); err != nil || len(list) != 2*n || list[1].Module != "model.layers.1.mlp.experts.0.up_proj" {
		t.Errorf("gate and up alone: %d, %v", len(list), err)
	}
	c.rank, c.ranks = 3, nil
	var corrupt *format.CorruptError
	if _, _, err := c.apart(inner); !errors.As(err, &corrupt) {
		t.Errorf("a rank that does not divide: %v", err)
	}
}

// TestNoForm wants errors from forms that cannot hold an adapter.
func TestNoForm(t *testing.T) {
	t.Parallel()
	var unsupported *format.UnsupportedError
	m := zoo(t, "qwen2") // its head is tied
	tied := New("x", "qwen2", []*Pair{{Target: "token_embd.weight", Expert: -1, Rank: 1, Scale: 1, A: numbers(1, 64, 0), B: numbers(384, 1, 0)}})
	if err := tied.Resolve(m); err != nil {
		t.Fatal(err)
	}
	if err := WriteGGUF(filepath.Join(t.TempDir(), "a.gguf"), tied, WriteOptions{}); !errors.As(err, &unsupported) {
		t.Errorf("the embedding of a tied head in GGUF: %v", err)
	}
	q := New("x", "qwen2", []*Pair{{Target: "blk.0.attn_output.weight", Expert: -1, Rank: 1, Scale: 1, A: numbers(1, 64, 0), B: numbers(64, 1, 0)}})
	if err := q.Resolve(m); err != nil {
		t.Fatal(err)
	}
	q.Invocation = []uint32{3}
	for name, write := range map[string]func(string, *Adapter, WriteOptions) error{"mlx": WriteMLX, "kohya": WriteKohya, "diffusers": WriteDiffusers} {
		if err := write(filepath.Join(t.TempDir(), "a.safetensors"), q, WriteOptions{}); !errors.As(err, &unsupported) {
			t.Errorf("an invocation in %s: %v", name, err)
		}
	}
}
