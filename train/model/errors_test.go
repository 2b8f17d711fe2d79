package model

import (
	"errors"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/kernel"
)

// TestRefused opens models that are wrong or ask for what is not done: each must
// give an error of its kind that names the trouble.
func TestRefused(t *testing.T) {
	t.Parallel()
	llama := tiny{arch: "llama"}
	without := func(name string) *arch.Model {
		src := llama.model()
		var views []*format.View
		for _, v := range src.Views {
			if v.Name != name {
				views = append(views, v)
			}
		}
		return arch.NewModel("test", src.Meta, views)
	}
	key := func(k string, v gguf.Value) *arch.Model {
		src := llama.model()
		src.Meta.Set(k, v)
		return src
	}
	noKey := func(k string) *arch.Model {
		src := llama.model()
		src.Meta.Delete(k)
		return src
	}
	reshaped := llama.model()
	reshaped.View("blk.1.ffn_up.weight").Shape[0]++
	for _, c := range []struct {
		src  *arch.Model
		want string
		exit int
	}{
		{tiny{arch: "mamba"}.model(), "mamba", 4},
		{without("blk.1.attn_k.weight"), "blk.1.attn_k.weight", 3},
		{without("output_norm.weight"), "output_norm.weight", 3},
		{without("token_embd.weight"), "token_embd.weight", 3},
		{reshaped, "blk.1.ffn_up.weight", 3},
		{tiny{arch: "llama", extra: map[string][]float32{"blk.0.attn_sinks.weight": {1, 2}}}.model(), "blk.0.attn_sinks.weight", 4},
		{key("llama.attention.temperature_length", uint32(8)), "attention.temperature_length", 4},
		{key("llama.logit_scale", float32(8)), "logit_scale", 4},
		{key("llama.rope.scaling.type", "su"), `"su"`, 4},
		{key("llama.attention.head_count_kv", []uint32{2, 4}), "head_count_kv", 4},
		{key("llama.attention.head_count_kv", uint32(3)), "head_count_kv", 3},
		{key("llama.attention.head_count", "four"), "head_count", 3},
		{key("llama.block_count", uint32(1<<20)), "block_count", 3},
		{key("llama.block_count", uint32(1<<31)), "block_count", 3},
		{key("llama.block_count", uint32(3)), "blk.2.attn_norm.weight", 3},
		{key("llama.rope.dimension_count", uint32(7)), "dimension_count", 3},
		{key("llama.rope.freq_base", float32(0)), "freq_base", 3},
		{noKey("llama.embedding_length"), "embedding_length", 3},
		{noKey("llama.attention.layer_norm_rms_epsilon"), "layer_norm_rms_epsilon", 3},
		{tiny{arch: "llama", experts: 3, used: 4, expertFF: 8}.model(), "expert_used_count", 3},
	} {
		m, err := New(c.src, Options{})
		if err == nil {
			m.Close()
			t.Errorf("%s: accepted", c.want)
		} else if format.ExitStatus(err) != c.exit || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: exit %d of %v", c.want, format.ExitStatus(err), err)
		}
	}
}

// TestMisuse wants errors, and a model that still works after them.
func TestMisuse(t *testing.T) {
	t.Parallel()
	m := newModel(t, tiny{arch: "llama", tied: true}.model(), Options{Threads: 1})
	good := randomBatch(m.Vocab, 5)
	for name, b := range map[string]*Batch{
		"no tokens":        {},
		"a large id":       {IDs: []int32{29}},
		"a negative id":    {IDs: []int32{-1}},
		"lengths too long": {IDs: []int32{1}, Lens: []int{2}},
		"lengths short":    {IDs: []int32{1, 2}, Lens: []int{1}},
		"a negative one":   {IDs: []int32{1, 2}, Lens: []int{3, -1}},
		"targets":          {IDs: []int32{1, 2}, Targets: []int32{1}},
		"a large target":   {IDs: []int32{1, 2}, Targets: []int32{1, 29}},
		"weights":          {IDs: []int32{1, 2}, Targets: []int32{1, 1}, Weights: []float32{1}},
		"dropout":          {IDs: []int32{1, 2}, Targets: []int32{1, 1}, Dropout: Dropout{P: 1}},
	} {
		if _, err := m.Loss(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, shape := range map[string][4]int{
		"output.weight": {2, 16, 29, 2}, "blk.2.attn_q.weight": {2, 16, 24, 2}, "blk.0.attn_norm.weight": {1, 1, 16, 1},
		"blk.0.attn_q.weight": {2, 16, 23, 2}, "blk.1.attn_q.weight": {2, 15, 24, 2}, "blk.1.attn_k.weight": {2, 16, 12, 3}, "blk.1.attn_v.weight": {0, 16, 12, 0},
	} {
		a := NewAdapter()
		a.Pairs[name] = &Pair{A: kernel.NewMat(shape[0], shape[1]), B: kernel.NewMat(shape[2], shape[3]), Scale: 1}
		if _, err := m.Loss(good, Scaled{a, 1}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("an adapter of %s: %v", name, err)
		}
	}
	a := randomAdapter(m, 2)
	if _, err := m.LossAndGrad(good, a, Grads{}); err == nil {
		t.Error("an adapter without gradients: accepted")
	}
	if _, err := m.LossAndGrad(&Batch{IDs: good.IDs}, a, NewGrads(a)); err == nil {
		t.Error("a batch without targets: accepted")
	}
	if _, err := m.Loss(good); err != nil {
		t.Error(err)
	}
}

// failingRows cannot be read any more.
type failingRows struct{ memRows }

func (failingRows) ReadRows([]float32, int64) error { return errors.New("the disk is gone") }

// TestUnreadable wants a weight that cannot be read to be the pass's error.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	src := tiny{arch: "llama"}.model()
	v := src.View("blk.1.ffn_down.weight")
	m := newModel(t, src, Options{Threads: 2})
	rows := v.Rows.(memRows)
	v.Rows = failingRows{rows}
	b := randomBatch(m.Vocab, 5)
	broken := newModel(t, src, Options{Threads: 2})
	a := randomAdapter(m, 2)
	_, err1 := broken.Loss(b)
	_, err2 := broken.LossAndGrad(b, a, NewGrads(a))
	err3 := broken.Logits(b, func(int, kernel.Mat) error { return nil })
	s, err := broken.NewSession(10)
	if err != nil {
		t.Fatal(err)
	}
	_, err4 := s.Append(b.IDs)
	for i, err := range []error{err1, err2, err3, err4} {
		if err == nil || !strings.Contains(err.Error(), "blk.1.ffn_down.weight") {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
	if _, err := m.Loss(b); err != nil {
		t.Error(err)
	}
}

// TestNothingTrained wants a batch without a wanted token to have no loss and leave the gradients alone.
func TestNothingTrained(t *testing.T) {
	t.Parallel()
	m := newModel(t, tiny{arch: "llama"}.model(), Options{Threads: 1})
	a := randomAdapter(m, 2)
	g := NewGrads(a)
	l, err := m.LossAndGrad(&Batch{IDs: []int32{1, 2}, Targets: []int32{-100, -100}}, a, g)
	if err != nil || l.Sum != 0 || l.Tokens != 0 || l.Mean() != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	for name, d := range g {
		if kernel.MaxVal(d.A.Data) != 0 || kernel.MaxVal(d.B.Data) != 0 {
			t.Errorf("%s has a gradient", name)
		}
	}
}

// TestHooks wants the input of every matrix once, whether its layer is recomputed or not.
func TestHooks(t *testing.T) {
	t.Parallel()
	m := newModel(t, tiny{arch: "qwen3", headNorm: true}.model(), Options{Threads: 1, KeepLayers: 1})
	seen := map[string]int{}
	m.OnInput = func(name string, x kernel.Mat) {
		seen[name]++
		if _, in, _ := m.MatrixDims(name); x.Cols != in || x.Rows == 0 {
			t.Errorf("%s got %d x %d", name, x.Rows, x.Cols)
		}
	}
	a := randomAdapter(m, 2)
	if _, err := m.LossAndGrad(randomBatch(m.Vocab, 4, 3), a, NewGrads(a)); err != nil {
		t.Fatal(err)
	}
	for _, name := range m.Matrices() {
		if name != embedName && seen[name] != 1 {
			t.Errorf("%s was seen %d times", name, seen[name])
		}
	}
}

// TestExpertHook wants every use of an expert by a token once, under the expert's number.
func TestExpertHook(t *testing.T) {
	t.Parallel()
	m := newModel(t, tiny{arch: "qwen3moe", headNorm: true, experts: 6, used: 2, expertFF: 10}.model(), Options{Threads: 1})
	rows := map[string]int{}
	m.OnExpertInput = func(name string, expert int, x kernel.Mat) {
		experts, _, in, ok := m.StackDims(name)
		if !ok || expert < 0 || expert >= experts || x.Cols != in || x.Rows == 0 {
			t.Errorf("%s: expert %d got %d x %d", name, expert, x.Rows, x.Cols)
		}
		rows[name] += x.Rows
	}
	a := randomAdapter(m, 2, all(m)...)
	b := randomBatch(m.Vocab, 9)
	if _, err := m.LossAndGrad(b, a, NewGrads(a)); err != nil {
		t.Fatal(err)
	}
	for _, name := range m.Stacks() {
		if rows[name] != 2*len(b.IDs) {
			t.Errorf("%s saw %d rows of %d", name, rows[name], 2*len(b.IDs))
		}
	}
	a = NewAdapter()
	a.Pairs["blk.0.ffn_gate_inp.weight"] = &Pair{A: kernel.NewMat(1, 16), B: kernel.NewMat(6, 1)}
	if _, err := m.Loss(b, Scaled{a, 1}); format.ExitStatus(err) != 4 {
		t.Errorf("an adapter of a router: %v", err)
	}
}
