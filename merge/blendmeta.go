package merge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
)

// meta is the template's metadata, with the number of layers, what it says of each
// of them, and the tokenizer that the recipe asks for.
func (b *blender) meta() (*gguf.Meta, error) {
	meta := b.template.Meta.Clone()
	old := layerCount(b.template)
	same := len(b.layers) == old
	for i, l := range b.layers {
		same = same && i == l
	}
	if !same {
		meta.Set(b.template.Arch+".block_count", uint32(len(b.layers)))
		for _, kv := range meta.All() {
			if strings.HasPrefix(kv.Key, b.template.Arch+".") || strings.HasPrefix(kv.Key, "graft.") {
				if v, ok := byLayer(kv.Value, old, b.layers); ok {
					meta.Set(kv.Key, v)
				}
			}
		}
	}
	if b.r.Name != "" {
		meta.Set("general.name", b.r.Name)
	}
	return meta, b.tokenizer(meta)
}

// byLayer reorders a list that has one entry for each of n layers.
func byLayer(v gguf.Value, n int, layers []int) (gguf.Value, bool) {
	switch v := v.(type) {
	case []uint32:
		return pick(v, n, layers)
	case []int32:
		return pick(v, n, layers)
	case []float32:
		return pick(v, n, layers)
	case []bool:
		return pick(v, n, layers)
	}
	return nil, false
}

func pick[T any](v []T, n int, layers []int) (gguf.Value, bool) {
	if len(v) != n {
		return nil, false
	}
	var out []T
	for _, l := range layers {
		out = append(out, v[l])
	}
	return out, true
}

// tokenizer takes over the tokenizer of the model that the recipe names. Models whose
// vocabularies differ are refused, since their rows mean different tokens.
func (b *blender) tokenizer(meta *gguf.Meta) error {
	from := b.template
	switch b.r.Tokenizer {
	case "", "union":
	case "base":
		if b.r.Base == "" {
			return format.Usagef("tokenizer source base, and the recipe has no base_model")
		}
	default:
		if from = b.models[b.r.Tokenizer]; from == nil {
			return format.Usagef("the tokenizer's source %q is no model of the recipe", b.r.Tokenizer)
		}
	}
	const tokens = "tokenizer.ggml.tokens"
	want, has := from.Meta.Strs(tokens)
	for _, path := range b.r.Models() {
		got, ok := b.models[path].Meta.Strs(tokens)
		switch {
		case !ok || !has || slices.Equal(got, want):
		case b.r.Tokenizer == "":
			b.notes = append(b.notes, fmt.Sprintf("%s has other tokens than %s, whose tokenizer the result has", path, from.Path))
		default:
			return format.Unsupported("%s has other tokens than %s: a vocabulary of several is not made", path, from.Path)
		}
	}
	if from != b.template {
		replaceTokenizer(meta, from)
	}
	return nil
}

func replaceTokenizer(meta *gguf.Meta, from *arch.Model) {
	for _, kv := range slices.Clone(meta.All()) {
		if strings.HasPrefix(kv.Key, "tokenizer.") {
			meta.Delete(kv.Key)
		}
	}
	for _, kv := range from.Meta.All() {
		if strings.HasPrefix(kv.Key, "tokenizer.") {
			meta.Set(kv.Key, kv.Value)
		}
	}
}
