package adapter

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/testutil"
)

// eighths are n of them from first on.
func eighths(first float32, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = first + float32(i)/8
	}
	return x
}

// peftFolder writes an adapter as PEFT would.
func peftFolder(t *testing.T, config map[string]any, tensors map[string]Matrix, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	plan := &format.Plan{}
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		if err := output(plan, name, format.F32, dims(tensors[name]), tensors[name]); err != nil {
			t.Fatal(err)
		}
	}
	w, err := safetensors.Create(filepath.Join(dir, checkpoint.AdapterWeightsName), plan, map[string]string{"format": "pt"}, safetensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := carry(plan, w); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	files[checkpoint.AdapterConfigName] = string(b)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestPEFTTokens reads what PEFT writes for trained tokens: indices as a list or by module, in any order, beside
// LoRA or alone, with copies of the base's matrix, and a tokenizer saved beside.
func TestPEFTTokens(t *testing.T) {
	t.Parallel()
	tied, err := arch.Open(testutil.Shared(t, "models", "sprig", "hf"), arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tied.Close()
	untied, err := arch.Open(testutil.Shared(t, "oracle", "zoo", "llama", "hf"), arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer untied.Close()
	const p = "base_model.model."
	lora := func(base int, more map[string]Matrix) map[string]Matrix {
		m := map[string]Matrix{
			p + "model.layers.0.self_attn.q_proj.lora_A.weight": {1, base, eighths(0, base)},
			p + "model.layers.0.self_attn.q_proj.lora_B.weight": {base, 1, eighths(1, base)},
		}
		maps.Copy(m, more)
		return m
	}
	// resized is a matrix of m as PEFT saves it, with more rows.
	resized := func(m *arch.Model, name string, n int) Matrix {
		v := m.View(name)
		rows, cols := v.Rows.Dims()
		x := Matrix{Rows: n, Cols: int(cols), Data: make([]float32, n*int(cols))}
		if err := v.Rows.ReadRows(x.Data[:rows*cols], 0); err != nil {
			t.Fatal(err)
		}
		for i := int(rows * cols); i < len(x.Data); i++ {
			x.Data[i] = 0.25
		}
		return x
	}
	rows := func(n, cols int) Matrix { return Matrix{n, cols, eighths(1, n*cols)} }
	tokenizer := map[string]string{"tokenizer.json": `{"added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": true}, {"id": 751, "content": "<a>"}, {"id": 752, "content": "<b>", "special": true}]}`}
	for _, c := range []struct {
		name    string
		base    *arch.Model
		config  map[string]any
		tensors map[string]Matrix
		files   map[string]string
		want    string // of an error
		added   int
		ids     map[string][]int32 // by target
	}{
		{name: "a list", base: tied, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []int{7, 2}},
			tensors: lora(256, map[string]Matrix{p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(2, 256)}), ids: map[string][]int32{arch.EmbeddingName: {2, 7}}},
		{name: "new tokens, with the matrix that PEFT resized", base: tied, files: tokenizer, added: 2,
			config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": map[string]any{"embed_tokens": []int{752, 751}}},
			tensors: lora(256, map[string]Matrix{
				p + "model.embed_tokens.token_adapter.trainable_tokens_delta.default":    rows(2, 256),
				p + "model.embed_tokens.token_adapter.trainable_tokens_original.default": rows(2, 256),
				p + "model.embed_tokens.token_adapter.base_layer.weight":                 resized(tied, arch.EmbeddingName, 753),
				p + "model.embed_tokens.original_module.weight":                          resized(tied, arch.EmbeddingName, 753),
			}), ids: map[string][]int32{arch.EmbeddingName: {751, 752}}},
		{name: "alone", base: tied, files: map[string]string{"added_tokens.json": `{"<a>": 751}`}, added: 1,
			config:  map[string]any{"peft_type": "TRAINABLE_TOKENS", "token_indices": []int{751}, "target_modules": []string{"embed_tokens"}, "init_weights": true},
			tensors: map[string]Matrix{p + "model.embed_tokens.trainable_tokens_delta": rows(1, 256), p + "model.embed_tokens.base_layer.weight": resized(tied, arch.EmbeddingName, 752)},
			ids:     map[string][]int32{arch.EmbeddingName: {751}}},
		{name: "both matrices", base: untied, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": map[string]any{"embed_tokens": []int{3, 4}, "lm_head": []int{4}}},
			tensors: lora(64, map[string]Matrix{p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(2, 64), p + "lm_head.token_adapter.trainable_tokens_delta": rows(1, 64)}),
			ids:     map[string][]int32{arch.EmbeddingName: {3, 4}, arch.HeadName: {4}}},
		{name: "a head of its own that was only resized", base: untied, files: map[string]string{"added_tokens.json": `{"<a>": 384}`}, added: 1,
			config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []int{384}},
			tensors: lora(64, map[string]Matrix{
				p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(1, 64),
				p + "model.embed_tokens.token_adapter.base_layer.weight":      resized(untied, arch.EmbeddingName, 400),
				p + "lm_head.weight": resized(untied, arch.HeadName, 400),
			}), ids: map[string][]int32{arch.EmbeddingName: {384}, arch.HeadName: {384}}},
		{name: "a tied head beside the embedding", base: tied, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []int{2, 7}},
			tensors: lora(256, map[string]Matrix{p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(2, 256), p + "lm_head.token_adapter.trainable_tokens_delta": rows(2, 256)}),
			ids:     map[string][]int32{arch.EmbeddingName: {2, 7}}},
		{name: "another model's matrix", base: tied, files: tokenizer, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []int{751, 752}},
			tensors: lora(256, map[string]Matrix{p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(2, 256), p + "model.embed_tokens.token_adapter.base_layer.weight": rows(753, 256)}),
			want:    "is it another model's adapter"},
		{name: "nothing says what the token is", base: tied, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []int{751}},
			tensors: lora(256, map[string]Matrix{p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(1, 256)}), want: "the tokenizer belongs beside the adapter"},
		{name: "a row of the resized matrix is not trained", base: tied, files: tokenizer, added: 2, ids: map[string][]int32{arch.EmbeddingName: {751, 752}}, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []int{751}},
			tensors: lora(256, map[string]Matrix{p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(1, 256), p + "model.embed_tokens.token_adapter.base_layer.weight": resized(tied, arch.EmbeddingName, 753)})},
		{name: "twice", base: tied, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []int{5, 5}},
			tensors: lora(256, map[string]Matrix{p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(2, 256)}), want: "token 5 is there twice"},
		{name: "too few", base: tied, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []int{5}},
			tensors: lora(256, map[string]Matrix{p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(2, 256)}), want: "1 indices for model.embed_tokens, and 2 rows"},
		{name: "no rows", base: tied, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []int{5}}, tensors: lora(256, nil), want: "no rows of tokens"},
		{name: "no indices", base: tied, config: map[string]any{"peft_type": "LORA", "r": 1},
			tensors: lora(256, map[string]Matrix{p + "model.embed_tokens.token_adapter.trainable_tokens_delta": rows(2, 256)}), want: "the configuration has no indices"},
		{name: "not a number", base: tied, config: map[string]any{"peft_type": "LORA", "r": 1, "trainable_token_indices": []any{"x"}},
			tensors: lora(256, nil), want: "x is no token"},
	} {
		if c.files == nil {
			c.files = map[string]string{}
		}
		dir := peftFolder(t, c.config, c.tensors, maps.Clone(c.files))
		a, err := Open(dir)
		if err == nil {
			err = a.Resolve(c.base)
		}
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v where %q is wanted", c.name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		check := func(what string, a *Adapter) {
			t.Helper()
			if len(a.Tokens.Added) != c.added || len(a.Tokens.Rows) != len(c.ids) {
				t.Fatalf("%s, %s: %+v", c.name, what, a.Tokens)
			}
			for _, r := range a.Tokens.Rows {
				if !slices.Equal(r.IDs, c.ids[r.Target]) {
					t.Errorf("%s, %s: %s has rows of %v", c.name, what, r.Target, r.IDs)
				}
				// The row of the first index of the configuration is the file's first.
				first := r.Rows.Row(0)
				if c.name == "a list" || strings.HasPrefix(c.name, "new tokens") {
					first = r.Rows.Row(1)
				}
				if want := [2]float32{1, 1.125}; r.Target == arch.HeadName && c.added == 1 {
					if first[0] != 0.25 {
						t.Errorf("%s, %s: the head's row is not the one that was resized", c.name, what)
					}
				} else if [2]float32(first) != want {
					t.Errorf("%s, %s: the rows are out of order", c.name, what)
				}
			}
		}
		check("read", a)
		for _, name := range []string{"a.gguf", "a.safetensors", "mlx"} {
			write := map[string]func(string, *Adapter, WriteOptions) error{"a.gguf": WriteGGUF, "a.safetensors": WriteKohya, "mlx": WriteMLX}[name]
			path := filepath.Join(t.TempDir(), name)
			if err := write(path, a, WriteOptions{}); err == nil || !strings.Contains(err.Error(), "no place for the rows of tokens") {
				t.Errorf("%s: %s: %v", c.name, name, err)
			}
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s: %s was written", c.name, name)
			}
		}
		out := filepath.Join(t.TempDir(), "out")
		if err := WritePEFT(out, a, WriteOptions{}); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		b, err := Open(out)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Resolve(c.base); err != nil {
			t.Fatal(err)
		}
		check("written and read", b)
		for name := range c.files {
			if name != checkpoint.AdapterConfigName {
				if _, err := os.Stat(filepath.Join(out, name)); err != nil {
					t.Errorf("%s: the tokenizer was left behind: %v", c.name, err)
				}
			}
		}
	}
}
