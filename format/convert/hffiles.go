package convert

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
)

// companions are the files of a folder that a conversion leaves as they are.
var companions = append([]string{checkpoint.GenerationConfigName, "chat_template.json", "README.md", "LICENSE"}, checkpoint.TokenizerFiles...)

// copyFiles takes over the files of the folder that the model came from.
func copyFiles(dir string, c *chooser) ([]File, error) {
	path := filepath.Join(dir, checkpoint.ConfigName)
	config, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var parts struct {
		Text json.RawMessage `json:"text_config"`
	}
	switch err := json.Unmarshal(config, &parts); {
	case err != nil:
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "JSON", Err: err}
	case parts.Text != nil: // the text model of one that also sees
		if config, err = newConfig(c.m, c.typ); err != nil {
			return nil, err
		}
	case c.quantized || !c.same:
		if config, err = retype(path, config, c.typ); err != nil {
			return nil, err
		}
	}
	if len(c.m.Added) > 0 && parts.Text == nil {
		if config, err = resize(path, config, c.m); err != nil {
			return nil, err
		}
	}
	files := []File{{checkpoint.ConfigName, config}}
	for _, name := range companions {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, File{name, b})
	}
	if files, err = withAdded(dir, files, c.m.Added); err != nil {
		return nil, err
	}
	more, err := filepath.Glob(filepath.Join(dir, "additional_chat_templates", "*.jinja"))
	if err != nil {
		return nil, err
	}
	sort.Strings(more)
	for _, path := range more {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, File{filepath.Join("additional_chat_templates", filepath.Base(path)), b})
	}
	return files, nil
}

// retype changes the type that a configuration states, and takes out what it says
// about a quantization that is no more.
func retype(path string, config []byte, typ format.Type) ([]byte, error) {
	var v map[string]json.RawMessage
	if err := json.Unmarshal(config, &v); err != nil {
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "JSON", Err: err}
	}
	delete(v, "quantization_config")
	key := "torch_dtype"
	if _, ok := v["dtype"]; ok {
		key = "dtype"
	}
	v[key] = json.RawMessage(`"` + dtypeName(typ) + `"`)
	return encodeJSON(v)
}

// newFiles rebuilds configuration and tokenizer from the metadata of a GGUF file.
func newFiles(m *arch.Model, dtype format.Type) ([]File, error) {
	config, err := newConfig(m, dtype)
	if err != nil {
		return nil, err
	}
	generation, err := generationConfig(m)
	if err != nil {
		return nil, err
	}
	files := []File{{checkpoint.ConfigName, config}, {checkpoint.GenerationConfigName, generation}}
	card, err := modelCard(m)
	if err != nil {
		return nil, err
	}
	if card != nil {
		files = append(files, File{"README.md", card})
	}
	vocab, err := tokenizerFiles(m)
	return append(files, vocab...), err
}
