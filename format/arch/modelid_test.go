package arch

import (
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// TestParseModelID: names as people publish them, and the parts that the reference
// converter finds in them.
func TestParseModelID(t *testing.T) {
	for _, c := range []struct {
		id     string
		params int64
		want   modelID
	}{
		{"mistralai/Mixtral-8x7B-Instruct-v0.1", 0, modelID{full: "Mixtral-8x7B-Instruct-v0.1", org: "mistralai", basename: "Mixtral", finetune: "Instruct", version: "v0.1", sizing: "8x7B"}},
		{"Meta-Llama-3-8B", 8e9, modelID{full: "Meta-Llama-3-8B", basename: "Meta-Llama-3", sizing: "8B"}},
		{"Qwen2.5-0.5B-Instruct", 494e6, modelID{full: "Qwen2.5-0.5B-Instruct", basename: "Qwen2.5", finetune: "Instruct", sizing: "0.5B"}},
		{"gemma-3-270m", 268e6, modelID{full: "gemma-3-270m", basename: "gemma-3", sizing: "270M"}},
		{"Phi-3-mini-4k-instruct", 3.8e9, modelID{full: "Phi-3-mini-4k-instruct", basename: "Phi-3", finetune: "4k-instruct", sizing: "mini"}},
		{"bloom-7b1", 7e9, modelID{full: "bloom-7b1", basename: "bloom", sizing: "7.1B"}},
		{"hf", 1e6, modelID{full: "hf"}},
		{"A model for people", 0, modelID{full: "A model for people"}},
		{"my-lora", -1e6, modelID{full: "my-lora"}},
		{"./zephyr", 0, modelID{full: "zephyr"}},
	} {
		if got := parseModelID(c.id, c.params); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.id, got, c.want)
		}
	}
}

func TestTitle(t *testing.T) {
	for in, want := range map[string]string{
		"Mixtral-8x7B-Instruct-v0.1": "Mixtral 8x7B Instruct v0.1", "gemma-3-270m": "Gemma 3 270m", "hf": "Hf", "o'neil": "O'Neil",
	} {
		if got := title(in); got != want {
			t.Errorf("%q as a title is %q, want %q", in, got, want)
		}
	}
}

func TestRoundedCount(t *testing.T) {
	for n, want := range map[int64]string{3340288: "3.3M", 134515008: "135M", 111000: "111K", 7_241_732_096: "7.2B", 1_000_000: "1000K"} {
		if got := roundedCount(n); got != want {
			t.Errorf("%d parameters are %s, want %s", n, got, want)
		}
	}
}

func TestPattern(t *testing.T) {
	for name, want := range map[string]string{
		"model.layers.12.mlp.experts.3.down_proj": "model.layers.#.mlp.experts.*.down_proj",
		"blk.0.attn_q":      "blk.#.attn_q",
		"model.layers.01.x": "model.layers.01.x",
		"lm_head":           "lm_head",
	} {
		p, layer, expert := pattern(name)
		if p != want {
			t.Errorf("%s has pattern %s, want %s", name, p, want)
		}
		if fill(p, layer, expert) != name {
			t.Errorf("%s does not come back from %s", name, p)
		}
	}
}

// TestModules reads every table both ways.
func TestModules(t *testing.T) {
	for _, table := range Tables() {
		for _, r := range table.rules {
			if r.bare || r.op == dropped {
				continue
			}
			module := fill(r.hf, 7, 3)
			m, ok := table.Module(module)
			if !ok {
				t.Errorf("%s: %s is not found", table.modelType, module)
				continue
			}
			back, ok := table.HFModule(m.Tensor, max(m.Expert, 0))
			if !ok || back != module {
				t.Errorf("%s: %s is %s, which is %s", table.modelType, module, m.Tensor, back)
			}
		}
	}
}

// TestFindLlama3Scaling recovers published parameters, and unusual ones.
func TestFindLlama3Scaling(t *testing.T) {
	for _, want := range []Llama3Scaling{
		{Factor: 8, Low: 1, High: 4, Original: 8192},
		{Factor: 32, Low: 1, High: 4, Original: 8192},
		{Factor: 8, Low: 1, High: 4, Original: 64},
		{Factor: 16, Low: 1, High: 8, Original: 6000},
	} {
		v := vector(llama3Table(500000, float32(want.Factor), 1, float32(want.High), float32(want.Original), 128))
		meta := &gguf.Meta{}
		meta.Set("general.architecture", "llama")
		meta.Set("llama.rope.freq_base", float32(500000))
		m := NewModel("test", meta, []*format.View{{Name: "rope_freqs.weight", Shape: []int64{64}, Rows: v}})
		got, err := FindLlama3Scaling(m)
		if err != nil || *got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	meta := &gguf.Meta{}
	meta.Set("general.architecture", "llama")
	m := NewModel("test", meta, []*format.View{{Name: "rope_freqs.weight", Shape: []int64{3}, Rows: vector{1, 5, 2}}})
	if _, err := FindLlama3Scaling(m); err == nil {
		t.Error("factors that no parameters give were accepted")
	}
}
