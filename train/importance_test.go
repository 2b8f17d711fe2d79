package train

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train/model"
)

func sprigText(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(testutil.Shared(t, "models", "sprig", "eval.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestImportanceOfSprig compares with what llama-imatrix recorded on the same text.
// It rounds what is multiplied with float16 weights, and its keys and values, to
// float16, which goes on into the next layers; the largest difference of a mean
// square seen is 5.1e-4 of it.
func TestImportanceOfSprig(t *testing.T) {
	t.Parallel()
	base := openSprig(t, "sprig-f16.gguf", model.Options{})
	m := &quant.Imatrix{}
	p, err := base.Importance(context.Background(), m, sprigText(t), "eval.txt", ImportanceOptions{Context: 256, ParseSpecial: true, NoPerplexity: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"imatrix.gguf", "imatrix.dat"} {
		want, err := quant.ReadImatrix(testutil.Shared(t, "models", "sprig", name))
		if err != nil {
			t.Fatal(err)
		}
		if m.Chunks != want.Chunks || m.Chunks != p.Done || len(m.Entries) != len(want.Entries) {
			t.Fatalf("%s: %d tensors on %d pieces, recorded %d on %d", name, len(m.Entries), m.Chunks, len(want.Entries), want.Chunks)
		}
		var worst float64
		for _, e := range want.Entries {
			if w := m.Entry(e.Name); w == nil || name == "imatrix.gguf" && !slices.Equal(w.Counts, e.Counts) {
				t.Fatalf("%s: %s: counts differ from %v", name, e.Name, e.Counts)
			}
			got, wanted := m.Weights(e.Name), want.Weights(e.Name)
			for i := range wanted {
				worst = max(worst, math.Abs(float64(got[i])/float64(wanted[i])-1))
			}
		}
		t.Logf("%s: largest difference %.2g of a value", name, worst)
		if worst > 1e-3 {
			t.Errorf("%s: mean squares differ by %.2g of the value", name, worst)
		}
	}
}

// TestImportanceIsRepeatable: other passes, threads and a run that was saved and
// taken up again give the same bytes.
func TestImportanceIsRepeatable(t *testing.T) {
	t.Parallel()
	base := openSprig(t, "sprig-f16.gguf", model.Options{})
	text, dir, ctx := sprigText(t), t.TempDir(), context.Background()
	o := ImportanceOptions{Context: 64, ParseSpecial: true, Chunks: 7}
	write := func(m *quant.Imatrix, name string) []byte {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := m.WriteGGUF(ctx, path, true); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	run := func(b *Base, o ImportanceOptions, m *quant.Imatrix, name string) ImportanceProgress {
		t.Helper()
		p, err := b.Importance(ctx, m, text, name, o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	whole := &quant.Imatrix{}
	p := run(base, o, whole, "eval.txt")
	want := write(whole, "whole")
	if p.Done != 7 || whole.Chunks != 7 || p.Perplexity < 1 || p.PerplexityError <= 0 {
		t.Errorf("%+v, %d pieces", p, whole.Chunks)
	}

	single := openSprig(t, "sprig-f16.gguf", model.Options{Threads: 1})
	small := o
	small.Limit, small.NoPerplexity = 1, true
	var saved []int
	small.Every = 3
	small.Save = func(m *quant.Imatrix) error {
		saved = append(saved, m.Chunks)
		write(m, fmt.Sprint("at", m.Chunks))
		return nil
	}
	m := &quant.Imatrix{}
	if p := run(single, small, m, "eval.txt"); p.Perplexity != 0 {
		t.Errorf("perplexity %v where none was asked for", p.Perplexity)
	}
	if !bytes.Equal(write(m, "small"), want) {
		t.Error("one thread and one piece a pass give other bytes")
	}
	if !slices.Equal(saved, []int{3, 6}) {
		t.Errorf("saved after %v pieces", saved)
	}

	resumed, err := quant.ReadImatrix(filepath.Join(dir, "at3"))
	if err != nil {
		t.Fatal(err)
	}
	rest := o
	rest.FromChunk, rest.Chunks = 3, 4
	run(base, rest, resumed, "")
	if !bytes.Equal(write(resumed, "resumed"), want) {
		t.Error("a run that was taken up gives other bytes")
	}
}

// TestImportanceOfExperts: each token goes to two of the experts, so their sums
// together are twice those of the router, which reads the same.
func TestImportanceOfExperts(t *testing.T) {
	t.Parallel()
	base, err := OpenBase(testutil.Shared(t, "oracle", "zoo", "qwen3moe", "hf"), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { base.Close() })
	m := &quant.Imatrix{}
	if _, err := base.Importance(context.Background(), m, strings.Repeat("The five boxing wizards jump quickly. ", 40), "", ImportanceOptions{Context: 32, Chunks: 4, ProcessOutput: true}); err != nil {
		t.Fatal(err)
	}
	tokens, used := float32(4*32), float32(base.Model.MoE.Used)
	stacks := base.Model.Stacks()
	if len(stacks) == 0 {
		t.Fatal("no stacks of experts")
	}
	for _, name := range stacks {
		experts, _, in, _ := base.Model.StackDims(name)
		e := m.Entry(name)
		if e == nil || len(e.Counts) != experts || len(e.Sums) != experts*in {
			t.Fatalf("%s: %+v", name, e)
		}
		var n float32
		for _, c := range e.Counts {
			n += c
		}
		if n != tokens*used {
			t.Errorf("%s: %v uses of experts by %v tokens", name, n, tokens)
		}
		prefix, ok := strings.CutSuffix(name, "ffn_gate_exps.weight")
		if !ok {
			continue
		}
		router := m.Entry(prefix + "ffn_gate_inp.weight")
		for j := range in {
			var sum float64
			for x := range experts {
				sum += float64(e.Sums[x*in+j])
			}
			if want := float64(used * router.Sums[j]); math.Abs(sum-want) > 1e-4*want {
				t.Errorf("%s column %d: %v in all experts, want %v", name, j, sum, want)
			}
		}
	}
	if head := m.Entry("output.weight"); !base.Model.TiedHead && (head == nil || head.Counts[0] != tokens) {
		t.Errorf("output head: %+v", head)
	}
}

func TestImportanceRefuses(t *testing.T) {
	t.Parallel()
	base := openSprig(t, "sprig-f16.gguf", model.Options{})
	run := func(m *quant.Imatrix, o ImportanceOptions) error {
		_, err := base.Importance(context.Background(), m, "Some short text.", "text", o)
		return err
	}
	for name, err := range map[string]error{
		"a short text":    run(&quant.Imatrix{}, ImportanceOptions{Context: 256}),
		"short pieces":    run(&quant.Imatrix{}, ImportanceOptions{Context: 8}),
		"other pieces":    run(&quant.Imatrix{ChunkSize: 32}, ImportanceOptions{Context: 16}),
		"negative pieces": run(&quant.Imatrix{}, ImportanceOptions{Context: 16, Chunks: -1}),
	} {
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	m := &quant.Imatrix{ChunkSize: 16, Entries: []quant.ImatrixEntry{{Name: "blk.0.attn_q.weight", Sums: make([]float32, 3), Counts: []float32{16}}}}
	_, err := base.Importance(context.Background(), m, sprigText(t), "text", ImportanceOptions{Context: 16, Chunks: 1})
	if err == nil || !strings.Contains(err.Error(), "blk.0.attn_q.weight") {
		t.Errorf("the matrix of another model: %v", err)
	}
}
