package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/safetensors"
)

// The names of the files of a folder.
const (
	ConfigName           = "config.json"
	GenerationConfigName = "generation_config.json"
	TokenizerName        = "tokenizer.json"
	TokenizerModelName   = "tokenizer.model"
	TokenizerConfigName  = "tokenizer_config.json"
	SpecialTokensName    = "special_tokens_map.json"
	AddedTokensName      = "added_tokens.json"
	TemplateName         = "chat_template.jinja"

	AdapterConfigName  = "adapter_config.json" // of PEFT's and of MLX's adapters
	AdapterWeightsName = "adapter_model.safetensors"
)

// TokenizerFiles are the names of the files that say what a model's tokens are, and how
// conversations are made of them.
var TokenizerFiles = []string{TokenizerName, TokenizerModelName, TokenizerConfigName, SpecialTokensName, AddedTokensName,
	TemplateName, "vocab.json", "merges.txt"}

// maxSide is the largest file beside the tensors that is read whole, in bytes.
const maxSide = 1 << 28

// Checkpoint is an open model folder. Files that are absent are nil.
type Checkpoint struct {
	Dir    string
	Config *Config // config.json

	GenerationConfig []byte // generation_config.json
	TokenizerJSON    []byte // tokenizer.json
	TokenizerModel   []byte // tokenizer.model, SentencePiece
	TokenizerConfig  []byte // tokenizer_config.json
	SpecialTokens    []byte // special_tokens_map.json
	AddedTokens      []byte // added_tokens.json

	// Templates are the chat templates, the one called "default" first if there is one.
	Templates []Template

	// File holds the tensors of all shards.
	*safetensors.File
}

// Open opens the folder dir: config.json, what stands beside it, and the headers
// of its tensors.
func Open(dir string) (*Checkpoint, error) {
	c, err := OpenConfig(dir)
	if err != nil {
		return nil, err
	}
	c.File, err = safetensors.OpenDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if pickled, _ := filepath.Glob(filepath.Join(dir, "pytorch_model*.bin")); len(pickled) > 0 {
			err = format.Unsupported("%s: tensors in PyTorch's pickle files (%s); save the model as safetensors",
				dir, filepath.Base(pickled[0]))
		}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// OpenConfig reads everything of the folder dir but its tensors: File is nil.
func OpenConfig(dir string) (*Checkpoint, error) {
	c := &Checkpoint{Dir: dir}
	path := filepath.Join(dir, ConfigName)
	data, err := readSide(path)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	if c.Config, err = ParseConfig(path, data); err != nil {
		return nil, err
	}
	for name, dst := range map[string]*[]byte{
		GenerationConfigName: &c.GenerationConfig,
		TokenizerName:        &c.TokenizerJSON,
		TokenizerModelName:   &c.TokenizerModel,
		TokenizerConfigName:  &c.TokenizerConfig,
		SpecialTokensName:    &c.SpecialTokens,
		AddedTokensName:      &c.AddedTokens,
	} {
		if *dst, err = readSide(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	if c.Templates, err = readTemplates(dir, c.TokenizerConfig); err != nil {
		return nil, err
	}
	return c, nil
}

// readSide reads a whole file; an absent one is nil.
func readSide(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > maxSide {
		return nil, &format.CorruptError{Path: path, Offset: -1, Err: fmt.Errorf("%d bytes exceed %d", st.Size(), maxSide)}
	}
	data, err := os.ReadFile(path)
	if data == nil && err == nil {
		data = []byte{}
	}
	return data, err
}

// Close closes the tensors.
func (c *Checkpoint) Close() error {
	if c.File == nil {
		return nil
	}
	return c.File.Close()
}

// QuantMethod says how the weights are quantized, as config.json names it
// ("bitsandbytes", "gptq", "awq", "fp8", "mxfp4"), "mlx" for the quantized models
// of MLX, or "" if they are not.
func (c *Checkpoint) QuantMethod() string {
	for _, key := range []string{"quantization_config", "compression_config"} {
		if q, err := c.Config.Sub(key); err == nil {
			if method, err := q.Str("quant_method"); err == nil {
				return method
			}
			if q.Has("load_in_4bit") || q.Has("load_in_8bit") {
				return "bitsandbytes"
			}
			if q.Has("group_size") && q.Has("bits") {
				return "mlx"
			}
		}
	}
	if c.Config.Has("quantization") {
		return "mlx"
	}
	if c.File != nil {
		for _, t := range c.Tensors {
			if strings.Contains(t.Name, ".quant_state.bitsandbytes__") || strings.HasSuffix(t.Name, ".SCB") {
				return "bitsandbytes"
			}
		}
	}
	return ""
}
