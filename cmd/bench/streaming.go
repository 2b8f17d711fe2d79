package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/train/model"
)

// The shape of the model that is streamed: llama, 8 billion parameters with all of
// its 32 layers, in Q4_0.
const (
	bigLayers = 32
	bigWidth  = 4096
	bigInner  = 14336
	bigHeads  = 32
	bigKV     = 8
	bigVocab  = 128256
)

// streamOptions are those of the group stream.
type streamOptions struct {
	layers, context int
}

// streaming trains one step on a base that is read from disk while it goes: the peak
// of resident memory and the bytes read a second. The file's pages are dropped from
// the system's cache before.
func streaming(r *report, o streamOptions, threads int) error {
	dir, err := os.MkdirTemp("", "graft-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "q4_0.gguf")
	size, err := writeBigModel(path, o.layers)
	if err != nil {
		return err
	}
	if err := dropCached(path); err != nil {
		return err
	}
	debug.FreeOSMemory()
	os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // the peak so far is forgotten, where that is known
	src, err := arch.Open(path, arch.Options{})
	if err != nil {
		return err
	}
	defer src.Close()
	m, err := model.New(src, model.Options{Threads: threads, Stream: true})
	if err != nil {
		return err
	}
	defer m.Close()
	ad, s := model.NewAdapter(), rng.New(1, "bench")
	for _, n := range m.Matrices() {
		if strings.HasPrefix(n, "blk.") {
			out, in, _ := m.MatrixDims(n)
			ad.Pairs[n] = &model.Pair{A: fill(benchRank, in), B: kernel.NewMat(out, benchRank), Scale: 1}
		}
	}
	b := &model.Batch{IDs: make([]int32, o.context)}
	for i := range b.IDs {
		b.IDs[i] = int32(s.Uint64(uint64(i)) % uint64(m.Vocab))
	}
	b.Targets = model.ShiftLabels(b.IDs, nil)
	begun := time.Now()
	if _, err := m.LossAndGrad(b, ad, model.NewGrads(ad)); err != nil {
		return err
	}
	took := time.Since(begun).Seconds()
	group := fmt.Sprintf("training on %.2f GB of Q4_0 that stay on disk, context %d, rank %d", float64(size)/1e9, o.context, benchRank)
	r.add(figure{group, "one step", took, "s", 0, ""})
	r.add(figure{group, "tokens", float64(o.context) / took, "tokens/s", 0, ""})
	// Layers are read for the pass forward and for the one backward, the head once.
	r.add(figure{group, "read", 2 * float64(size) / took / 1e9, "GB/s, nearly", 0, ""})
	if peak := peakMemory(); peak > 0 {
		r.add(figure{group, "peak resident memory", peak / 1e9, "GB", peak / float64(size), "the file"})
	}
	return nil
}

// peakMemory is this process's peak of resident memory in bytes; 0 where it is not known.
func peakMemory() float64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kb float64
		if n, _ := fmt.Sscanf(s.Text(), "VmHWM: %f kB", &kb); n == 1 {
			return kb * 1024
		}
	}
	return 0
}

// writeBigModel writes a model of the shape above with that many layers.
func writeBigModel(path string, layers int) (int64, error) {
	meta := new(gguf.Meta)
	for _, kv := range []gguf.KV{
		{Key: "general.architecture", Value: "llama"},
		{Key: "llama.block_count", Value: uint32(layers)},
		{Key: "llama.context_length", Value: uint32(8192)},
		{Key: "llama.embedding_length", Value: uint32(bigWidth)},
		{Key: "llama.feed_forward_length", Value: uint32(bigInner)},
		{Key: "llama.attention.head_count", Value: uint32(bigHeads)},
		{Key: "llama.attention.head_count_kv", Value: uint32(bigKV)},
		{Key: "llama.attention.layer_norm_rms_epsilon", Value: float32(1e-5)},
		{Key: "llama.rope.dimension_count", Value: uint32(bigWidth / bigHeads)},
		{Key: "llama.vocab_size", Value: uint32(bigVocab)},
	} {
		meta.Set(kv.Key, kv.Value)
	}
	// As small as a model's are: wilder ones would make probabilities so small that
	// processors slow down.
	values := fill(1, 1<<16+bigInner).Data
	kernel.Scale(values, 0.03, values)
	plan := new(format.Plan)
	add := func(name string, rows, cols int64) error {
		typ, shape := format.Q4_0, []int64{rows, cols}
		if rows == 1 {
			typ, shape = format.F32, shape[1:]
		}
		o, err := format.NewOutput(name+".weight", typ, shape, &repeatedRows{rows, cols, values}, nil)
		if err == nil {
			plan.Outputs = append(plan.Outputs, o)
		}
		return err
	}
	const kv = bigWidth / bigHeads * bigKV
	type tensor struct {
		name       string
		rows, cols int64
	}
	list := []tensor{{"token_embd", bigVocab, bigWidth}, {"output", bigVocab, bigWidth}, {"output_norm", 1, bigWidth}}
	for l := range layers {
		for _, t := range []tensor{
			{"attn_norm", 1, bigWidth}, {"attn_q", bigWidth, bigWidth}, {"attn_k", kv, bigWidth}, {"attn_v", kv, bigWidth},
			{"attn_output", bigWidth, bigWidth}, {"ffn_norm", 1, bigWidth},
			{"ffn_gate", bigInner, bigWidth}, {"ffn_up", bigInner, bigWidth}, {"ffn_down", bigWidth, bigInner},
		} {
			t.name = fmt.Sprintf("blk.%d.%s", l, t.name)
			list = append(list, t)
		}
	}
	for _, t := range list {
		if err := add(t.name, t.rows, t.cols); err != nil {
			return 0, err
		}
	}
	w, err := gguf.Create(path, meta, plan, gguf.WriteOptions{})
	if err != nil {
		return 0, err
	}
	defer w.Abort()
	if err := format.Run(context.Background(), plan, w, format.RunOptions{}); err != nil {
		return 0, err
	}
	return plan.Size(), w.Close()
}

// repeatedRows are rows cut out of the same values, from a place of their own each.
type repeatedRows struct {
	rows, cols int64
	values     []float32
}

func (r *repeatedRows) Dims() (rows, cols int64) { return r.rows, r.cols }

func (r *repeatedRows) ReadRows(dst []float32, row int64) error {
	for ; len(dst) > 0; row++ {
		copy(dst[:r.cols], r.values[row*7919%(1<<16):])
		dst = dst[r.cols:]
	}
	return nil
}
