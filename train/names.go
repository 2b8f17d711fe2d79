package train

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// aliases are the names that axolotl, PEFT and TRL have for settings, with graft's.
var aliases = map[string]string{
	"base_model": "base", "base_model_name_or_path": "base", "model_name_or_path": "base",
	"output_dir": "output", "chat_template_jinja": "chat_template", "val_set_size": "held_out_part",
	"sequence_len": "context", "max_length": "context", "max_seq_length": "context",
	"lora_r": "adapter.rank", "r": "adapter.rank", "lora_alpha": "adapter.alpha", "lora_dropout": "adapter.dropout",
	"lora_target_modules": "adapter.targets", "target_modules": "adapter.targets", "exclude_modules": "adapter.exclude",
	"use_rslora": "adapter.rslora", "peft_use_rslora": "adapter.rslora", "use_dora": "adapter.dora", "peft_use_dora": "adapter.dora",
	"rank_pattern": "adapter.rank_pattern", "alpha_pattern": "adapter.alpha_pattern", "layers_to_transform": "adapter.layers",
	"peft_layers_to_transform": "adapter.layers", "init_lora_weights": "adapter.init", "peft_init_lora_weights": "adapter.init",
	"tokens": "adapter.new_tokens", "trainable_token_indices": "adapter.train_tokens",
	"invocation_string": "adapter.invocation", "lora_model_dir": "adapter.from",
	"micro_batch_size": "batch", "per_device_train_batch_size": "batch", "gradient_accumulation_steps": "accumulate",
	"num_epochs": "epochs", "num_train_epochs": "epochs", "max_steps": "steps",
	"learning_rate": "lr", "loraplus_lr_ratio": "lr_ratio", "warmup_steps": "warmup", "warmup_ratio": "warmup", "max_grad_norm": "clip_norm",
	"weight_decay": "optimizer.weight_decay", "adam_beta1": "optimizer.beta1", "adam_beta2": "optimizer.beta2", "adam_epsilon": "optimizer.eps",
	"optim": "optimizer.name", "lr_scheduler": "schedule.name", "lr_scheduler_type": "schedule.name",
	"dataset_prepared_path": "data_cache", "use_tensorboard": "tensorboard", "shuffle_merged_datasets": "shuffle", "dataset_text_field": "fields.text",
	"excess_length_strategy": "samples.long",
	"eval_steps":             "eval_every", "save_steps": "save_every", "save_total_limit": "keep_checkpoints",
	"router_aux_loss_coef": "router_loss", "early_stopping_patience": "patience", "load_best_model_at_end": "keep_best",
	"sample_packing": "samples.pack", "packing": "samples.pack", "neftune_noise_alpha": "neftune",
	"kd_temperature": "distill.temperature", "kd_alpha": "distill.weight", "teacher_model_name_or_path": "distill.teacher",
	"rl": "objective.name", "rl_beta": "objective.beta", "dpo_beta": "objective.beta", "simpo_gamma": "objective.gamma",
	"orpo_alpha": "objective.beta", "simpo_beta": "objective.beta", "rpo_alpha": "objective.nll", "cpo_alpha": "objective.nll",
	"loss_type": "objective.name", "dpo_loss_type": "objective.name",
	"kto_desirable_weight": "objective.desirable", "kto_undesirable_weight": "objective.undesirable", "dpo_label_smoothing": "objective.label_smoothing",
}

// ownNames rewrites the run file n into graft's names, and lists what it leaves out. A
// key that nobody has is an error that names the nearest, with its line.
func ownNames(n *yaml.Node) (left []string, err error) {
	if n.Kind == yaml.DocumentNode {
		if len(n.Content) == 0 {
			return nil, nil
		}
		n = n.Content[0]
	}
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: a run file is a list of settings with their values", n.Line)
	}
	four := fourBits(n)
	prepare(n)
	known := map[string]reflect.Type{}
	fieldsOf("", reflect.TypeFor[Config](), known)
	out := &yaml.Node{Kind: yaml.MappingNode}
	from := map[string]string{}
	var errs []error
	var put func(prefix string, key, value *yaml.Node)
	put = func(prefix string, key, value *yaml.Node) {
		name := prefix + key.Value
		if prefix == "" {
			skip, note, err := foreign(name, value)
			if note {
				left = append(left, name)
			}
			given := value
			if err == nil && !skip {
				name, value, skip, err = translate(name, value, four)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("line %d: %w", key.Line, err))
				return
			}
			if key.Value == "datasets" && slices.ContainsFunc(given.Content, func(d *yaml.Node) bool { return scalarAt(d, "type") == "alpaca" }) {
				left = append(left, "the words of type alpaca round a question (the chat template is taken)")
			}
			if name == "optimizer.name" && value != given && (strings.Contains(given.Value, "8bit") || strings.Contains(given.Value, "4bit")) {
				left = append(left, "the bits of "+given.Value)
			}
			if skip {
				return
			}
		}
		typ, ok := known[name]
		switch {
		case !ok:
			if w := why[key.Value]; w != "" && prefix == "" {
				errs = append(errs, fmt.Errorf("line %d: there is no setting %s: %s", key.Line, key.Value, w))
				return
			}
			errs = append(errs, fmt.Errorf("line %d: there is no setting %s; did you mean %s?", key.Line, prefix+key.Value, nearest(name, known, aliases)))
		case typ.Kind() == reflect.Struct && value.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(value.Content); i += 2 {
				put(name+".", value.Content[i], value.Content[i+1])
			}
		case from[name] != "":
			errs = append(errs, fmt.Errorf("line %d: %s is given by %s already", key.Line, name, from[name]))
		default:
			from[name] = prefix + key.Value
			at := out
			parts := strings.Split(name, ".")
			for _, p := range parts[:len(parts)-1] {
				at = child(at, p)
			}
			at.Content = append(at.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: parts[len(parts)-1], Line: key.Line}, value)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		put("", n.Content[i], n.Content[i+1])
	}
	*n = *out
	return left, errors.Join(errs...)
}

// translate turns a key at the top, and its value, into graft's.
// four is what load_in_4bit is.
func translate(key string, value *yaml.Node, four string) (string, *yaml.Node, bool, error) {
	scalar := value.Kind == yaml.ScalarNode
	text := func(s string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: s, Line: value.Line, Column: value.Column}
	}
	if own, ok := aliases[key]; ok {
		key = own
	}
	switch {
	case key == "adapter" && scalar: // axolotl's kind of adapter
		if value.Value != "lora" && value.Value != "qlora" {
			return "", nil, false, fmt.Errorf("adapter is %s: there are lora and qlora, which of them it is the base decides", value.Value)
		}
		return "", nil, true, nil
	case (key == "optimizer" || key == "schedule" || key == "objective") && scalar:
		key += ".name"
	case key == "train_on_inputs" && scalar && empty(value):
		return "", nil, true, nil
	case key == "train_on_inputs" && scalar:
		if value.Value == "true" {
			return "samples.train", text("all"), false, nil
		}
		return "samples.train", text("answers"), false, nil
	case key == "load_in_4bit" && scalar:
		if value.Value == "true" {
			return "hold", text(four), false, nil
		}
		return "", nil, true, nil
	case key == "load_in_8bit" && scalar:
		if value.Value == "true" {
			return "hold", text("int8"), false, nil
		}
		return "", nil, true, nil
	case key == "objective.name" && objectives[value.Value] != "":
		return key, text(objectives[value.Value]), false, nil
	case key == "samples.long" && value.Value == "raise":
		return key, text("error"), false, nil
	case key == "data" && value.Kind == yaml.SequenceNode, key == "datasets":
		name, list, err := ownDatasets(value)
		return name, list, false, err
	case key == "lr" && scalar && value.Value == "auto":
		return "auto_lr", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true", Line: value.Line}, false, nil
	case key == "adapter.layers" && value.Kind == yaml.SequenceNode:
		var list []string
		for _, n := range value.Content {
			list = append(list, n.Value)
		}
		return key, text(strings.Join(list, ",")), false, nil
	case key == "adapter.init" && scalar && value.Value == "true":
		return key, text("lora"), false, nil
	case key == "test_datasets":
		name, list, err := ownDatasets(value)
		if err == nil && name != "data" {
			err = errors.New("test_datasets must be one file with its path")
		}
		return "held_out", list, false, err
	case key == "adapter.train_tokens" && value.Kind == yaml.SequenceNode: // PEFT's are numbers
		list := &yaml.Node{Kind: yaml.SequenceNode, Line: value.Line}
		for _, n := range value.Content {
			if n.Tag == "!!int" {
				n = text(byNumber + n.Value)
			}
			list.Content = append(list.Content, n)
		}
		return key, list, false, nil
	case key == "adapter.targets" && scalar:
		if strings.ContainsAny(value.Value, `\()|+^$`) {
			value = text(isRegexp + value.Value)
		}
		return key, &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{value}, Line: value.Line}, false, nil
	}
	if key == "optimizer.name" {
		if own, ok := optimizers[value.Value]; ok {
			value = text(own)
		}
	}
	return key, value, false, nil
}

// child is the mapping under a name of a mapping, made if it is not there.
func child(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	c := &yaml.Node{Kind: yaml.MappingNode}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, c)
	return c
}

// fieldsOf collects the dotted YAML names of a struct's fields.
func fieldsOf(prefix string, t reflect.Type, into map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		into[prefix+name] = f.Type
		if f.Type.Kind() == reflect.Struct {
			fieldsOf(prefix+name+".", f.Type, into)
		}
	}
}

// nearest is the name, graft's or another's, that is most like a key; among several the first.
func nearest(key string, known map[string]reflect.Type, aliases map[string]string) string {
	var names []string
	for n := range known {
		names = append(names, n)
	}
	for n := range aliases {
		names = append(names, n)
	}
	slices.Sort(names)
	best, least := "", 1<<30
	for _, n := range names {
		d := distance(key, n)
		if _, last, ok := strings.Cut(n, "."); ok {
			d = min(d, distance(key, last)+1)
		}
		if d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is how many letters must be put in, left out or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
