package arch

import (
	"fmt"
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// Keys for facts that a Hugging Face folder states and GGUF has no key for. They
// stand in Model.Meta and are never written to a file.
const (
	KeyAttentionScale = "graft.attention.scale"          // float32: factor on q·k, where it is not 1/sqrt(head size)
	KeySlidingWindow  = "graft.attention.sliding_window" // uint32: the window of layers that slide, where llama.cpp has none
	KeySlidingLayers  = "graft.attention.sliding_layers" // []bool: which layers have a sliding window
	KeyRopeLayers     = "graft.rope.layers"              // []bool: which layers have rotary embedding
	KeyNormTopK       = "graft.expert.norm_topk"         // bool: whether the weights of the chosen experts sum to one
	keyClass          = "graft.hf.class"                 // string: the architecture class of the folder
)

// metaWriter adds keys of one architecture in the converter's order.
type metaWriter struct {
	meta  *gguf.Meta
	arch  string
	ftype uint32
	notes []string
	err   error
}

func (w *metaWriter) u32(key string, n int64) {
	if n < 0 || n > math.MaxUint32 {
		w.fail(fmt.Errorf("%s: %d is no 32-bit size", key, n))
		return
	}
	w.meta.Set(w.arch+"."+key, uint32(n))
}

func (w *metaWriter) f32(key string, f float64) { w.meta.Set(w.arch+"."+key, float32(f)) }
func (w *metaWriter) str(key, s string)         { w.meta.Set(w.arch+"."+key, s) }
func (w *metaWriter) note(f string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(f, args...))
}

func (w *metaWriter) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// size writes an integer under key if the configuration has one of names.
func (w *metaWriter) size(h *hparams, key string, names ...string) {
	if n, ok := h.int(names...); ok {
		w.u32(key, n)
	}
}

// real does the same with a float.
func (w *metaWriter) real(h *hparams, key string, names ...string) {
	if f, ok := h.float(names...); ok {
		w.f32(key, f)
	}
}

func (w *metaWriter) fileType() { w.meta.Set("general.file_type", w.ftype) }

// decoderKeys are the keys that the converter writes for any decoder.
func decoderKeys(h *hparams, w *metaWriter) {
	w.size(h, "block_count", "num_hidden_layers")
	w.size(h, "context_length", "max_position_embeddings")
	w.size(h, "embedding_length", "hidden_size")
	w.size(h, "feed_forward_length", "intermediate_size")
	w.size(h, "attention.head_count", "num_attention_heads")
	w.size(h, "attention.head_count_kv", "num_key_value_heads")
	ropeKeys(h.globalRope(), w)
	w.real(h.globalRope(), "rope.freq_base", "rope_theta")
	w.real(h.localRope(), "rope.freq_base_swa", "rope_theta")
	w.real(h, "attention.layer_norm_rms_epsilon", "rms_norm_eps")
	w.size(h, "expert_count", "num_local_experts", "num_experts")
	w.size(h, "expert_used_count", "num_experts_per_tok")
	if n, ok := h.int("head_dim"); ok {
		w.u32("attention.key_length", n)
		w.u32("attention.value_length", n)
	}
	w.fileType()
	slidingKeys(h, w)
}

// ropeKeys writes the scaling of rope. llama3 has none: it becomes a tensor.
func ropeKeys(r *hparams, w *metaWriter) {
	factor, hasFactor := r.float("factor")
	switch t := r.str("rope_type"); t {
	case "", "default", "llama3":
	case "linear":
		if hasFactor {
			w.str("rope.scaling.type", "linear")
			w.f32("rope.scaling.factor", factor)
		}
	case "yarn":
		if !hasFactor {
			return
		}
		w.str("rope.scaling.type", "yarn")
		w.f32("rope.scaling.factor", factor)
		w.size(r, "rope.scaling.original_context_length", "original_max_position_embeddings")
		w.real(r, "rope.scaling.yarn_ext_factor", "extrapolation_factor")
		w.real(r, "rope.scaling.yarn_attn_factor", "attention_factor", "attn_factor")
		w.real(r, "rope.scaling.yarn_beta_fast", "beta_fast")
		w.real(r, "rope.scaling.yarn_beta_slow", "beta_slow")
	case "longrope", "su":
		w.str("rope.scaling.type", "longrope")
	case "dynamic":
		w.note("rope_scaling dynamic has no key in GGUF: the converted model has no scaling beyond its trained length")
	default:
		w.fail(format.Unsupported("rope_type %q", t))
	}
}

// slidingKeys keeps what the configuration says about sliding windows.
func slidingKeys(h *hparams, w *metaWriter) {
	types := h.strs("layer_types")
	if types != nil {
		layers := make([]bool, len(types))
		any := false
		for i, t := range types {
			layers[i] = t == "sliding_attention"
			any = any || layers[i]
		}
		if any {
			w.meta.Set(KeySlidingLayers, layers)
		}
	}
	n, ok := h.int("sliding_window")
	switch h.table.modelType {
	case "mistral", "mixtral":
		if ok {
			w.meta.Set(KeySlidingWindow, uint32(n))
			w.note("sliding_window %d has no key in GGUF for llama: llama.cpp attends to everything", n)
		}
	case "qwen2", "qwen3", "qwen2_moe", "qwen3_moe":
		if ok && h.bool("use_sliding_window") {
			w.meta.Set(KeySlidingWindow, uint32(n))
			if first, ok := h.int("max_window_layers"); ok && types == nil {
				count, _ := h.int("num_hidden_layers")
				layers := make([]bool, count)
				for i := range layers {
					layers[i] = int64(i) >= first
				}
				w.meta.Set(KeySlidingLayers, layers)
			}
			w.note("sliding_window %d has no key in GGUF for %s: llama.cpp attends to everything", n, h.table.Name)
		}
	}
}

func llamaKeys(h *hparams, w *metaWriter) {
	decoderKeys(h, w)
	w.size(h, "vocab_size", "vocab_size")
	w.u32("rope.dimension_count", h.headDim())
	if h.table.modelType != "smollm3" {
		return
	}
	count, _ := h.int("num_hidden_layers")
	layers := make([]bool, count)
	usual := true
	flags := h.floats("no_rope_layers") // 1: rope, 0: none
	interval, _ := h.int("no_rope_layer_interval")
	for i := range layers {
		if flags != nil && i < len(flags) {
			layers[i] = flags[i] != 0
		} else {
			layers[i] = interval <= 0 || (int64(i)+1)%interval != 0
		}
		usual = usual && layers[i] == ((i+1)%4 != 0)
	}
	w.meta.Set(KeyRopeLayers, layers)
	if !usual {
		w.note("no_rope_layers has no key in GGUF: llama.cpp leaves rope out of every fourth layer")
	}
}

// graniteKeys: the converter ignores head_dim.
func graniteKeys(h *hparams, w *metaWriter) {
	delete(h.v, "head_dim")
	llamaKeys(h, w)
	for _, k := range [][2]string{{"attention.scale", "attention_multiplier"}, {"embedding_scale", "embedding_multiplier"},
		{"residual_scale", "residual_multiplier"}, {"logit_scale", "logits_scaling"}} {
		if f, ok := h.float(k[1]); ok && f != 0 {
			w.f32(k[0], f)
		}
	}
}

func qwenMoeKeys(h *hparams, w *metaWriter) {
	decoderKeys(h, w)
	w.size(h, "expert_feed_forward_length", "moe_intermediate_size")
	w.size(h, "expert_shared_feed_forward_length", "shared_expert_intermediate_size")
	if norm, ok := h.v["norm_topk_prob"].(bool); ok {
		w.meta.Set(KeyNormTopK, norm)
		if norm != (h.table.Name == "qwen3moe") {
			w.note("norm_topk_prob %v has no key in GGUF: llama.cpp takes %v for %s", norm, !norm, h.table.Name)
		}
	}
}

// gemmaScale keeps the factor on q·k, which GGUF cannot state.
func gemmaScale(h *hparams, w *metaWriter) {
	s, ok := h.float("query_pre_attn_scalar")
	if !ok || s <= 0 || s == float64(h.headDim()) {
		return
	}
	w.meta.Set(KeyAttentionScale, float32(1/math.Sqrt(s)))
	hidden, _ := h.int("hidden_size")
	heads, _ := h.heads()
	layers, _ := h.int("num_hidden_layers")
	// llama.cpp takes hidden/heads for the 27B models, which it knows by their layers.
	large := h.table.Name == "gemma2" && layers == 46 || h.table.Name == "gemma3" && layers == 62
	if !large || s != float64(hidden/heads) {
		w.note("query_pre_attn_scalar %g has no key in GGUF: llama.cpp will take the head's size, %d, and compute other values", s, h.headDim())
	}
}

func gemma2Keys(h *hparams, w *metaWriter) {
	w.size(h, "context_length", "max_position_embeddings")
	w.size(h, "embedding_length", "hidden_size")
	w.size(h, "block_count", "num_hidden_layers")
	w.size(h, "feed_forward_length", "intermediate_size")
	w.size(h, "attention.head_count", "num_attention_heads")
	w.size(h, "attention.head_count_kv", "num_key_value_heads", "num_attention_heads")
	w.real(h, "attention.layer_norm_rms_epsilon", "rms_norm_eps")
	w.size(h, "attention.key_length", "head_dim")
	w.size(h, "attention.value_length", "head_dim")
	w.fileType()
	w.real(h, "attn_logit_softcapping", "attn_logit_softcapping")
	w.real(h, "final_logit_softcapping", "final_logit_softcapping")
	w.size(h, "attention.sliding_window", "sliding_window")
	slidingKeys(h, w)
	gemmaScale(h, w)
	if base, ok := h.globalRope().float("rope_theta"); ok && base != 10000 {
		w.note("rope_theta %g: the converter writes no rope base for gemma2, so llama.cpp takes 10000", base)
	}
}

func gemma3Keys(h *hparams, w *metaWriter) {
	decoderKeys(h, w)
	if f, ok := h.float("final_logit_softcapping"); ok && f != 0 {
		w.f32("final_logit_softcapping", f)
	}
	if p, ok := h.int("sliding_window_pattern"); !ok || p != 1 {
		w.size(h, "attention.sliding_window", "sliding_window")
	}
	gemmaScale(h, w)
}

// phi3Keys leaves rope.scaling.type out, as the converter does; llama.cpp knows
// longrope by its tensors. attn_factor is written before all other keys, with the
// tensors (see ropeTensors).
func phi3Keys(h *hparams, w *metaWriter) {
	w.size(h, "context_length", "max_position_embeddings")
	w.size(&hparams{v: h.rope}, "rope.scaling.original_context_length", "original_max_position_embeddings")
	w.size(h, "embedding_length", "hidden_size")
	w.size(h, "feed_forward_length", "intermediate_size")
	w.size(h, "block_count", "num_hidden_layers")
	w.size(h, "attention.head_count", "num_attention_heads")
	w.size(h, "attention.head_count_kv", "num_key_value_heads")
	w.real(h, "attention.layer_norm_rms_epsilon", "rms_norm_eps")
	w.u32("rope.dimension_count", phi3RopeDims(h))
	w.real(h.globalRope(), "rope.freq_base", "rope_theta")
	w.fileType()
	n, _ := h.int("sliding_window")
	w.u32("attention.sliding_window", n) // 0 tells Phi-4 from the others
}

// phi3RopeDims is the number of rotated dimensions of a head.
func phi3RopeDims(h *hparams) int64 {
	part, ok := (&hparams{v: h.rope}).float("partial_rotary_factor")
	if !ok {
		part = 1
	}
	hidden, _ := h.int("hidden_size")
	heads, _ := h.heads()
	return int64(part*float64(hidden)) / heads
}
