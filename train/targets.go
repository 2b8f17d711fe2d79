package train

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// modules are the names that Hugging Face has for matrices, by GGUF's.
var modules = map[string]string{
	"attn_q":         "self_attn.q_proj",
	"attn_k":         "self_attn.k_proj",
	"attn_v":         "self_attn.v_proj",
	"attn_qkv":       "self_attn.qkv_proj",
	"attn_output":    "self_attn.o_proj",
	"ffn_gate":       "mlp.gate_proj",
	"ffn_up":         "mlp.up_proj",
	"ffn_down":       "mlp.down_proj",
	"ffn_gate_shexp": "mlp.shared_expert.gate_proj",
	"ffn_up_shexp":   "mlp.shared_expert.up_proj",
	"ffn_down_shexp": "mlp.shared_expert.down_proj",
	"ffn_gate_exps":  "mlp.experts.gate_proj",
	"ffn_up_exps":    "mlp.experts.up_proj",
	"ffn_down_exps":  "mlp.experts.down_proj",
}

// stacked says whether the GGUF name is that of a stack of experts.
func stacked(matrix string) bool { return strings.HasSuffix(matrix, "_exps.weight") }

// names are what a matrix may be called in a list of targets: GGUF's whole name and
// its module, Hugging Face's whole name and its module.
func names(matrix string) []string {
	whole := strings.TrimSuffix(matrix, ".weight")
	switch whole {
	case "token_embd":
		return []string{whole, "model.embed_tokens", "embed_tokens"}
	case "output":
		return []string{whole, "lm_head"}
	}
	all := []string{matrix, whole}
	if parts := strings.SplitN(whole, ".", 3); len(parts) == 3 && parts[0] == "blk" {
		all = append(all, parts[2])
		if hf, ok := modules[parts[2]]; ok && stacked(matrix) {
			all = append(all, "model.layers."+parts[1]+"."+hf, "experts", strings.TrimPrefix(hf, "mlp."))
		} else if ok {
			all = append(all, "model.layers."+parts[1]+"."+hf, hf[strings.LastIndexByte(hf, '.')+1:])
		}
	}
	return all
}

// isRegexp begins a word that is a regular expression, which is what PEFT takes a
// target_modules for that is one string.
const isRegexp = "re:"

// matches says whether a matrix is meant by a word of a list of targets.
func matches(word, matrix string) (bool, error) {
	if word == "all-linear" {
		return strings.HasPrefix(matrix, "blk.") && !stacked(matrix), nil
	}
	match := path.Match
	if pattern, ok := strings.CutPrefix(word, isRegexp); ok {
		re, err := regexp.Compile(`^(?:` + pattern + `)$`)
		if err != nil {
			return false, fmt.Errorf("train: target %q: %w", word, err)
		}
		match = func(_, n string) (bool, error) { return re.MatchString(n), nil }
	}
	for _, n := range names(matrix) {
		ok, err := match(word, n)
		if err != nil {
			return false, fmt.Errorf("train: target %q: %w", word, err)
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

// chooseTargets gives the matrices, of those of a model and in their order, that
// are meant by targets and not by exclude. A word that means none is an error, with
// what there is.
func chooseTargets(matrices, targets, exclude []string) ([]string, error) {
	used := map[string]bool{}
	any := func(words []string, matrix string) (bool, error) {
		hit := false
		for _, w := range words {
			ok, err := matches(w, matrix)
			if err != nil {
				return false, err
			}
			if ok {
				hit, used[w] = true, true
			}
		}
		return hit, nil
	}
	var chosen []string
	for _, m := range matrices {
		in, err := any(targets, m)
		if err != nil {
			return nil, err
		}
		out, err := any(exclude, m)
		if err != nil {
			return nil, err
		}
		if in && !out {
			chosen = append(chosen, m)
		}
	}
	for _, list := range [][]string{targets, exclude} {
		for _, w := range list {
			if !used[w] && (w == "lm_head" || w == "output") {
				return nil, fmt.Errorf("train: target %q is no matrix of this model: its head is its embedding, embed_tokens", w)
			}
			if !used[w] {
				return nil, fmt.Errorf("train: target %q is no matrix of this model: its modules are %s", w, strings.Join(moduleNames(matrices), ", "))
			}
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("train: all targets are excluded")
	}
	return chosen, nil
}

// moduleNames lists the short names of a model's matrices, each once.
func moduleNames(matrices []string) []string {
	var list []string
	seen := map[string]bool{}
	for _, m := range matrices {
		all := names(m)
		if n := all[len(all)-1]; !seen[n] {
			seen[n] = true
			list = append(list, n)
		}
	}
	return list
}
