package arch

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"strings"

	"github.com/graft-lora/graft/format"
)

// Values of Table.defaults that follow from others.
type derived int

const (
	fromHeads  derived = iota // the number of attention heads
	fromHidden                // hidden size / number of attention heads
)

// hparams are the values of a config.json, with those of its text_config at the
// top level and the defaults of the architecture filled in.
type hparams struct {
	table *Table
	v     map[string]any // numbers are json.Number
	rope  map[string]any // rope_parameters, as transformers 5 writes them
}

// newHparams reads config, the bytes of the config.json at path.
func newHparams(path string, config []byte) (*hparams, error) {
	dec := json.NewDecoder(strings.NewReader(string(config)))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "JSON", Err: err}
	}
	classes, _ := v["architectures"].([]any)
	if text, ok := v["text_config"].(map[string]any); ok {
		merged := maps.Clone(v)
		for k, x := range text {
			if k != "architectures" || x != nil && len(classes) == 0 {
				merged[k] = x
			}
		}
		v = merged
	}
	classes, _ = v["architectures"].([]any)
	if len(classes) == 0 {
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "architectures", Err: fmt.Errorf("missing, so the model cannot be told")}
	}
	class, _ := classes[0].(string)
	t, err := TableOfClass(class)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	h := &hparams{table: t, v: v}
	h.fillDefaults()
	h.fillRope()
	return h, nil
}

func (h *hparams) fillDefaults() {
	for k, d := range h.table.defaults {
		old, present := h.v[k]
		switch d := d.(type) {
		case derived:
			if old != nil {
				continue
			}
			heads, _ := h.int("num_attention_heads")
			hidden, _ := h.int("hidden_size")
			if d == fromHidden && heads > 0 {
				heads = hidden / heads
			}
			h.v[k] = json.Number(fmt.Sprint(heads))
		default:
			if present {
				continue
			}
			switch d := d.(type) {
			case int:
				h.v[k] = json.Number(fmt.Sprint(d))
			case float64:
				h.v[k] = json.Number(fmt.Sprintf("%g", d))
			default:
				h.v[k] = d
			}
		}
	}
}

// fillRope gathers what checkpoints of all ages say about rope in the form of
// rope_parameters. With local layers it has full_attention and sliding_attention.
func (h *hparams) fillRope() {
	r, ok := h.v["rope_parameters"].(map[string]any)
	if !ok {
		r, _ = h.v["rope_scaling"].(map[string]any)
	}
	h.rope = maps.Clone(r)
	if h.rope == nil {
		h.rope = map[string]any{}
	}
	if h.rope["full_attention"] != nil || h.rope["sliding_attention"] != nil {
		return
	}
	set := func(key string, from ...string) {
		for _, f := range from {
			if x := h.v[f]; h.rope[key] == nil && x != nil {
				h.rope[key] = x
			}
		}
	}
	set("rope_theta", "global_rope_theta", "rope_theta", "rotary_emb_base")
	set("partial_rotary_factor", "partial_rotary_factor")
	set("original_max_position_embeddings", "original_max_position_embeddings")
	if h.rope["rope_type"] == nil && h.rope["type"] != nil {
		h.rope["rope_type"] = h.rope["type"]
	}
	if local := h.v["rope_local_base_freq"]; local != nil {
		h.rope["sliding_attention"] = map[string]any{"rope_theta": local}
	}
}

// globalRope are the rope parameters of the layers with full attention.
func (h *hparams) globalRope() *hparams {
	r := h.rope
	if full, ok := r["full_attention"].(map[string]any); ok {
		r = full
	}
	return &hparams{table: h.table, v: r}
}

// localRope are those of the layers with a sliding window; empty if there are none.
func (h *hparams) localRope() *hparams {
	r, _ := h.rope["sliding_attention"].(map[string]any)
	return &hparams{table: h.table, v: r}
}

// float finds the first of the keys that is a number.
func (h *hparams) float(keys ...string) (f float64, ok bool) {
	for _, k := range keys {
		if n, isNum := h.v[k].(json.Number); isNum {
			f, err := n.Float64()
			return f, err == nil
		}
	}
	return 0, false
}

// int finds the first of the keys that is a whole number.
func (h *hparams) int(keys ...string) (n int64, ok bool) {
	f, ok := h.float(keys...)
	if !ok || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

func (h *hparams) str(key string) string {
	s, _ := h.v[key].(string)
	return s
}

func (h *hparams) bool(key string) bool {
	b, _ := h.v[key].(bool)
	return b
}

func (h *hparams) floats(key string) []float64 {
	list, _ := h.v[key].([]any)
	var out []float64
	for _, x := range list {
		n, _ := x.(json.Number)
		f, err := n.Float64()
		if err != nil {
			return nil
		}
		out = append(out, f)
	}
	return out
}

func (h *hparams) strs(key string) []string {
	list, _ := h.v[key].([]any)
	var out []string
	for _, x := range list {
		s, ok := x.(string)
		if !ok {
			return nil
		}
		out = append(out, s)
	}
	return out
}

// headDim is the size of an attention head.
func (h *hparams) headDim() int64 {
	if d, ok := h.int("head_dim"); ok {
		return d
	}
	hidden, _ := h.int("hidden_size")
	heads, _ := h.int("num_attention_heads")
	if heads <= 0 {
		return 0
	}
	return hidden / heads
}

// heads gives the numbers of query and of key/value heads.
func (h *hparams) heads() (q, kv int64) {
	q, _ = h.int("num_attention_heads")
	kv, ok := h.int("num_key_value_heads")
	if !ok {
		kv = q
	}
	return q, kv
}

// check refuses values that the rest of the package divides by or sizes things
// with.
func (h *hparams) check(path string) error {
	for _, k := range []string{"hidden_size", "num_hidden_layers", "num_attention_heads"} {
		if n, ok := h.int(k); !ok || n <= 0 || n > math.MaxInt32 {
			return &format.CorruptError{Path: path, Offset: -1, Field: k, Err: fmt.Errorf("%v is no positive number", h.v[k])}
		}
	}
	if _, kv := h.heads(); kv <= 0 || kv > math.MaxInt32 {
		return &format.CorruptError{Path: path, Offset: -1, Field: "num_key_value_heads", Err: fmt.Errorf("%v is no positive number", h.v["num_key_value_heads"])}
	}
	if d := h.headDim(); d <= 0 || d%2 != 0 || d > 1<<16 {
		return &format.CorruptError{Path: path, Offset: -1, Field: "head_dim", Err: fmt.Errorf("%d: heads must have an even size", d)}
	}
	return nil
}
