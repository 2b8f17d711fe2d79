package merge

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
)

// Finding is something that is wrong with a file, or may be.
type Finding struct {
	Level  string `json:"level"` // "error": a user will suffer from it; "warning": worth a look
	Tensor string `json:"tensor,omitempty"`
	Text   string `json:"text"`
}

// CheckModel decodes every tensor and looks at names, types and metadata: what a
// reader of the headers does not see. Memory is a few row blocks a thread.
func CheckModel(ctx context.Context, m *arch.Model, threads int, progress func(done, total int)) ([]Finding, error) {
	findings := checkMeta(m)
	per := make([][]Finding, len(m.Views))
	var mu sync.Mutex
	done := 0
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(threads, 1))
	for i, v := range m.Views {
		g.Go(func() error {
			f, err := checkValues(ctx, v)
			if err != nil {
				return fmt.Errorf("tensor %s: %w", v.Name, err)
			}
			per[i] = f
			if progress != nil {
				mu.Lock()
				done++
				progress(done, len(m.Views))
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return append(findings, slices.Concat(per...)...), nil
}

// checkValues looks for values that are not numbers, and for tensors of zeros.
func checkValues(ctx context.Context, v *format.View) ([]Finding, error) {
	defer release(v)
	rows, cols := v.Rows.Dims()
	if rows == 0 || cols == 0 {
		return []Finding{{"warning", v.Name, "has no elements"}}, nil
	}
	n := max(blockFloats/4/cols, 1)
	buf := make([]float32, n*cols)
	var bad, first int64
	zero := true
	for row := int64(0); row < rows; row += n {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x := buf[:min(n, rows-row)*cols]
		if err := v.Rows.ReadRows(x, row); err != nil {
			return nil, err
		}
		for i, f := range x {
			if math.Float32bits(f)&0x7f800000 == 0x7f800000 {
				if bad == 0 {
					first = row + int64(i)/cols
				}
				bad++
			}
			zero = zero && f == 0
		}
	}
	var f []Finding
	if bad > 0 {
		f = append(f, Finding{"error", v.Name, fmt.Sprintf("%d of %d values are NaN or infinite, the first in row %d", bad, rows*cols, first)})
	}
	if zero && strings.HasSuffix(v.Name, ".weight") {
		f = append(f, Finding{"warning", v.Name, "every value is zero"})
	}
	return f, nil
}

// checkMeta looks for metadata that contradicts the tensors or that other programs need.
func checkMeta(m *arch.Model) []Finding {
	var f []Finding
	report := func(level, text string, args ...any) {
		f = append(f, Finding{Level: level, Text: fmt.Sprintf(text, args...)})
	}
	if m.Arch == "" {
		report("error", "there is no general.architecture")
		return f
	}
	if blocks, ok := m.Meta.Int(m.Arch + ".block_count"); ok {
		seen := map[int64]bool{}
		for _, v := range m.Views {
			var n int64
			if _, err := fmt.Sscanf(v.Name, "blk.%d.", &n); err == nil {
				seen[n] = true
			}
		}
		if int64(len(seen)) != blocks {
			report("error", "%s.block_count is %d, but there are tensors of %d blocks", m.Arch, blocks, len(seen))
		}
	} else {
		report("error", "there is no %s.block_count", m.Arch)
	}
	checkTokenizer(m, report)
	if a, ok := m.Meta.Int("general.alignment"); ok && a != 32 {
		report("warning", "general.alignment is %d: llama-quantize, gguf-split and export-lora assume 32", a)
	}
	for _, v := range m.Views {
		if len(v.Name) > 63 {
			report("error", "the name of tensor %s is longer than the 63 bytes that llama.cpp reads", v.Name)
		}
	}
	return f
}

func checkTokenizer(m *arch.Model, report func(level, text string, args ...any)) {
	tokens, ok := m.Meta.Strs("tokenizer.ggml.tokens")
	if !ok {
		report("warning", "there is no vocabulary (tokenizer.ggml.tokens)")
		return
	}
	if e := m.View("token_embd.weight"); e != nil {
		if rows, _ := e.Rows.Dims(); rows != int64(len(tokens)) {
			report("error", "token_embd.weight has %d rows, the vocabulary %d tokens", rows, len(tokens))
		}
	}
	for _, key := range []string{"token_type", "scores"} {
		if n, ok := arrayLen(m.Meta, "tokenizer.ggml."+key); ok && n != len(tokens) {
			report("error", "tokenizer.ggml.%s has %d entries, the vocabulary %d tokens", key, n, len(tokens))
		}
	}
	if model, _ := m.Meta.Str("tokenizer.ggml.model"); model == "gpt2" {
		if !m.Meta.Has("tokenizer.ggml.merges") {
			report("error", "a byte-level BPE vocabulary without tokenizer.ggml.merges")
		}
		if !m.Meta.Has("tokenizer.ggml.pre") {
			report("warning", "there is no tokenizer.ggml.pre: programs guess how text is split before BPE")
		}
	}
	for _, key := range []string{"bos", "eos", "unknown", "padding", "eot", "eom"} {
		if id, ok := m.Meta.Int("tokenizer.ggml." + key + "_token_id"); ok && (id < 0 || id >= int64(len(tokens))) {
			report("error", "tokenizer.ggml.%s_token_id is %d, outside the vocabulary of %d", key, id, len(tokens))
		}
	}
	if !m.Meta.Has("tokenizer.ggml.eos_token_id") {
		report("warning", "there is no tokenizer.ggml.eos_token_id: generation may not stop")
	}
	if !m.Meta.Has("tokenizer.chat_template") {
		report("warning", "there is no chat template: chat programs guess one")
	}
}

func arrayLen(meta *gguf.Meta, key string) (int, bool) {
	if n, ok := meta.Ints(key); ok {
		return len(n), true
	}
	if f, ok := meta.Floats(key); ok {
		return len(f), true
	}
	return 0, false
}

// CheckAdapter looks for pairs that change nothing or cost more than they can use.
// That every pair is whole and finite the reader has made sure of.
func CheckAdapter(a *adapter.Adapter) ([]Finding, error) {
	var f []Finding
	for _, p := range a.Pairs {
		s, err := PairSpectrum(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key(p), err)
		}
		switch {
		case len(s) > 0 && !(s[0] <= math.MaxFloat32):
			f = append(f, Finding{"error", key(p), "its product is beyond what float32 holds"})
		case p.Magnitude == nil && (len(s) == 0 || s[0] == 0): // DoRA sets norms besides
			f = append(f, Finding{"warning", key(p), "changes nothing: its product is zero"})
		}
		if small := min(p.A.Cols, p.B.Rows); p.Rank > small {
			f = append(f, Finding{"warning", key(p), fmt.Sprintf("has rank %d, more than the %d of the whole matrix", p.Rank, small)})
		}
	}
	return f, nil
}
