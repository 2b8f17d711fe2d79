package arch_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/testutil"
)

// TestAccounting: every tensor of a folder is used, known to be of no use, or named
// in an error; and so is every tensor that is missing.
func TestAccounting(t *testing.T) {
	for _, c := range []struct {
		name, model, add, drop string
		want                   string // in the error; "" opens
	}{
		{"as it is", "mixtral", "", "", ""},
		{"buffer", "llama", "model.layers.0.self_attn.rotary_emb.inv_freq", "", ""},
		{"vision", "gemma3", "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", "", ""},
		{"tied head of Gemma", "gemma3", "lm_head.weight", "", ""},
		{"unknown module", "llama", "model.layers.0.mlp.extra_proj.weight", "", "model.layers.0.mlp.extra_proj.weight"},
		{"unknown suffix", "llama", "model.layers.0.mlp.up_proj.scales", "", "model.layers.0.mlp.up_proj.scales"},
		{"two names for one", "llama", "language_model.model.norm.weight", "", "output_norm.weight"},
		{"layer too many", "llama", "model.layers.2.self_attn.o_proj.weight", "", "model.layers.2.self_attn.o_proj.weight"},
		{"expert too many", "mixtral", "model.layers.0.block_sparse_moe.experts.4.w1.weight", "", "experts.4.w1.weight"},
		{"no embedding", "llama", "", "model.embed_tokens.weight", "model.embed_tokens.weight"},
		{"no head", "llama", "", "lm_head.weight", "lm_head.weight"},
		{"no output", "llama", "", "model.layers.1.self_attn.o_proj.weight", "model.layers.1.self_attn.o_proj.weight"},
		{"no expert", "mixtral", "", "model.layers.1.block_sparse_moe.experts.2.w3.weight", "blk.1.ffn_"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := arch.Open(changed(t, c.model, c.add, c.drop), arch.Options{NoVocab: true})
			if err == nil {
				m.Close()
			}
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("error %v does not name %s", err, c.want)
			}
		})
	}
}

// changed copies a recorded folder, one tensor more or less. The new tensor has the
// shape of a layer's o_proj.
func changed(t *testing.T, model, add, drop string) string {
	t.Helper()
	source := testutil.Shared(t, "oracle", "zoo", model, "hf")
	f, err := safetensors.OpenDir(source)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := &folder{t: t}
	for _, x := range f.Tensors {
		if x.Name != drop {
			b.copy(x.Name, x)
		}
	}
	if add != "" {
		b.copy(add, f.Tensor("model.layers.0.self_attn.o_proj.weight"))
	}
	config, err := os.ReadFile(filepath.Join(source, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b.write(config)
}

// folder gathers tensors for a model folder.
type folder struct {
	t    *testing.T
	plan format.Plan
}

func (b *folder) copy(name string, from *format.Tensor) {
	b.t.Helper()
	rows, err := format.StoredRows(from)
	if err != nil {
		b.t.Fatal(err)
	}
	b.put(name, from.Shape, rows)
}

func (b *folder) put(name string, shape []int64, rows format.RowReader) {
	b.t.Helper()
	o, err := format.NewOutput(name, format.F32, shape, rows, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.plan.Outputs = append(b.plan.Outputs, o)
}

func (b *folder) write(config []byte) string {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "hf") // its name goes into the metadata
	if err := os.Mkdir(dir, 0o777); err != nil {
		b.t.Fatal(err)
	}
	w, err := safetensors.Create(filepath.Join(dir, "model.safetensors"), &b.plan, nil, safetensors.WriteOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer w.Abort()
	if err := format.Run(context.Background(), &b.plan, w, format.RunOptions{}); err != nil {
		b.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666); err != nil {
		b.t.Fatal(err)
	}
	return dir
}
