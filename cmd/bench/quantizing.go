package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/quant"
)

// The shape of the model that is quantized: llama, 1.1 billion parameters with
// all of its wholeLayers layers.
const (
	wholeLayers = 22
	benchWidth  = 2048
	benchInner  = 5632
	benchHeads  = 32
	benchKV     = 4
	benchVocab  = 32000
)

// quantizeOptions are those of the group quant.
type quantizeOptions struct {
	layers  int    // of the model; fewer make a smaller file, with a vocabulary in proportion
	experts int    // in each layer; 0 makes a dense model
	types   string // file types, by comma
	rounds  int    // how often each command runs; the shortest time counts
}

// allFileTypes is every type that quantizes.
const allFileTypes = "F16,BF16,Q8_0,Q4_0,Q4_1,Q5_0,Q5_1,Q2_K,Q3_K_S,Q3_K_M,Q4_K_M,Q5_K_M,Q6_K,IQ4_NL,IQ4_XS,IQ3_S,IQ3_XXS,IQ2_S,IQ2_XS,IQ2_XXS,IQ1_M,IQ1_S," +
	"TQ1_0,TQ2_0,MXFP4_MOE,NVFP4,Q1_0,Q2_0"

// quantizing times whole commands, file to file, for each file type, from a file of
// random weights. If LLAMA_QUANTIZE names a llama-quantize it runs in turn with graft,
// on as many threads, and the ratio is printed; a type it cannot make has none.
func quantizing(r *report, o quantizeOptions, threads int) error {
	dir, err := os.MkdirTemp("", "graft-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	graft, err := buildGraft(dir)
	if err != nil {
		return err
	}
	src, imatrix := filepath.Join(dir, "f16.gguf"), filepath.Join(dir, "imatrix.gguf")
	size, err := writeRandomModel(src, imatrix, o.layers, o.experts)
	if err != nil {
		return err
	}
	group := fmt.Sprintf("quantize, %.2f GB of F16, %d threads", float64(size)/1e9, threads)
	other := os.Getenv("LLAMA_QUANTIZE")
	dst := filepath.Join(dir, "out.gguf")
	// Once without a clock: until the source is on the disk, what waits for the disk takes longer.
	if _, err := measureCommand(graft, []string{"--quiet", "quantize", src, "-o", dst, "--type", "F16"}); err != nil {
		return err
	}
	for _, t := range strings.Split(o.types, ",") {
		ours := []string{"quantize", src, "-o", dst, "--type", t, "--force", "--threads", fmt.Sprint(threads)}
		var theirs []string
		switch {
		case t == "IQ1_S" || t == "IQ1_M" || t == "IQ3_XXS" || t == "Q2_K_S" || strings.HasPrefix(t, "IQ2"):
			ours = append(ours, "--imatrix", imatrix)
			theirs = append(theirs, "--imatrix", imatrix)
		case t == "MXFP4_MOE": // otherwise this model, which has no experts, becomes Q8_0
			ours = append(ours, "--pure")
			theirs = append(theirs, "--pure")
		}
		theirs = append(theirs, src, dst, t, fmt.Sprint(threads))
		var a, b usage
		for range o.rounds {
			u, err := measureCommand(graft, append([]string{"--quiet"}, ours...))
			if err != nil {
				return fmt.Errorf("graft %s: %w", strings.Join(ours, " "), err)
			}
			a = a.better(u)
			if other == "" {
				continue
			}
			if u, err = measureCommand(other, theirs); err != nil {
				fmt.Fprintf(os.Stderr, "bench: %s: %v\n", t, lastLine(err.Error()))
				other = ""
				b = usage{}
				continue
			}
			b = b.better(u)
		}
		other = os.Getenv("LLAMA_QUANTIZE")
		fmt.Fprintf(os.Stderr, "%-9s %7.2f s, of processors %7.2f; llama-quantize %7.2f s, of processors %7.2f\n", t, a.seconds, a.processor, b.seconds, b.processor)
		r.add(figure{Group: group, Name: t, Value: a.seconds, Unit: "s"})
		r.add(figure{Group: group, Name: t + ": peak of its own", Value: float64(a.own) / 1e6, Unit: "MB"})
		if b.seconds > 0 {
			r.add(figure{Group: group, Name: t + ": llama-quantize", Value: b.seconds, Unit: "s"})
			r.add(figure{Group: group, Name: t + ": llama-quantize takes, times ours", Value: b.seconds / a.seconds, Unit: ""})
			r.add(figure{Group: group, Name: t + ": and of processor time", Value: b.processor / a.processor, Unit: ""})
			r.add(figure{Group: group, Name: t + ": llama-quantize, peak of its own", Value: float64(b.own) / 1e6, Unit: "MB",
				Share: float64(a.own) / float64(b.own), Of: "that is ours"})
		}
	}
	return nil
}

// better is the shorter of two runs, u or the zero value and v, with the higher peaks.
func (u usage) better(v usage) usage {
	if u.seconds > 0 {
		v.seconds, v.processor = min(u.seconds, v.seconds), min(u.processor, v.processor)
	}
	v.resident, v.own = max(u.resident, v.resident), max(u.own, v.own)
	return v
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// writeRandomModel writes a model of normal weights and an importance matrix for it.
func writeRandomModel(path, imatrix string, layers, experts int) (size int64, err error) {
	meta := new(gguf.Meta)
	for _, kv := range []gguf.KV{
		{Key: "general.architecture", Value: "llama"},
		{Key: "general.name", Value: "random weights"},
		{Key: "general.file_type", Value: uint32(1)},
		{Key: "llama.block_count", Value: uint32(layers)},
		{Key: "llama.context_length", Value: uint32(2048)},
		{Key: "llama.embedding_length", Value: uint32(benchWidth)},
		{Key: "llama.feed_forward_length", Value: uint32(benchInner)},
		{Key: "llama.attention.head_count", Value: uint32(benchHeads)},
		{Key: "llama.attention.head_count_kv", Value: uint32(benchKV)},
		{Key: "llama.attention.layer_norm_rms_epsilon", Value: float32(1e-5)},
		{Key: "llama.rope.dimension_count", Value: uint32(benchWidth / benchHeads)},
		{Key: "llama.vocab_size", Value: uint32(benchVocab*layers/wholeLayers+31) / 32 * 32},
	} {
		meta.Set(kv.Key, kv.Value)
	}
	if experts > 0 {
		meta.Set("llama.expert_count", uint32(experts))
		meta.Set("llama.expert_used_count", uint32(2))
	}
	plan := new(format.Plan)
	im := &quant.Imatrix{Chunks: 1, ChunkSize: 512}
	add := func(name string, typ format.Type, shape ...int64) error {
		rows := &randomRows{rows: 1, cols: shape[len(shape)-1], stream: rng.New(1, name)}
		for _, n := range shape[:len(shape)-1] {
			rows.rows *= n
		}
		if len(shape) > 1 {
			e := quant.ImatrixEntry{Name: name, Counts: []float32{512}}
			if len(shape) > 2 {
				e.Counts = slices.Repeat(e.Counts, int(shape[0]))
			}
			e.Sums = make([]float32, len(e.Counts)*int(rows.cols))
			for i := range e.Sums {
				e.Sums[i] = 512 * (0.5 + float32(i%97)/97)
			}
			im.Entries = append(im.Entries, e)
		}
		o, err := format.NewOutput(name, typ, shape, rows, nil)
		if err == nil {
			plan.Outputs = append(plan.Outputs, o)
		}
		return err
	}
	kv := int64(benchWidth / benchHeads * benchKV)
	type tensor struct {
		name  string
		shape []int64
	}
	vocab := int64(benchVocab*layers/wholeLayers+31) / 32 * 32
	tensors := []tensor{{"token_embd", []int64{vocab, benchWidth}}, {"output", []int64{vocab, benchWidth}}, {"output_norm", []int64{benchWidth}}}
	for l := range layers {
		for _, t := range []tensor{
			{"attn_norm", []int64{benchWidth}}, {"attn_q", []int64{benchWidth, benchWidth}}, {"attn_k", []int64{kv, benchWidth}},
			{"attn_v", []int64{kv, benchWidth}}, {"attn_output", []int64{benchWidth, benchWidth}}, {"ffn_norm", []int64{benchWidth}},
			{"ffn_gate", []int64{benchInner, benchWidth}}, {"ffn_up", []int64{benchInner, benchWidth}}, {"ffn_down", []int64{benchWidth, benchInner}},
		} {
			if kind, ok := strings.CutPrefix(t.name, "ffn_"); ok && experts > 0 && kind != "norm" {
				t.name += "_exps"
				for i, n := range t.shape {
					if n == benchInner {
						t.shape[i] = benchInner / 8
					}
				}
				t.shape = append([]int64{int64(experts)}, t.shape...)
			}
			tensors = append(tensors, tensor{fmt.Sprintf("blk.%d.%s", l, t.name), t.shape})
		}
	}
	for l := range layers {
		if experts > 0 {
			tensors = append(tensors, tensor{fmt.Sprintf("blk.%d.ffn_gate_inp", l), []int64{int64(experts), benchWidth}})
		}
	}
	for _, t := range tensors {
		typ := format.F16
		if len(t.shape) == 1 {
			typ = format.F32
		}
		if err := add(t.name+".weight", typ, t.shape...); err != nil {
			return 0, err
		}
	}
	if err := im.WriteGGUF(context.Background(), imatrix, true); err != nil {
		return 0, err
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

// randomRows are rows of numbers near the normal distribution: sums of four even ones.
type randomRows struct {
	rows, cols int64
	stream     rng.Stream
}

func (r *randomRows) Dims() (rows, cols int64) { return r.rows, r.cols }

func (r *randomRows) ReadRows(dst []float32, row int64) error {
	for i := range dst {
		u := r.stream.Uint64(uint64(row*r.cols) + uint64(i))
		sum := u&0xffff + u>>16&0xffff + u>>32&0xffff + u>>48
		dst[i] = (float32(sum)*0x1p-16 - 2) * 0.035
	}
	return nil
}
