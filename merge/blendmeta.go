package merge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/convert"
	"github.com/graft-lora/graft/format/gguf"
)

// meta is the template's metadata, with the number of layers, what it says of each
// of them, and the tokenizer that the recipe asks for.
func (b *blender) meta() (*gguf.Meta, error) {
	meta := b.template.Meta.Clone()
	meta.Delete(adapter.SourceKey) // it is no quantization of that any more
	old := layerCount(b.template)
	same := len(b.layers) == old
	for i, l := range b.layers {
		same = same && i == l
	}
	if !same {
		meta.Set(b.template.Arch+".block_count", uint32(len(b.layers)))
		meta.Delete("general.size_label") // it names the template's number of parameters
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
	if b.tokens != nil {
		replaceTokenizer(meta, b.tokens)
	}
	if b.vocab != nil {
		if key := b.template.Arch + ".vocab_size"; meta.Has(key) {
			meta.Set(key, uint32(len(b.vocab)))
		}
	}
	return meta, nil
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

// tokenizerNames are the files of a folder that make a tokenizer.
var tokenizerNames = []string{checkpoint.TokenizerName, checkpoint.TokenizerModelName, checkpoint.TokenizerConfigName,
	checkpoint.SpecialTokensName, checkpoint.AddedTokensName, checkpoint.TemplateName, "chat_template.json", "vocab.json", "merges.txt", checkpoint.GenerationConfigName}

// Describe makes the files beside the tensors of a planned folder those of the blend:
// its configuration has the blend's layers, the tokenizer is the recipe's, the
// recipe itself is there (as mergekit_config.yml), and the template's model card, which
// is another model's, is not.
func (b *Blended) Describe(f *convert.HFFolder) error {
	var files []convert.File
	for _, file := range f.Files {
		switch {
		case file.Name == "README.md" || b.tokens != nil && slices.Contains(tokenizerNames, file.Name):
			continue
		case file.Name == checkpoint.ConfigName:
			var err error
			if file.Data, err = b.layerConfig(file.Data); err != nil {
				return fmt.Errorf("%s: %w", checkpoint.ConfigName, err)
			}
		}
		files = append(files, file)
	}
	if b.tokens != nil {
		if st, err := os.Stat(b.tokens.Path); err != nil || !st.IsDir() {
			return format.Unsupported("a tokenizer from %s, no folder, for a folder made like %s", b.tokens.Path, b.Template.Path)
		}
		for _, name := range tokenizerNames {
			data, err := os.ReadFile(filepath.Join(b.tokens.Path, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			files = append(files, convert.File{Name: name, Data: data})
		}
	}
	f.Files = append(files, convert.File{Name: "mergekit_config.yml", Data: b.Recipe.Text})
	return nil
}

// layerConfig gives a configuration the blend's layers: their number, and lists with
// an entry for each.
func (b *Blended) layerConfig(config []byte) ([]byte, error) {
	var v map[string]json.RawMessage
	if err := json.Unmarshal(config, &v); err != nil {
		return nil, err
	}
	old := layerCount(b.Template)
	for key, raw := range v {
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil || len(list) != old || !strings.Contains(key, "layer") {
			continue
		}
		picked := make([]json.RawMessage, len(b.Layers))
		for i, l := range b.Layers {
			picked[i] = list[l]
		}
		raw, err := json.Marshal(picked)
		if err != nil {
			return nil, err
		}
		v[key] = raw
	}
	if b.tokens != nil {
		for key, name := range map[string]string{"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"} {
			if id, ok := b.Meta.Int("tokenizer.ggml." + name + "_token_id"); ok {
				v[key] = json.RawMessage(fmt.Sprint(id))
			}
		}
		v["vocab_size"] = json.RawMessage(fmt.Sprint(b.View("token_embd.weight").Shape[0]))
	}
	v["num_hidden_layers"] = json.RawMessage(fmt.Sprint(len(b.Layers)))
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return out.Bytes(), err
}
