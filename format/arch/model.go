package arch

import (
	"sync"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// Model is a language model seen in graft's own terms, whatever it is stored as:
// GGUF tensor names and layouts, GGUF metadata. A GGUF file is one as it stands;
// a Hugging Face folder becomes one through the table of its architecture,
// without a byte being written or converted before its rows are asked for.
type Model struct {
	Path string
	Arch string // general.architecture: "llama", "qwen3", …
	// Meta is the metadata that the GGUF file has, or that a converted one would
	// have. Facts that GGUF has no key for stand under "graft.*" keys, which are
	// never written to a file.
	Meta  *gguf.Meta
	Views []*format.View // in the order of the file, or the order a converter writes
	// Notes are what people should know about the source: facts that a GGUF file
	// cannot state, and what a run-time will assume instead.
	Notes []string
	// Metadata is that of the safetensors file that the model was opened from as it
	// stands; nil for others.
	Metadata map[string]string
	// Table is what graft knows of the architecture; nil if it is unknown, which
	// only a GGUF file's can be.
	Table *Table
	// Added are the tokens that [Model.WithTokens] added to those of the files.
	Added []AddedToken

	index  map[string]*format.View
	closes []func() error
	stored storedNames

	digests sync.Map // of TensorDigest, by name
}

// NewModel makes a model of views; closers are called by Close.
func NewModel(path string, meta *gguf.Meta, views []*format.View, closers ...func() error) *Model {
	m := &Model{Path: path, Meta: meta, Views: views, index: make(map[string]*format.View, len(views)), closes: closers}
	m.Arch, _ = meta.Str("general.architecture")
	for _, v := range views {
		m.index[v.Name] = v
	}
	m.Table, _ = TableOf(m)
	return m
}

// View finds a tensor by its GGUF name; nil if the model has none of that name.
func (m *Model) View(name string) *format.View { return m.index[name] }

// Close closes the files of the model. Views must not be used afterwards. It may
// be called twice and returns the first error.
func (m *Model) Close() error {
	var first error
	for _, c := range m.closes {
		if err := c(); err != nil && first == nil {
			first = err
		}
	}
	m.closes = nil
	return first
}
