package arch

import (
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
)

// Rope is how an architecture pairs the elements that rotary embedding rotates.
type Rope int

// Kinds of rope. For Norm the converter reorders the rows of query and key
// matrices, since GGUF rotates neighbours where Hugging Face rotates halves.
const (
	Neox Rope = iota // element i with i + d/2; rows as in the checkpoint
	Norm             // elements 2i and 2i+1; rows of each head interleaved
)

// op is what happens to a tensor on its way from Hugging Face to GGUF; each has
// an inverse.
type op int

const (
	asIs      op = iota
	queryRows    // rows of each query head interleaved, if the rope is Norm
	keyRows      // the same for key heads
	plusOne      // one added: the norm's weight is stored as its distance from one
	experts      // one matrix per expert in the checkpoint, a stack in GGUF
	gateHalf     // stack of [gate; up] in the checkpoint: the first half of each
	upHalf       // the second half
	tokenRows    // embedding rows, cut to the tokenizer's size (Gemma 3)
	dropped      // known, and of no use to a text model in GGUF
)

// rule maps one kind of module. In names, # stands for the number of the layer
// and * for that of the expert.
type rule struct {
	gguf string // without ".weight" or ".bias"
	hf   string
	op   op
	bare bool // in the checkpoint the name has no ".weight" (fused experts of newer checkpoints)
	once bool // only read, never written: another rule gives the name to write
}

// Table is what graft knows of an architecture. Tables are data; a new
// architecture is a new table.
type Table struct {
	Name    string   // general.architecture
	Classes []string // "architectures" in config.json, the first is the one to write
	Rope    Rope
	rules   []rule
	// defaults are the values of config.json that the model's library assumes when
	// they are absent.
	defaults map[string]any
	// keys writes the metadata between general.* and general.quantization_version.
	keys func(*hparams, *metaWriter)
	// vocab says which forms of a tokenizer the converter tries, in order.
	vocab []vocabForm
	// modelType is model_type in config.json.
	modelType string
	// pres are the names that the family's pre-tokenizers go by where several
	// names share one rule.
	pres map[string]string
}

var decoderRules = []rule{
	{gguf: "token_embd", hf: "model.embed_tokens"},
	{gguf: "output_norm", hf: "model.norm"},
	{gguf: "output", hf: "lm_head"},
	{gguf: "blk.#.attn_norm", hf: "model.layers.#.input_layernorm"},
	{gguf: "blk.#.attn_q", hf: "model.layers.#.self_attn.q_proj", op: queryRows},
	{gguf: "blk.#.attn_k", hf: "model.layers.#.self_attn.k_proj", op: keyRows},
	{gguf: "blk.#.attn_v", hf: "model.layers.#.self_attn.v_proj"},
	{gguf: "blk.#.attn_output", hf: "model.layers.#.self_attn.o_proj"},
	{gguf: "blk.#.ffn_norm", hf: "model.layers.#.post_attention_layernorm"},
	{gguf: "blk.#.ffn_gate", hf: "model.layers.#.mlp.gate_proj"},
	{gguf: "blk.#.ffn_up", hf: "model.layers.#.mlp.up_proj"},
	{gguf: "blk.#.ffn_down", hf: "model.layers.#.mlp.down_proj"},
}

var headNormRules = []rule{
	{gguf: "blk.#.attn_q_norm", hf: "model.layers.#.self_attn.q_norm"},
	{gguf: "blk.#.attn_k_norm", hf: "model.layers.#.self_attn.k_norm"},
}

// mixtralRules: w1, w2 and w3 are gate, down and up. The converter stacks them in
// this order.
var mixtralRules = []rule{
	{gguf: "blk.#.ffn_gate_inp", hf: "model.layers.#.block_sparse_moe.gate"},
	{gguf: "blk.#.ffn_gate_exps", hf: "model.layers.#.block_sparse_moe.experts.*.w1", op: experts},
	{gguf: "blk.#.ffn_down_exps", hf: "model.layers.#.block_sparse_moe.experts.*.w2", op: experts},
	{gguf: "blk.#.ffn_up_exps", hf: "model.layers.#.block_sparse_moe.experts.*.w3", op: experts},
}

var qwenMoeRules = []rule{
	{gguf: "blk.#.ffn_gate_inp", hf: "model.layers.#.mlp.gate"},
	{gguf: "blk.#.ffn_down_exps", hf: "model.layers.#.mlp.experts.*.down_proj", op: experts},
	{gguf: "blk.#.ffn_gate_exps", hf: "model.layers.#.mlp.experts.*.gate_proj", op: experts},
	{gguf: "blk.#.ffn_up_exps", hf: "model.layers.#.mlp.experts.*.up_proj", op: experts},
	{gguf: "blk.#.ffn_down_exps", hf: "model.layers.#.mlp.experts.down_proj", bare: true, once: true},
	{gguf: "blk.#.ffn_gate_exps", hf: "model.layers.#.mlp.experts.gate_up_proj", op: gateHalf, bare: true, once: true},
	{gguf: "blk.#.ffn_up_exps", hf: "model.layers.#.mlp.experts.gate_up_proj", op: upHalf, bare: true, once: true},
}

var sharedExpertRules = []rule{
	{gguf: "blk.#.ffn_gate_inp_shexp", hf: "model.layers.#.mlp.shared_expert_gate"},
	{gguf: "blk.#.ffn_gate_shexp", hf: "model.layers.#.mlp.shared_expert.gate_proj"},
	{gguf: "blk.#.ffn_up_shexp", hf: "model.layers.#.mlp.shared_expert.up_proj"},
	{gguf: "blk.#.ffn_down_shexp", hf: "model.layers.#.mlp.shared_expert.down_proj"},
}

// gemmaRules has the norms of Gemma 2 and 3: around attention and around the
// feed-forward layer, each stored as its distance from one. The head is tied.
func gemmaRules(embed op) []rule {
	return []rule{
		{gguf: "token_embd", hf: "model.embed_tokens", op: embed},
		{gguf: "output_norm", hf: "model.norm", op: plusOne},
		{gguf: "output", hf: "lm_head", op: dropped},
		{gguf: "blk.#.attn_norm", hf: "model.layers.#.input_layernorm", op: plusOne},
		{gguf: "blk.#.attn_q", hf: "model.layers.#.self_attn.q_proj", op: queryRows},
		{gguf: "blk.#.attn_k", hf: "model.layers.#.self_attn.k_proj", op: keyRows},
		{gguf: "blk.#.attn_v", hf: "model.layers.#.self_attn.v_proj"},
		{gguf: "blk.#.attn_output", hf: "model.layers.#.self_attn.o_proj"},
		{gguf: "blk.#.post_attention_norm", hf: "model.layers.#.post_attention_layernorm", op: plusOne},
		{gguf: "blk.#.ffn_norm", hf: "model.layers.#.pre_feedforward_layernorm", op: plusOne},
		{gguf: "blk.#.post_ffw_norm", hf: "model.layers.#.post_feedforward_layernorm", op: plusOne},
		{gguf: "blk.#.ffn_gate", hf: "model.layers.#.mlp.gate_proj"},
		{gguf: "blk.#.ffn_up", hf: "model.layers.#.mlp.up_proj"},
		{gguf: "blk.#.ffn_down", hf: "model.layers.#.mlp.down_proj"},
	}
}

var olmo2Rules = []rule{
	{gguf: "token_embd", hf: "model.embed_tokens"},
	{gguf: "output_norm", hf: "model.norm"},
	{gguf: "output", hf: "lm_head"},
	{gguf: "blk.#.attn_q", hf: "model.layers.#.self_attn.q_proj", op: queryRows},
	{gguf: "blk.#.attn_k", hf: "model.layers.#.self_attn.k_proj", op: keyRows},
	{gguf: "blk.#.attn_v", hf: "model.layers.#.self_attn.v_proj"},
	{gguf: "blk.#.attn_output", hf: "model.layers.#.self_attn.o_proj"},
	{gguf: "blk.#.post_attention_norm", hf: "model.layers.#.post_attention_layernorm"},
	{gguf: "blk.#.post_ffw_norm", hf: "model.layers.#.post_feedforward_layernorm"},
	{gguf: "blk.#.ffn_gate", hf: "model.layers.#.mlp.gate_proj"},
	{gguf: "blk.#.ffn_up", hf: "model.layers.#.mlp.up_proj"},
	{gguf: "blk.#.ffn_down", hf: "model.layers.#.mlp.down_proj"},
}

// phi3Rules keeps the fused matrices: llama.cpp splits them when it runs.
var phi3Rules = []rule{
	{gguf: "token_embd", hf: "model.embed_tokens"},
	{gguf: "output_norm", hf: "model.norm"},
	{gguf: "output", hf: "lm_head"},
	{gguf: "blk.#.attn_norm", hf: "model.layers.#.input_layernorm"},
	{gguf: "blk.#.attn_qkv", hf: "model.layers.#.self_attn.qkv_proj"},
	{gguf: "blk.#.attn_output", hf: "model.layers.#.self_attn.o_proj"},
	{gguf: "blk.#.ffn_norm", hf: "model.layers.#.post_attention_layernorm"},
	{gguf: "blk.#.ffn_up", hf: "model.layers.#.mlp.gate_up_proj"},
	{gguf: "blk.#.ffn_down", hf: "model.layers.#.mlp.down_proj"},
}

func join(lists ...[]rule) []rule {
	var all []rule
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// without leaves out the rules of the GGUF names given.
func without(rules []rule, names ...string) []rule {
	var kept []rule
next:
	for _, r := range rules {
		for _, n := range names {
			if r.gguf == n {
				continue next
			}
		}
		kept = append(kept, r)
	}
	return kept
}

var tables = []*Table{
	{
		Name: "llama", modelType: "llama", Classes: []string{"LlamaForCausalLM", "LLaMAForCausalLM"}, Rope: Norm,
		rules: decoderRules, keys: llamaKeys, vocab: []vocabForm{sentencePiece, sentencePieceJSON, byteLevel},
		defaults: map[string]any{"vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
			"rope_theta": 1e4, "num_key_value_heads": fromHeads, "head_dim": fromHidden},
		pres: map[string]string{digitsRule: "smollm"},
	},
	{
		Name: "llama", modelType: "mistral", Classes: []string{"MistralForCausalLM"}, Rope: Norm,
		rules: decoderRules, keys: llamaKeys, vocab: []vocabForm{sentencePiece, sentencePieceJSON, byteLevel},
		defaults: map[string]any{"vocab_size": 32000, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
			"rope_theta": 1e4, "num_key_value_heads": 8, "head_dim": fromHidden, "sliding_window": 4096},
	},
	{
		Name: "llama", modelType: "mixtral", Classes: []string{"MixtralForCausalLM"}, Rope: Norm,
		rules: join(without(decoderRules, "blk.#.ffn_gate", "blk.#.ffn_up", "blk.#.ffn_down"), mixtralRules),
		keys:  llamaKeys, vocab: []vocabForm{sentencePiece, sentencePieceJSON, byteLevel},
		defaults: map[string]any{"vocab_size": 32000, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
			"rope_theta": 1e6, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2},
	},
	{
		Name: "smollm3", modelType: "smollm3", Classes: []string{"SmolLM3ForCausalLM"}, Rope: Norm,
		rules: decoderRules, keys: llamaKeys, vocab: []vocabForm{sentencePiece, sentencePieceJSON, byteLevel},
		defaults: map[string]any{"vocab_size": 128256, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
			"rope_theta": 2e6, "num_key_value_heads": 4, "no_rope_layer_interval": 4},
	},
	{
		Name: "granite", modelType: "granite", Classes: []string{"GraniteForCausalLM"}, Rope: Norm,
		rules: decoderRules, keys: graniteKeys, vocab: []vocabForm{sentencePiece, sentencePieceJSON, byteLevel},
		defaults: map[string]any{"vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
			"rope_theta": 1e4, "num_key_value_heads": fromHeads, "attention_multiplier": 1.0,
			"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0},
		pres: map[string]string{digitsRule: "refact", llama3Rule: "dbrx"},
	},
	{
		Name: "qwen2", modelType: "qwen2", Classes: []string{"Qwen2ForCausalLM"},
		rules: decoderRules, keys: decoderKeys, vocab: []vocabForm{sentencePiece, byteLevel},
		defaults: map[string]any{"max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
			"rope_theta": 1e4, "num_key_value_heads": 32},
	},
	{
		Name: "qwen3", modelType: "qwen3", Classes: []string{"Qwen3ForCausalLM"},
		rules: join(decoderRules, headNormRules), keys: decoderKeys, vocab: []vocabForm{sentencePiece, byteLevel},
		defaults: map[string]any{"max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
			"rope_theta": 1e4, "num_key_value_heads": 32, "head_dim": 128},
	},
	{
		Name: "qwen2moe", modelType: "qwen2_moe", Classes: []string{"Qwen2MoeForCausalLM"},
		rules: join(decoderRules, qwenMoeRules, sharedExpertRules), keys: qwenMoeKeys, vocab: []vocabForm{byteLevel},
		defaults: map[string]any{"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
			"num_key_value_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
			"shared_expert_intermediate_size": 5632},
	},
	{
		Name: "qwen3moe", modelType: "qwen3_moe", Classes: []string{"Qwen3MoeForCausalLM"},
		rules: join(decoderRules, headNormRules, qwenMoeRules), keys: qwenMoeKeys, vocab: []vocabForm{byteLevel},
		defaults: map[string]any{"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
			"num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
	},
	{
		Name: "gemma2", modelType: "gemma2", Classes: []string{"Gemma2ForCausalLM"},
		rules: gemmaRules(asIs), keys: gemma2Keys, vocab: []vocabForm{sentencePiece, sentencePieceJSON},
		defaults: map[string]any{"max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
			"num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096, "query_pre_attn_scalar": 256,
			"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "tie_word_embeddings": true},
	},
	{
		Name: "gemma3", modelType: "gemma3_text", Classes: []string{"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
		rules: join(gemmaRules(tokenRows), []rule{
			{gguf: "blk.#.attn_q_norm", hf: "model.layers.#.self_attn.q_norm", op: plusOne},
			{gguf: "blk.#.attn_k_norm", hf: "model.layers.#.self_attn.k_norm", op: plusOne},
		}),
		keys: gemma3Keys, vocab: []vocabForm{sentencePiece, sentencePieceJSON},
		defaults: map[string]any{"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
			"num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
			"max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
			"sliding_window": 4096, "query_pre_attn_scalar": 256, "tie_word_embeddings": true},
	},
	{
		Name: "olmo2", modelType: "olmo2", Classes: []string{"Olmo2ForCausalLM"},
		rules: join(olmo2Rules, headNormRules), keys: decoderKeys, vocab: []vocabForm{byteLevel},
		defaults: map[string]any{"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
			"num_key_value_heads": fromHeads},
		pres: map[string]string{llama3Rule: "dbrx"},
	},
	{
		Name: "phi3", modelType: "phi3", Classes: []string{"Phi3ForCausalLM"},
		rules: phi3Rules, keys: phi3Keys, vocab: []vocabForm{sentencePieceAdded, byteLevel},
		defaults: map[string]any{"vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
			"rope_theta": 1e4, "num_key_value_heads": fromHeads, "original_max_position_embeddings": 4096},
		pres: map[string]string{llama3Rule: "dbrx"},
	},
}

// ModelType is model_type in the config.json of such a model.
func (t *Table) ModelType() string { return t.modelType }

// Tables returns what graft knows, one entry per Hugging Face architecture.
func Tables() []*Table { return tables }

// TableOfClass finds the table of a Hugging Face architecture class.
func TableOfClass(class string) (*Table, error) {
	for _, t := range tables {
		for _, c := range t.Classes {
			if c == class {
				return t, nil
			}
		}
	}
	return nil, format.Unsupported("architecture %s (known: %s)", class, strings.Join(knownClasses(), ", "))
}

func knownClasses() []string {
	var names []string
	for _, t := range tables {
		names = append(names, t.Classes[0])
	}
	return names
}

// TableOf finds the table of a model by its GGUF metadata: the architecture, and
// for llama whether it has experts.
func TableOf(m *Model) (*Table, error) {
	n, _ := m.Meta.Int(m.Arch + ".expert_count")
	if c, ok := m.Meta.Str(keyClass); ok {
		return TableOfClass(c)
	}
	if m.Arch == "llama" && n > 0 {
		return TableOfClass("MixtralForCausalLM")
	}
	for _, t := range tables {
		if t.Name == m.Arch {
			return t, nil
		}
	}
	return nil, format.Unsupported("architecture %q", m.Arch)
}

// pattern splits the numbers out of a name: "blk.3.attn_q" gives "blk.#.attn_q"
// and 3. The second number, an expert's, becomes "*". Missing numbers are -1.
func pattern(name string) (p string, layer, expert int) {
	layer, expert = -1, -1
	parts := strings.Split(name, ".")
	for i, s := range parts {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || strconv.Itoa(n) != s {
			continue
		}
		switch {
		case layer < 0:
			layer, parts[i] = n, "#"
		case expert < 0:
			expert, parts[i] = n, "*"
		}
	}
	return strings.Join(parts, "."), layer, expert
}

// fill puts numbers into a pattern.
func fill(p string, layer, expert int) string {
	p = strings.Replace(p, "#", strconv.Itoa(layer), 1)
	return strings.Replace(p, "*", strconv.Itoa(expert), 1)
}

// cutSuffix splits ".weight" or ".bias" off a tensor name.
func cutSuffix(name string) (module, suffix string) {
	for _, s := range []string{".weight", ".bias"} {
		if m, ok := strings.CutSuffix(name, s); ok {
			return m, s
		}
	}
	return name, ""
}

// Module is where a Hugging Face module lands in GGUF.
type Module struct {
	Tensor string // GGUF tensor, with ".weight"
	Expert int    // its place in the stack, -1 if Tensor is no stack
	op     op
}

// Module finds the tensor that holds the weight of a Hugging Face module
// ("model.layers.3.self_attn.q_proj"). ok is false if the architecture has no such
// module.
func (t *Table) Module(module string) (m Module, ok bool) {
	p, layer, expert := pattern(plainName(module))
	for _, r := range t.rules {
		if r.hf == p && !r.bare && r.op != dropped {
			m := Module{Tensor: fill(r.gguf, layer, -1) + ".weight", Expert: -1, op: r.op}
			if r.op == experts {
				m.Expert = expert
			}
			return m, true
		}
	}
	return Module{}, false
}

// HFModule is the inverse of [Table.Module]: the name of the module that GGUF's
// tensor holds. For a stack the name of expert number e.
func (t *Table) HFModule(tensor string, e int) (module string, ok bool) {
	name, suffix := cutSuffix(tensor)
	if suffix != ".weight" {
		return "", false
	}
	p, layer, _ := pattern(name)
	for _, r := range t.rules {
		if r.gguf == p && !r.once {
			return fill(r.hf, layer, e), true
		}
	}
	return "", false
}

// plainName brings the names of multimodal checkpoints to those of the text model
// alone.
func plainName(name string) string {
	return strings.ReplaceAll(name, "language_model.", "")
}

// unused says whether a checkpoint's tensor belongs to no text model: parts for
// pictures and sound, and buffers that can be computed.
func unused(name string) bool {
	for _, s := range []string{".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"} {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	for _, s := range []string{"vision_tower.", "vision_model.", "multi_modal_projector.", "audio_tower.", "visual.", "mm_projector."} {
		if strings.HasPrefix(name, s) || strings.Contains(name, "."+s) {
			return true
		}
	}
	return false
}
