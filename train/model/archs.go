package model

import (
	"maps"
	"slices"
)

// archRow is what an architecture fixes and its metadata does not say. What can
// be seen from the tensors (biases, q and k norms per head or whole, norms after a
// block, fused matrices, mixtures, a tied head) stands nowhere: the tensors say it;
// windows, layers without rope and the scale of scores are [arch.Model]'s to answer.
type archRow struct {
	neox             bool
	act              Activation
	embedSqrt        bool    // embeddings times √Hidden
	softcaps         bool    // scores and logits are capped
	scaleKeys        bool    // embedding_scale, residual_scale, logit_scale are read
	defaultBase      float32 // rope base where the key is missing; 0 means 10000
	localBase        float32 // rope base of layers with a window; 0: that of the others
	normaliseExperts bool
}

func (r archRow) freqBase() float32 {
	if r.defaultBase != 0 {
		return r.defaultBase
	}
	return 10000
}

// archs is keyed by general.architecture. Sources: reference/training.md section 11 and the
// graphs of llama.cpp for these names.
var archs = map[string]archRow{
	"llama":    {normaliseExperts: true}, // llama, mistral, mixtral, SmolLM
	"qwen2":    {neox: true},
	"qwen3":    {neox: true},
	"gemma":    {neox: true, act: GELU, embedSqrt: true},
	"gemma2":   {neox: true, act: GELU, embedSqrt: true, softcaps: true},
	"gemma3":   {neox: true, act: GELU, embedSqrt: true, defaultBase: 1e6, localBase: 1e4},
	"phi3":     {neox: true},
	"smollm3":  {},
	"olmo2":    {neox: true},
	"granite":  {scaleKeys: true},
	"qwen2moe": {neox: true},
	"qwen3moe": {neox: true, normaliseExperts: true},
}

// Supported lists the architectures that can be run, sorted.
func Supported() []string { return slices.Sorted(maps.Keys(archs)) }

// scaleKeys are read where an architecture has them.
var scaleKeys = map[string]bool{"embedding_scale": true, "residual_scale": true, "logit_scale": true}

// knownKeys are the keys that ConfigOf reads, and those of the watched groups
// that change nothing a decoder computes.
var knownKeys = map[string]bool{
	"attention.head_count": true, "attention.head_count_kv": true, "attention.key_length": true, "attention.value_length": true,
	"attention.layer_norm_rms_epsilon": true, "attention.scale": true,
	"attention.sliding_window": true, "attention.sliding_window_pattern": true,
	"attn_logit_softcapping": true, "final_logit_softcapping": true,
	"rope.dimension_count": true, "rope.freq_base": true, "rope.freq_base_swa": true, "rope.scale_linear": true,
	"rope.scaling.type": true, "rope.scaling.factor": true, "rope.scaling.original_context_length": true,
	"rope.scaling.attn_factor": true, "rope.scaling.finetuned": true,
	"rope.scaling.yarn_ext_factor": true, "rope.scaling.yarn_attn_factor": true,
	"rope.scaling.yarn_beta_fast": true, "rope.scaling.yarn_beta_slow": true,
	"expert_count": true, "expert_used_count": true, "expert_feed_forward_length": true,
	"expert_shared_feed_forward_length": true, "expert_weights_scale": true, "expert_weights_norm": true,
}
