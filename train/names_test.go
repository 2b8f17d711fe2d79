package train

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/train/model"
)

func configOf(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run.yaml")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return LoadConfig(path)
}

// TestOthersNames reads the same run in axolotl's names, in PEFT's and TRL's, and in graft's.
func TestOthersNames(t *testing.T) {
	t.Parallel()
	want, err := configOf(t, `
base: m.gguf
data: d.jsonl
output: o
context: 512
adapter: {rank: 8, alpha: 16, dropout: 0.05, targets: [q_proj, v_proj], rslora: true}
batch: 2
accumulate: 4
epochs: 3
lr: 1e-4
warmup: 10
optimizer: {name: adamw, weight_decay: 0.1}
schedule: {name: linear}
eval_every: 20
samples: {pack: true, train: all}
objective: {name: dpo, beta: 0.2}
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"axolotl": `
base_model: m.gguf
datasets:
  - path: d.jsonl
    type: chat_template
output_dir: o
sequence_len: 512
adapter: qlora
lora_r: 8
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
peft_use_rslora: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
learning_rate: 0.0001
warmup_steps: 10
optimizer: paged_adamw_32bit
weight_decay: 0.1
lr_scheduler: linear
eval_steps: 20
sample_packing: true
train_on_inputs: true
rl: dpo
rl_beta: 0.2
`, "PEFT and TRL": `
base_model_name_or_path: m.gguf
data: d.jsonl
output_dir: o
max_length: 512
peft_type: LORA
task_type: CAUSAL_LM
bias: none
r: 8
lora_alpha: 16
lora_dropout: 0.05
target_modules: [q_proj, v_proj]
use_rslora: true
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
num_train_epochs: 3
learning_rate: 1e-4
warmup_steps: 10
optim: adamw_torch
weight_decay: 0.1
lr_scheduler_type: linear
eval_steps: 20
packing: true
samples: {train: all}
objective: dpo
dpo_beta: 0.2
`} {
		got, err := configOf(t, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if names := differs(got, want); len(names) > 0 || got.Base != want.Base || got.Data != want.Data || got.Output != want.Output {
			t.Errorf("%s: %v differ: %+v", name, names, got)
		}
	}
}

// TestLeftOut reads run files as they are found: keys without a value, what has no meaning
// here, and what several keys say together.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	want, err := configOf(t, `
base: m
datasets: [{path: d.jsonl, fields: {messages: turns}}]
data_cache: prepared
hold: fp4-dq
held_out_part: 0.1
evals_per_epoch: 4
context: 512
optimizer: {name: lion}
schedule: {name: cosine_with_min_lr, min_ratio: 0.2, cycles: 1}
samples: {long: error}
objective: {name: apo-zero, nll: 0.5}
`)
	if err != nil {
		t.Fatal(err)
	}
	c, err := configOf(t, `
base_model: m
model_type: AutoModelForCausalLM
load_in_8bit: false
load_in_4bit: true
bnb_4bit_quant_type: fp4
special_tokens: {pad_token: "<pad>", eos_token: "</s>"}
datasets:
  - path: json
    data_files: [d.jsonl]
    ds_type: json
    type: chat_template
    chat_template: tokenizer_default
    field_messages: turns
    message_property_mappings: {role: from, content: value}
    roles_to_train: [assistant]
    roles:
      user: [human, user]
      assistant: [gpt]
    name:
dataset_prepared_path: prepared
val_set_size: 0.1
lora_model_dir:
lora_target_modules:
lora_target_linear: true
lora_modules_to_save: []
chat_template: tokenizer_default
sequence_len: 512
pad_to_sequence_len: true
excess_length_strategy: raise
optimizer: paged_lion_8bit
lr_scheduler: cosine
cosine_min_lr_ratio: 0.2
lr_scheduler_kwargs: {num_cycles: 1}
rl: dpo
loss_type: apo_zero
rpo_alpha: 0.5
train_on_inputs:
bf16: auto
fp16: false
tf32:
flash_attention: true
wandb_project: p
wandb_name:
eval_strategy: steps
evals_per_epoch: 4
save_strategy: epoch
deepspeed:
plugins:
  - axolotl.integrations.liger.LigerPlugin
liger_rope: true
`)
	if err != nil {
		t.Fatal(err)
	}
	if names := differs(c, want); len(names) > 0 || c.Base != want.Base || c.Datasets[0].Path != "d.jsonl" || c.DataCache != "prepared" || c.SavesPerEpoch != 1 {
		t.Errorf("%v differ: %+v", names, c)
	}
	const left = "left out, as graft has its own way or no use for it: model_type, pad_to_sequence_len, the bits of paged_lion_8bit, bf16, flash_attention, wandb_project, liger_rope"
	if len(c.notes) != 1 || !strings.HasSuffix(c.notes[0], left) {
		t.Errorf("notes: %q", c.notes)
	}
	if len(c.special) != 1 || c.special["eos_token"] != "</s>" {
		t.Errorf("special tokens: %v", c.special)
	}
	if c, err := configOf(t, "load_in_4bit: true\nbnb_4bit_use_double_quant: false\ndatasets: [{path: a, type: alpaca}]"); err != nil || c.Hold != "nf4" || len(c.notes) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := configOf(t, `target_modules: '.*\.(q|v)_proj'`); err != nil || c.Adapter.Targets[0] != `re:.*\.(q|v)_proj` {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := configOf(t, "load_in_8bit: true"); err != nil || c.Hold != "int8" {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestSpecialTokens compares those that a run file names with the base's.
func TestSpecialTokens(t *testing.T) {
	t.Parallel()
	base := openSprig(t, "sprig-q4_k_m.gguf", model.Options{Threads: 1})
	for name, c := range map[string]struct {
		tokens map[string]string
		want   string
	}{
		"its own": {map[string]string{"eos_token": base.Tokenizer.Token(base.Tokenizer.EOS())}, ""},
		"another": {map[string]string{"eos_token": "</s>"}, "special_tokens says that eos_token is \"</s>\", and "},
		"unknown": {map[string]string{"eom": "</s>"}, "special_tokens has eom: there can be"},
	} {
		if err := base.checkSpecial(c.tokens); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamesRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"base: m\nlora_rank: 8":           "line 2: there is no setting lora_rank; did you mean lora_r?",
		"learning_rat: 8":                 "did you mean learning_rate?",
		"adapter: {rang: 8}":              "line 1: there is no setting adapter.rang; did you mean adapter.rank?",
		"rank: 8":                         "did you mean adapter.rank?",
		"lr: 1\nlearning_rate: 2":         "line 2: lr is given by lr already",
		"fan_in_fan_out: true":            "fan_in_fan_out is true, and can only be false",
		"adapter: prefix":                 "there are lora and qlora",
		"datasets: [{path: a}, {pth: b}]": "a data set has no setting pth; did you mean path?",
		"- a":                             "list of settings",
		"context: many":                   "line 1",
		"a:\nb: 2":                        "line 1: there is no setting a",
		"plugins: [a.b]":                  "graft has nothing for the plugin a.b",
		"chat_template: chatml":           "graft takes the model's own template when nothing is said",
		"resume_from_checkpoint: x":       "graft train --resume -o DIR goes on",
		"target_parameters: [a]":          "experts are trained by the target experts",
		"datasets: [{path: a, split: 'train[:1%]'}]":        "split of a data set is train[:1%]",
		"datasets: [{path: a, roles: {user: [cat]}}]":       "roles of a data set has cat",
		"lr_scheduler: cosine\nlr_scheduler_kwargs: {a: 1}": "line 2: there is no setting schedule.a",
		"a: 1\nb: 2":                       "line 2: there is no setting b",
		"objective: {name: dpo, betta: 1}": "did you mean objective.beta?",
	} {
		if _, err := configOf(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
	if c, err := configOf(t, ""); err != nil || len(differs(c, DefaultConfig())) > 0 {
		t.Errorf("an empty file: %+v, %v", c, err)
	}
	if c, err := configOf(t, "learning_rate: auto"); err != nil || !c.AutoLR {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestSuggestRank(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		trained, perRank int64
		want             int
	}{{1000, 20000, 8}, {500000, 20000, 16}, {1 << 40, 20000, 256}} {
		if got := SuggestRank(c.trained, c.perRank); got != c.want {
			t.Errorf("%d tokens: rank %d, want %d", c.trained, got, c.want)
		}
	}
}

// TestPlan says what a run does: the counts are the run's, and nothing is written.
func TestPlan(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.AutoLR, c.Steps = true, 4
	p, err := MakePlan(background, c)
	if err != nil {
		t.Fatal(err)
	}
	c.Output = filepath.Join(t.TempDir(), "run")
	res := mustRun(t, c, Fresh)
	if p.Parameters != res.Parameters || p.Steps != res.Steps || p.Weights < 3e6 || p.Weights > 4e6 || p.TokensPerSecond <= 0 ||
		p.Memory < 10e6 || p.LR != p.SuggestedLR || p.HeldOut == 0 {
		t.Errorf("%+v, and the run %+v", p, res)
	}
	if d := float64(p.Tokens)/float64(res.Tokens) - 1; d < -0.05 || d > 0.05 {
		t.Errorf("%d tokens planned, %d trained on", p.Tokens, res.Tokens)
	}
	var disk int64
	list, err := checkpoints(c.Output)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(list, bestPath(c.Output), filepath.Join(c.Output, GGUFFile), filepath.Join(c.Output, "adapter_model.safetensors")) {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		disk += st.Size()
	}
	if disk > p.Disk+1<<16 {
		t.Errorf("%d bytes planned, %d written", p.Disk, disk)
	}
}
