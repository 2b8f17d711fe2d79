package train

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// noted are settings of others, or patterns of their names, that change nothing of what is
// learned here: they may be given, and what is left out is said once.
var noted = []string{
	// Arithmetic: it is float32 unless compute says otherwise.
	"bf16", "fp16", "tf32", "float16", "bfloat16", "bnb_4bit_compute_dtype", "torch_dtype", "dtype",
	// How attention and the passes are computed, and what memory they take.
	"attn_implementation", "flash_attention", "flash_attn_*", "sdp_attention", "xformers_attention", "flex_attention", "flex_attn_*",
	"eager_attention", "fused_attn_kernel", "gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_offloading",
	"low_cpu_mem_usage", "use_cache", "lora_on_cpu", "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "use_kernels",
	"use_scattermoe", "use_sonicmoe", "experts_implementation", "liger_*", "use_liger_kernel", "cut_cross_entropy",
	"chunked_cross_entropy", "torch_compile", "torch_compile_*", "unsloth_*",
	// One process; a step has micro_batch_size times gradient_accumulation_steps sequences.
	"deepspeed", "fsdp", "fsdp_config", "fsdp_version", "ddp_*", "accelerator_config", "local_rank", "torchdistx_path",
	// Every step is logged, and nothing is sent anywhere.
	"wandb_*", "use_wandb", "mlflow_*", "use_mlflow", "comet_*", "use_comet", "swanlab_*", "use_swanlab", "trackio_*", "use_trackio",
	"logging_*", "report_to", "run_name", "include_tokens_per_second", "hub_*", "push_to_hub", "push_dataset_to_hub", "hf_use_auth_token",
	// What the model's file says itself.
	"model_type", "tokenizer_type", "processor_type", "tokenizer_use_fast", "tokenizer_legacy", "tokenizer_use_mistral_common",
	"is_llama_derived_model", "is_mistral_derived_model", "is_falcon_derived_model", "trust_remote_code", "padding_side", "eot_tokens",
	// Sequences are not padded, and packing them changes no evaluation.
	"pad_to_sequence_len", "eval_sample_packing", "eval_batch_size", "per_device_eval_batch_size", "sample_packing_*", "remove_unused_columns",
	"dataset_processes", "dataset_num_proc", "dataset_kwargs", "dataset_keep_in_memory", "dataloader_*", "skip_prepare_dataset",
	"save_safetensors", "save_only_model", "save_first_step", "do_train", "do_eval", "loss_watchdog_*", "inference_mode",
}

// only are settings of others that graft has in the values given, by spaces.
var only = map[string]string{
	"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "lora_bias": "false none", "fan_in_fan_out": "false", "lora_fan_in_fan_out": "false",
	"lora_target_linear": "true false", "strict": "true false", "group_by_length": "false", "gptq": "false", "relora": "false",
	"auto_resume_from_checkpoints": "false", "resume_from_checkpoint": "false", "overwrite_output_dir": "false",
	"eval_strategy": "steps no", "evaluation_strategy": "steps no", "save_strategy": "steps", "metric_for_best_model": "loss eval_loss",
	"greater_is_better": "false", "assistant_only_loss": "true", "completion_only_loss": "true", "precompute_ref_log_probs": "true",
	"bnb_4bit_use_double_quant": "true false", "bnb_4bit_quant_type": "nf4 fp4", "bnb_4bit_quant_storage": "uint8",
	"roles_to_train": "assistant gpt", "train_on_eos": "turn last", "dataset_exact_deduplication": "false", "kd_trainer": "true",
}

// why are more words for keys that are refused.
var why = map[string]string{
	"resume_from_checkpoint":       "graft train --resume -o DIR goes on where a run was left",
	"auto_resume_from_checkpoints": "graft train --resume -o DIR goes on where a run was left",
	"overwrite_output_dir":         "graft train --force replaces a run",
	"lora_target_parameters":       "experts are trained by the target experts: lora_target_modules: [experts]",
	"target_parameters":            "experts are trained by the target experts: target_modules: [experts]",
	"group_by_length":              "graft shuffles, or packs",
	"tokenizer_config":             "the tokens are the base's own",
}

// nullable are settings of others that nothing is said with when they are empty.
var nullable = []string{
	"modules_to_save", "lora_modules_to_save", "trainable_token_indices", "target_parameters", "lora_target_parameters", "layers_pattern", "loftq_config",
	"megatron_config", "megatron_core", "auto_mapping", "revision", "corda_config", "eva_config", "alora_invocation_tokens", "layer_replication",
	"tokens", "added_tokens_overrides", "plugins", "tokenizer_config", "unfrozen_parameters", "special_tokens", "debug", "gptq_groupsize",
	"gptq_model_v1", "max_packed_sequence_len", "peft", "torch_compile", "qalora_group_size", "runtime_config", "arrow_config", "lora_ga_config",
	"use_qalora", "ensure_weight_tying", "revision_of_model", "shuffle_merged_datasets", "chat_template",
}

// plugins of axolotl's that make a run faster and change nothing else, or that graft has.
var plugins = []string{
	"axolotl.integrations.liger.LigerPlugin", "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
	"axolotl.integrations.kernels.KernelsPlugin", "axolotl.integrations.kd.KDPlugin",
}

// optimizers are other names of optimizers. States are float32 whatever the name says,
// which is more exact than 8 bits, and small for an adapter.
var optimizers = map[string]string{
	"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "adamw_bnb_8bit": "adamw", "adamw_8bit": "adamw",
	"adamw_torch_8bit": "adamw", "adamw_torch_4bit": "adamw", "paged_adamw": "adamw", "paged_adamw_32bit": "adamw", "paged_adamw_8bit": "adamw",
	"lion_32bit": "lion", "lion_8bit": "lion", "paged_lion_32bit": "lion", "paged_lion_8bit": "lion", "lion_pytorch": "lion",
}

// objectives are TRL's names of losses of DPO, with graft's.
var objectives = map[string]string{"sigmoid": "dpo", "exo_pair": "exo", "apo_zero": "apo-zero", "apo_down": "apo-down"}

// scheduleKeys are the keys of lr_scheduler_kwargs, with those of schedule.
var scheduleKeys = map[string]string{
	"num_cycles": "cycles", "min_lr_rate": "min_ratio", "min_lr_ratio": "min_ratio", "power": "power", "lr_end": "end", "timescale": "timescale",
	"num_decay_steps": "decay", "num_stable_steps": "stable", "warmup_lr_rate": "warmup_from", "warmup_type": "warmup_type", "decay_type": "decay_type",
}

// empty says whether nothing is said with a value.
func empty(n *yaml.Node) bool {
	return n.Tag == "!!null" || n.Kind != yaml.ScalarNode && len(n.Content) == 0
}

// isNoted says whether a key is one of noted.
func isNoted(key string) bool {
	return slices.ContainsFunc(noted, func(p string) bool {
		ok, _ := path.Match(p, key)
		return ok
	})
}

// foreign says whether a key is one that graft passes over, and for how it differs from
// nothing said it is noted. It is an error if the key says what graft does not do.
func foreign(key string, value *yaml.Node) (skip, note bool, err error) {
	off := empty(value) || value.Value == "false"
	switch {
	case isNoted(key):
		return true, !off, nil
	case empty(value) && (slices.Contains(nullable, key) || only[key] != "" || aliases[key] != ""):
		return true, false, nil
	case only[key] != "":
		if value.Kind != yaml.ScalarNode || !slices.Contains(strings.Fields(only[key]), value.Value) {
			return false, false, because(key, fmt.Errorf("%s is %s, and can only be %s", key, value.Value, strings.ReplaceAll(only[key], " ", " or ")))
		}
		return true, false, nil
	case key == "plugins":
		for _, p := range value.Content {
			if !slices.Contains(plugins, p.Value) {
				return false, false, fmt.Errorf("graft has nothing for the plugin %s: there are %s", p.Value, strings.Join(plugins, ", "))
			}
		}
		return true, false, nil
	case key == "special_tokens" && value.Kind == yaml.MappingNode:
		return true, false, nil // see specialTokens
	case key == "chat_template" && (value.Value == "tokenizer_default" || value.Value == "jinja"):
		return true, false, nil
	case key == "chat_template" && !strings.ContainsAny(value.Value, "./\\"):
		return false, false, fmt.Errorf("chat_template is %s: graft takes the model's own template when nothing is said, or that of a file", value.Value)
	}
	return false, false, nil
}

// specialTokens are the tokens that a run file gives the model, by their names. That for
// padding is none of them: nothing is padded.
func specialTokens(run *yaml.Node) map[string]string {
	tokens := map[string]string{}
	for i := 0; i+1 < len(run.Content); i += 2 {
		m := run.Content[i+1]
		if run.Content[i].Value != "special_tokens" || m.Kind != yaml.MappingNode {
			continue
		}
		for j := 0; j+1 < len(m.Content); j += 2 {
			if k := m.Content[j].Value; k != "pad_token" && !empty(m.Content[j+1]) {
				tokens[k] = m.Content[j+1].Value
			}
		}
	}
	return tokens
}

// checkSpecial says which of the tokens that a run file gives the model it does not have so.
func (b *Base) checkSpecial(tokens map[string]string) error {
	t := b.Tokenizer
	own := map[string]int32{"bos_token": t.BOS(), "eos_token": t.EOS(), "unk_token": t.UNK()}
	for _, name := range slices.Sorted(maps.Keys(tokens)) {
		id, ok := own[name]
		if !ok {
			return fmt.Errorf("train: special_tokens has %s: there can be bos_token, eos_token, unk_token and pad_token", name)
		}
		has := "no such token"
		if id >= 0 {
			has = fmt.Sprintf("%q", t.Token(id))
		}
		if has != fmt.Sprintf("%q", tokens[name]) {
			return fmt.Errorf("train: special_tokens says that %s is %q, and %s has %s: a run does not change it", name, tokens[name], b.Path, has)
		}
	}
	return nil
}

// because adds to an error about a key what else there is to say.
func because(key string, err error) error {
	if w := why[key]; w != "" {
		return fmt.Errorf("%w: %s", err, w)
	}
	return err
}

// scalarAt is the text of a key of a mapping; "" if it has none.
func scalarAt(n *yaml.Node, keys ...string) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if v := n.Content[i+1]; slices.Contains(keys, n.Content[i].Value) && v.Kind == yaml.ScalarNode && !empty(v) {
			return v.Value
		}
	}
	return ""
}

// fourBits is how load_in_4bit holds a base: as axolotl has it, NF4 with double
// quantization unless the run file says otherwise.
func fourBits(run *yaml.Node) string {
	how := "nf4"
	if scalarAt(run, "bnb_4bit_quant_type") == "fp4" {
		how = "fp4"
	}
	if scalarAt(run, "bnb_4bit_use_double_quant") != "false" {
		how += "-dq"
	}
	return how
}

// prepare rewrites what others say in several keys together into what translate knows.
func prepare(run *yaml.Node) {
	var content []*yaml.Node
	add := func(key, value *yaml.Node) { content = append(content, key, value) }
	low := scalarAt(run, "cosine_min_lr_ratio")
	for i := 0; i+1 < len(run.Content); i += 2 {
		key, value := run.Content[i], run.Content[i+1]
		named := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s, Line: key.Line} }
		switch k := key.Value; {
		case k == "cosine_min_lr_ratio" && low != "":
			add(named("schedule"), mapping(named("min_ratio"), value))
			if scalarAt(run, "lr_scheduler", "lr_scheduler_type") == "" {
				add(named("lr_scheduler"), named("cosine_with_min_lr"))
			}
		case (k == "lr_scheduler" || k == "lr_scheduler_type") && low != "" && value.Value == "cosine":
			add(key, named("cosine_with_min_lr"))
		case k == "lr_scheduler_kwargs" && value.Kind == yaml.MappingNode && len(value.Content) > 0:
			m := mapping()
			for j := 0; j+1 < len(value.Content); j += 2 {
				name := *value.Content[j]
				if own, ok := scheduleKeys[name.Value]; ok {
					name.Value = own
				}
				m.Content = append(m.Content, &name, value.Content[j+1])
			}
			add(named("schedule"), m)
		case k == "rl" && value.Value == "dpo" && scalarAt(run, "loss_type", "dpo_loss_type") != "":
			// Which of DPO's losses it is says the other.
		case (k == "eval_strategy" || k == "evaluation_strategy") && value.Value == "epoch":
			add(named("evals_per_epoch"), named("1"))
		case k == "save_strategy" && value.Value == "epoch":
			add(named("saves_per_epoch"), named("1"))
		case k == "save_strategy" && value.Value == "no":
			add(named("save_every"), named("0"))
		default:
			add(key, value)
		}
	}
	run.Content = content
}

func mapping(content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Content: content}
}
