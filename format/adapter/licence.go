package adapter

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/format/safetensors"
)

// maxCard is the largest model card that is read, in bytes.
const maxCard = 1 << 22

// Licence is what the adapter at path states as its licence: general.license of a GGUF
// file, "license" at the head of a folder's README.md, modelspec.license of a safetensors
// file. It is "" if nothing is stated.
func Licence(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !st.IsDir() && sniffGGUF(path) {
		f, err := gguf.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		s, _ := f.Meta.Str("general.license")
		return s, nil
	}
	if !st.IsDir() && filepath.Base(path) != checkpoint.AdapterWeightsName {
		f, err := safetensors.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		return f.Metadata["modelspec.license"], nil
	}
	card := filepath.Join(path, "README.md")
	if !st.IsDir() {
		card = filepath.Join(filepath.Dir(path), "README.md")
	}
	st, err = os.Stat(card)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if st.Size() > maxCard {
		return "", &format.CorruptError{Path: card, Offset: -1, Err: fmt.Errorf("a model card of %d bytes", st.Size())}
	}
	b, err := os.ReadFile(card)
	if err != nil {
		return "", err
	}
	head, ok := bytes.CutPrefix(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("---\n"))
	if !ok {
		return "", nil
	}
	head, _, _ = bytes.Cut(head, []byte("\n---"))
	var meta struct {
		License any `yaml:"license"`
	}
	if err := yaml.Unmarshal(head, &meta); err != nil {
		return "", &format.CorruptError{Path: card, Offset: -1, Field: "front matter", Err: err}
	}
	s, _ := meta.License.(string)
	return s, nil
}
