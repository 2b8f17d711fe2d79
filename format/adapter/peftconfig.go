package adapter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
)

// peftConfig is an adapter_config.json.
type peftConfig struct {
	path         string
	values       map[string]any
	rank         int
	alpha        float64
	rslora, dora bool
	tokens       map[string][]int32 // trained tokens by the end of a module's name, "" for all; nil: none
	ranks        []namePattern
	alphas       []namePattern
}

// namePattern is an entry of rank_pattern or alpha_pattern.
type namePattern struct {
	re    *regexp.Regexp
	value float64
}

// defaultAlpha and defaultRank are PEFT's.
const (
	defaultAlpha = 8
	defaultRank  = 8
)

// readPEFTConfig reads and checks a configuration. What would change the result and
// is not done here is refused by name.
func readPEFTConfig(path string) (*peftConfig, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	corrupt := func(field string, err error) error {
		return &format.CorruptError{Path: path, Offset: -1, Field: field, Err: err}
	}
	c := &peftConfig{path: path}
	if err := json.Unmarshal(b, &c.values); err != nil {
		return nil, corrupt("JSON", err)
	}
	if t, _ := c.values["peft_type"].(string); t != "LORA" && t != "TRAINABLE_TOKENS" && !c.lycoris() {
		return nil, format.Unsupported("%s: an adapter of PEFT type %q", path, t)
	}
	if err := c.refuse(); err != nil {
		return nil, err
	}
	rank := float64(defaultRank)
	c.alpha = defaultAlpha
	for _, v := range []struct {
		key string
		to  any
	}{{"r", &rank}, {c.alphaKey(), &c.alpha}, {"use_rslora", &c.rslora}, {"use_dora", &c.dora}} {
		if err := c.value(v.key, v.to); err != nil {
			return nil, corrupt(v.key, err)
		}
	}
	if rank < 1 || rank > math.MaxInt32 || rank != math.Trunc(rank) {
		return nil, corrupt("r", fmt.Errorf("%g is no rank", rank))
	}
	c.rank = int(rank)
	var raw struct {
		Ranks  json.RawMessage `json:"rank_pattern"`
		Alphas json.RawMessage `json:"alpha_pattern"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, corrupt("JSON", err)
	}
	if c.tokens, err = c.trainedTokens(); err != nil {
		return nil, corrupt("trainable_token_indices", err)
	}
	if c.ranks, err = parsePatterns(raw.Ranks); err != nil {
		return nil, corrupt("rank_pattern", err)
	}
	if c.alphas, err = parsePatterns(raw.Alphas); err != nil {
		return nil, corrupt("alpha_pattern", err)
	}
	return c, nil
}

// value reads a setting that the change depends on into a *float64 or a *bool. One of another type,
// a number in quotes, is an error: a default in its place would be another adapter.
func (c *peftConfig) value(key string, to any) (err error) {
	v, ok := c.values[key]
	if !ok {
		return nil
	}
	switch to := to.(type) {
	case *float64:
		if *to, ok = v.(float64); !ok {
			err = fmt.Errorf("%s is no number", shown(v))
		}
	case *bool:
		if *to, ok = v.(bool); !ok && v != nil {
			err = fmt.Errorf("%s is neither true nor false", shown(v))
		}
	}
	return err
}

// shown is a value as JSON has it.
func shown(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// harmless are settings that say how the adapter was trained, not what it does.
var harmless = []string{
	"peft_type", "task_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora",
	"rank_pattern", "alpha_pattern", "inference_mode", "layers_to_transform", "layers_pattern", "target_modules",
	"exclude_modules", "auto_mapping", "megatron_core", "megatron_config", "loftq_config", "corda_config", "eva_config",
	"lora_ga_config", "peft_version", "qalora_group_size", "runtime_config", "ensure_weight_tying", "alora_invocation_tokens",
	"alpha", "module_dropout", "rank_dropout", "rank_dropout_scale", "use_effective_conv2d", "decompose_both", "decompose_factor", // of LoHa and LoKr
	"trainable_token_indices", "token_indices", "init_weights", "invocation_string", "target_parameters", "init_lora_weights", "bias", "modules_to_save", "fan_in_fan_out", mergeAwareConfig,
}

// refuse finds settings under which the matrices do not mean what they say.
func (c *peftConfig) refuse() error {
	if b := c.values["bias"]; truthy(b) && b != "none" {
		return format.Unsupported("%s: bias %v: biases trained with an adapter", c.path, shown(b))
	}
	if truthy(c.values["fan_in_fan_out"]) {
		return format.Unsupported("%s: fan_in_fan_out: matrices stored transposed", c.path)
	}
	if s, ok := c.values["init_lora_weights"].(string); ok {
		for _, moved := range []string{"pissa", "olora", "loftq", "corda", "lora_ga"} {
			if strings.HasPrefix(s, moved) {
				return format.Unsupported("%s: init_lora_weights %q changed the base: convert the adapter with PEFT (path_initial_model_for_weight_conversion) first", c.path, s)
			}
		}
	}
	if _, ok := c.values["invocation_string"].(string); ok && !truthy(c.values["alora_invocation_tokens"]) {
		return format.Unsupported("%s: invocation_string without alora_invocation_tokens", c.path)
	}
	var names []string
	for k, v := range c.values {
		if truthy(v) && !slices.Contains(harmless, k) {
			names = append(names, k)
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		return format.Unsupported("%s: %s", c.path, strings.Join(names, ", "))
	}
	return nil
}

// truthy is Python's idea of it.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case float64:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}

// parsePatterns reads an object in its own order, since the first match wins.
func parsePatterns(raw json.RawMessage) ([]namePattern, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("no object")
	}
	var list []namePattern
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var v float64
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + k.(string) + `)$`)
		if err != nil {
			return nil, err
		}
		list = append(list, namePattern{re, v})
	}
	return list, nil
}

func match(list []namePattern, module string, def float64) float64 {
	for _, p := range list {
		if p.re.MatchString(module) {
			return p.value
		}
	}
	return def
}

// scale gives a module's rank, alpha and factor on B*A.
func (c *peftConfig) scale(module string) (rank int, alpha float64, scale float64) {
	r := match(c.ranks, module, float64(c.rank))
	alpha = match(c.alphas, module, c.alpha)
	if c.rslora {
		// As alpha of the plain rule: alpha*sqrt(r)/r.
		return int(r), alpha * math.Sqrt(r), alpha / math.Sqrt(r)
	}
	return int(r), alpha, alpha / r
}

// trainedTokens reads the tokens that have rows of their own: a list, or lists by module.
func (c *peftConfig) trainedTokens() (map[string][]int32, error) {
	v := c.values["trainable_token_indices"]
	if c.values["peft_type"] == "TRAINABLE_TOKENS" {
		v = c.values["token_indices"]
	}
	if !truthy(v) {
		return nil, nil
	}
	by, ok := v.(map[string]any)
	if !ok {
		by = map[string]any{"": v}
	}
	out := map[string][]int32{}
	for name, v := range by {
		list, ok := v.([]any)
		if !ok {
			return nil, fmt.Errorf("%v is no list of tokens", v)
		}
		for _, x := range list {
			id, ok := x.(float64)
			if !ok || id != math.Trunc(id) || id < 0 || id > math.MaxInt32 {
				return nil, fmt.Errorf("%v is no token", x)
			}
			out[name] = append(out[name], int32(id))
		}
	}
	return out, nil
}

// tokensOf gives the trained tokens of a module.
func (c *peftConfig) tokensOf(module string) ([]int32, bool) {
	for name, ids := range c.tokens {
		if name == "" || module == name || strings.HasSuffix(module, "."+name) {
			return ids, true
		}
	}
	return nil, false
}
