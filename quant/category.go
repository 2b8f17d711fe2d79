package quant

import (
	"slices"
	"strings"
)

// category is the part of a model that a tensor belongs to, as the rules see it.
type category int

const (
	other category = iota
	outputHead
	tokenEmbedding
	attnV // value projections, and fused ones that contain them
	attnK
	attnQ
	attnOutput
	ffnUp
	ffnGate
	ffnDown
)

const perLayerEmbedding = "per_layer_token_embd.weight"

// categoryOf finds the category by parts of the name; the first that is found wins.
func categoryOf(name string) category {
	switch name {
	case "output.weight":
		return outputHead
	case "token_embd.weight", perLayerEmbedding:
		return tokenEmbedding
	}
	for _, c := range []struct {
		part string
		cat  category
	}{
		{"attn_qkv.weight", attnV}, {"attn_kv_b.weight", attnV}, {"attn_v.weight", attnV},
		{"attn_k.weight", attnK}, {"attn_q.weight", attnQ}, {"attn_output.weight", attnOutput},
		{"ffn_up", ffnUp}, {"ffn_gate", ffnGate}, {"ffn_down", ffnDown},
	} {
		if strings.Contains(name, c.part) {
			return c.cat
		}
	}
	return other
}

// keptNames are parts of names of tensors that are never quantized.
var keptNames = []struct{ part, why string }{
	{"_norm.weight", "norms are kept"},
	{"ffn_gate_inp.weight", "expert routers are kept"},
	{"ffn_gate_tid2eid.weight", "routing tables are kept"},
	{"altup", "tiny: kept"}, {"laurel", "tiny: kept"},
	{"per_layer_model_proj", "small: kept"},
	{"ssm_conv1d", "small convolutions are kept"}, {"shortconv.conv.weight", "small convolutions are kept"},
	{"indexer.k_proj.weight", "tiny: kept"}, {"indexer.q_proj.weight", "tiny: kept"},
	{"time_mix_first.weight", "tiny: kept"},
	{"time_mix_w0.weight", "tiny: kept"}, {"time_mix_w1.weight", "tiny: kept"}, {"time_mix_w2.weight", "tiny: kept"},
	{"time_mix_v0.weight", "tiny: kept"}, {"time_mix_v1.weight", "tiny: kept"}, {"time_mix_v2.weight", "tiny: kept"},
	{"time_mix_a0.weight", "tiny: kept"}, {"time_mix_a1.weight", "tiny: kept"}, {"time_mix_a2.weight", "tiny: kept"},
	{"time_mix_g1.weight", "tiny: kept"}, {"time_mix_g2.weight", "tiny: kept"},
	{"time_mix_decay_w1.weight", "tiny: kept"}, {"time_mix_decay_w2.weight", "tiny: kept"},
	{"time_mix_lerp_fused.weight", "tiny: kept"},
	{"attn_rel_b.weight", "position biases are kept"},
	{".position_embd", "vision positions are kept"}, {"sam.pos_embd", "vision positions are kept"},
	{"sam.neck.", "vision convolutions are kept"}, {"sam.net_", "vision convolutions are kept"},
	{".rel_pos", "vision positions are kept"},
	{".patch_embd", "vision patches are kept"}, {".patch_merger", "vision patches are kept"},
	{"a.rvq.codebook", "audio codebooks are kept"}, {"mm.a.code_embd", "audio codebooks are kept"},
}

// keptOf are more such parts of single architectures.
var keptOf = map[string][]string{
	"glm5-next": {"hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate", "indexer_compressor_ape",
		"ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight", "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight"},
}

// eightBitsOf are parts of names of tensors that get no fewer than eight bits from
// the recipe, by architecture.
var eightBitsOf = map[string][]string{"glm5-next": {"attn_q_a", "attn_q_b", "nextn.eh_proj"}}

// hasPart says whether name contains one of parts.
func hasPart(name string, parts []string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(name, p) })
}

// kept says why t, of a model of an architecture, is copied whatever the recipe
// wants, or "".
func (r Recipe) kept(arch string, t TensorDesc) string {
	switch {
	case dims(t.Shape) < 2:
		return "vectors are kept"
	case !strings.HasSuffix(t.Name, "weight"):
		return "not a weight: kept"
	case r.LeaveOutput && t.Name == "output.weight":
		return "output tensor left as it is, as asked"
	case t.Name == "position_embd.weight" || t.Name == "token_types.weight":
		return "position and type embeddings are kept"
	}
	for _, k := range keptNames {
		if strings.Contains(t.Name, k.part) {
			return k.why
		}
	}
	if hasPart(t.Name, keptOf[arch]) {
		return "kept in " + arch
	}
	return ""
}

// dims is the number of dimensions without leading ones.
func dims(shape []int64) int {
	for len(shape) > 1 && shape[0] == 1 {
		shape = shape[1:]
	}
	return len(shape)
}
