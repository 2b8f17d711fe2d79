package convert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

// real writes a float in JSON with a point, so that it is read as one.
type real float64

func (r real) MarshalJSON() ([]byte, error) {
	f := float64(r)
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return strconv.AppendFloat(nil, f, 'f', 1, 64), nil
	}
	return strconv.AppendFloat(nil, f, 'g', -1, 64), nil
}

// hfConfig rebuilds a config.json. Rope stands in the keys that old and new versions
// of transformers read.
type hfConfig struct {
	m *arch.Model
	v map[string]any
}

func newConfig(m *arch.Model, dtype format.Type) ([]byte, error) {
	c := &hfConfig{m: m, v: map[string]any{}}
	c.v["architectures"] = []string{m.Table.Classes[0]}
	c.v["model_type"] = m.Table.ModelType()
	c.v["torch_dtype"] = dtypeName(dtype)
	c.v["use_cache"] = true
	c.v["initializer_range"] = real(0.02)
	c.v["attention_dropout"] = real(0)
	for _, k := range [][2]string{{"num_hidden_layers", "block_count"}, {"max_position_embeddings", "context_length"},
		{"hidden_size", "embedding_length"}, {"intermediate_size", "feed_forward_length"},
		{"num_attention_heads", "attention.head_count"}, {"num_key_value_heads", "attention.head_count_kv"}} {
		c.size(k[0], k[1])
	}
	if _, ok := c.v["num_key_value_heads"]; !ok {
		c.v["num_key_value_heads"] = c.v["num_attention_heads"]
	}
	c.real("rms_norm_eps", "attention.layer_norm_rms_epsilon")
	c.size("head_dim", "attention.key_length")
	if e := m.View("token_embd.weight"); e != nil && len(e.Shape) == 2 {
		c.v["vocab_size"] = e.Shape[0]
	}
	c.v["tie_word_embeddings"] = m.View("output.weight") == nil
	for k, key := range map[string]string{"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"} {
		if id, ok := m.Meta.Int("tokenizer.ggml." + key + "_token_id"); ok {
			c.v[k] = id
		} else {
			c.v[k] = nil
		}
	}
	c.v["hidden_act"] = "silu"
	if err := c.rope(); err != nil {
		return nil, err
	}
	c.family()
	return encodeJSON(c.v)
}

// encodeJSON writes v with an indent of two and sorted keys, as transformers does.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("convert: %w", err)
	}
	return b.Bytes(), nil
}

func dtypeName(t format.Type) string {
	switch t {
	case format.F16:
		return "float16"
	case format.BF16:
		return "bfloat16"
	}
	return "float32"
}

func (c *hfConfig) size(name, key string) {
	if n, ok := c.m.Meta.Int(c.m.Arch + "." + key); ok {
		c.v[name] = n
	}
}

func (c *hfConfig) real(name, key string) {
	if f, ok := c.float(key); ok {
		c.v[name] = real(f)
	}
}

// float gives the shortest decimal number that is the stored float32, so that 1e-5
// is 1e-5 again.
func (c *hfConfig) float(key string) (float64, bool) {
	f, ok := c.m.Meta.Float(c.m.Arch + "." + key)
	if !ok {
		return 0, false
	}
	return shortest(f), true
}

func shortest(f float64) float64 {
	if float64(float32(f)) != f {
		return f
	}
	s, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', -1, 32), 64)
	if err != nil {
		return f
	}
	return s
}

// ropeBase is the base where the file states none.
const ropeBase = 10000

func (c *hfConfig) rope() error {
	theta, ok := c.float("rope.freq_base")
	if !ok {
		theta = ropeBase
		if c.m.Arch == "gemma3" {
			theta = 1e6
		}
	}
	c.v["rope_theta"] = real(theta)
	c.v["rope_scaling"] = nil
	l3, err := arch.FindLlama3Scaling(c.m)
	if err != nil {
		return err
	}
	if l3 != nil {
		c.v["rope_scaling"] = map[string]any{"rope_type": "llama3", "factor": real(l3.Factor), "low_freq_factor": real(l3.Low),
			"high_freq_factor": real(l3.High), "original_max_position_embeddings": l3.Original}
		return nil
	}
	if c.m.View("rope_factors_long.weight") != nil {
		return c.longRope()
	}
	kind, _ := c.m.Meta.Str(c.m.Arch + ".rope.scaling.type")
	factor, hasFactor := c.float("rope.scaling.factor")
	switch {
	case (kind == "linear" || kind == "yarn") && hasFactor:
		s := map[string]any{"rope_type": kind, "factor": real(factor)}
		if kind == "yarn" {
			if n, ok := c.m.Meta.Int(c.m.Arch + ".rope.scaling.original_context_length"); ok {
				s["original_max_position_embeddings"] = n
			}
			for _, k := range [][2]string{{"extrapolation_factor", "yarn_ext_factor"}, {"attention_factor", "yarn_attn_factor"},
				{"beta_fast", "yarn_beta_fast"}, {"beta_slow", "yarn_beta_slow"}} {
				if f, ok := c.float("rope.scaling." + k[1]); ok {
					s[k[0]] = real(f)
				}
			}
		}
		c.v["rope_scaling"] = s
	case kind != "" && kind != "none" && kind != "linear" && kind != "yarn":
		return format.Unsupported("%s: rope scaling %q without its factors", c.m.Path, kind)
	}
	return nil
}

func (c *hfConfig) longRope() error {
	s := map[string]any{"rope_type": "longrope", "type": "longrope"}
	for name, tensor := range map[string]string{"long_factor": "rope_factors_long.weight", "short_factor": "rope_factors_short.weight"} {
		v := c.m.View(tensor)
		if v == nil {
			return format.Unsupported("%s: %s is missing", c.m.Path, tensor)
		}
		_, cols := v.Rows.Dims()
		x := make([]float32, cols)
		if err := v.Rows.ReadRows(x, 0); err != nil {
			return err
		}
		list := make([]real, len(x))
		for i, f := range x {
			list[i] = real(shortest(float64(f)))
		}
		s[name] = list
	}
	c.v["rope_scaling"] = s
	return nil
}

// family adds what only some architectures have.
func (c *hfConfig) family() {
	has := func(tensor string) bool { return c.m.View(tensor) != nil }
	switch c.m.Table.ModelType() {
	case "llama", "mistral":
		c.v["attention_bias"] = has("blk.0.attn_q.bias")
		c.v["mlp_bias"] = has("blk.0.ffn_up.bias")
	case "mixtral":
		c.size("num_local_experts", "expert_count")
		c.size("num_experts_per_tok", "expert_used_count")
		c.v["sliding_window"] = nil
	case "smollm3":
		c.v["attention_bias"] = has("blk.0.attn_q.bias")
		c.v["no_rope_layer_interval"] = 4
		var flags []int
		for _, on := range c.m.RopeLayers() {
			n := 0
			if on {
				n = 1
			}
			flags = append(flags, n)
		}
		c.v["no_rope_layers"] = flags
		c.v["use_sliding_window"] = false
	case "granite":
		c.real("attention_multiplier", "attention.scale")
		c.real("embedding_multiplier", "embedding_scale")
		c.real("residual_multiplier", "residual_scale")
		c.real("logits_scaling", "logit_scale")
		c.v["attention_bias"] = has("blk.0.attn_q.bias")
	case "qwen2", "qwen3":
		c.v["use_sliding_window"] = false
		c.v["attention_bias"] = has("blk.0.attn_q.bias")
	case "qwen2_moe", "qwen3_moe":
		c.size("num_experts", "expert_count")
		c.size("num_experts_per_tok", "expert_used_count")
		c.size("moe_intermediate_size", "expert_feed_forward_length")
		c.size("shared_expert_intermediate_size", "expert_shared_feed_forward_length")
		c.v["norm_topk_prob"] = c.m.Arch == "qwen3moe"
		if norm, ok := c.m.Meta.Bool(arch.KeyNormTopK); ok {
			c.v["norm_topk_prob"] = norm
		}
		c.v["decoder_sparse_step"] = 1
		c.v["mlp_only_layers"] = []int{}
		c.v["use_sliding_window"] = false
	case "gemma2", "gemma3_text":
		c.gemma()
	case "phi3":
		c.phi3()
	}
}

func (c *hfConfig) gemma() {
	delete(c.v, "hidden_act")
	c.v["hidden_activation"] = "gelu_pytorch_tanh"
	c.v["attention_bias"] = false
	c.size("sliding_window", "attention.sliding_window")
	scale := c.m.AttentionScale()
	scalar := 1 / (scale * scale)
	if r := math.Round(scalar); math.Abs(scalar-r) < 1e-4*scalar {
		c.v["query_pre_attn_scalar"] = int64(r)
	} else {
		c.v["query_pre_attn_scalar"] = real(scalar)
	}
	c.v["attn_logit_softcapping"], c.v["final_logit_softcapping"] = nil, nil
	c.real("attn_logit_softcapping", "attn_logit_softcapping")
	c.real("final_logit_softcapping", "final_logit_softcapping")
	var types []string
	for _, local := range c.m.SlidingLayers() {
		kind := "full_attention"
		if local {
			kind = "sliding_attention"
		}
		types = append(types, kind)
	}
	c.v["layer_types"] = types
	if c.m.Arch == "gemma3" {
		local, ok := c.float("rope.freq_base_swa")
		if !ok {
			local = ropeBase
		}
		c.v["rope_local_base_freq"] = real(local)
		c.v["sliding_window_pattern"] = 6
	}
}

func (c *hfConfig) phi3() {
	c.size("original_max_position_embeddings", "rope.scaling.original_context_length")
	c.v["sliding_window"] = nil
	if n, ok := c.m.Meta.Int("phi3.attention.sliding_window"); ok && n > 0 {
		c.v["sliding_window"] = n
	}
	dims, ok := c.m.Meta.Int("phi3.rope.dimension_count")
	if d := c.m.HeadDim(); ok && d > 0 {
		c.v["partial_rotary_factor"] = real(float64(dims) / float64(d))
	}
	for _, k := range []string{"resid_pdrop", "embd_pdrop"} {
		c.v[k] = real(0)
	}
}

// generationConfig rebuilds generation_config.json.
func generationConfig(m *arch.Model) ([]byte, error) {
	v := map[string]any{"_from_model_config": true}
	for _, k := range []string{"bos", "eos"} {
		if id, ok := m.Meta.Int("tokenizer.ggml." + k + "_token_id"); ok {
			v[k+"_token_id"] = id
		}
	}
	if id, ok := m.Meta.Int("tokenizer.ggml.padding_token_id"); ok {
		v["pad_token_id"] = id
	}
	if id, ok := m.Meta.Int("tokenizer.ggml.eot_token_id"); ok && v["eos_token_id"] != nil && id != v["eos_token_id"] {
		v["eos_token_id"] = []any{v["eos_token_id"], id}
	}
	for _, k := range arch.SamplingKeys() {
		if f, ok := m.Meta.Float("general.sampling." + k.GGUF); ok {
			if k.Integer {
				v[k.HF] = int64(f)
			} else {
				v[k.HF] = real(shortest(f))
			}
			delete(v, "_from_model_config")
		}
	}
	if v["temperature"] != nil {
		v["do_sample"] = true
	}
	return encodeJSON(v)
}
