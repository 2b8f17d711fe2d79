package train

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/tokenizer"
	_ "github.com/graft-lora/graft/quant" // the codecs of quantized files
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// Base is a model opened for use, with its tokenizer and chat template.
type Base struct {
	Path      string
	Source    *arch.Model
	Model     *model.Model
	Tokenizer *tokenizer.Tokenizer
	Template  data.Template // nil if the model has none
	// TemplateSource is the text of Template.
	TemplateSource string

	original *arch.Model // as the files have it; Source may have more tokens
	added    []arch.AddedToken
	init     string // how their rows begin
	options  model.Options

	stops []int32 // tokens that end a generation, where the tokenizer does not say it
}

// OpenBase opens a GGUF file or a Hugging Face folder. Weights stay in the file.
func OpenBase(path string, opt model.Options) (*Base, error) { return OpenHeld(path, "", opt) }

// OpenHeld opens a base and quantizes its layers' matrices as bitsandbytes would:
// how is one of [Holds], or "" for [OpenBase]. These matrices are held in memory,
// at 4 to 8 bits a weight. What is quantized already is refused.
func OpenHeld(path, how string, opt model.Options) (*Base, error) {
	src, err := arch.Open(path, arch.Options{})
	if err != nil {
		return nil, err
	}
	b := &Base{Path: path, Source: src, original: src, options: opt}
	if err := hold(src, how); err != nil {
		b.Close()
		return nil, err
	}
	if err := b.open(opt); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Base) open(opt model.Options) error {
	if _, ok := b.Source.Meta.Str("tokenizer.ggml.model"); !ok {
		if st, err := os.Stat(b.Path); err == nil && st.IsDir() {
			return fmt.Errorf("%s: the folder has no tokenizer (tokenizer.json or tokenizer.model): copy that of the model it was made from", b.Path)
		}
	}
	spec, err := tokenizer.SpecFromGGUF(b.Source.Meta)
	if err != nil {
		return fmt.Errorf("%s: %w", b.Path, err)
	}
	if b.Tokenizer, err = tokenizer.New(spec); err != nil {
		return fmt.Errorf("%s: %w", b.Path, err)
	}
	if spec.ChatTemplate != "" {
		if err := b.setTemplate(b.Path, spec.ChatTemplate); err != nil {
			return err
		}
	}
	if err := b.findStops(); err != nil {
		return err
	}
	if b.Model, err = model.New(b.Source, opt); err != nil {
		return fmt.Errorf("%s: %w", b.Path, err)
	}
	if n := b.Tokenizer.Size(); n > b.Model.Vocab {
		return fmt.Errorf("%s: the tokenizer has %d tokens and the model %d", b.Path, n, b.Model.Vocab)
	}
	return nil
}

func (b *Base) setTemplate(path, source string) error {
	t, err := data.NewTemplate(source, b.Tokenizer)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	b.Template, b.TemplateSource = t, source
	return nil
}

// UseTemplate renders conversations by the Jinja template in a file, in place of the
// model's own.
func (b *Base) UseTemplate(path string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return b.setTemplate(path, string(source))
}

// Encoder makes samples for this model, of up to context tokens.
func (b *Base) Encoder(context int, o data.Options) *data.Encoder {
	return &data.Encoder{Tokenizer: b.Tokenizer, Template: b.Template, Context: context, Stops: b.stopper(), Options: o}
}

// Close frees the model and closes its files. It may be called twice.
func (b *Base) Close() error {
	var err error
	if b.Model != nil {
		err = b.Model.Close()
	}
	return errors.Join(err, b.original.Close())
}

// FileDigest is a file of a run with the digest of its bytes.
type FileDigest struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// files are those that the model is made of.
func (b *Base) files() []string {
	seen := map[string]bool{}
	for _, v := range b.Source.Views {
		for _, t := range v.From {
			seen[t.Path] = true
		}
	}
	if st, err := os.Stat(b.Path); err == nil && st.IsDir() {
		for _, name := range []string{"config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"} {
			p := filepath.Join(b.Path, name)
			if _, err := os.Stat(p); err == nil {
				seen[p] = true
			}
		}
	}
	list := make([]string, 0, len(seen))
	for p := range seen {
		list = append(list, p)
	}
	slices.Sort(list)
	return list
}

// digestFiles hashes files one after another.
func digestFiles(paths ...string) ([]FileDigest, error) {
	var list []FileDigest
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return nil, err
		}
		h := sha256.New()
		n, err := io.Copy(h, f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		list = append(list, FileDigest{p, n, hex.EncodeToString(h.Sum(nil))})
	}
	return list, nil
}

// digestPath hashes a file, or all files of a folder.
func digestPath(path string) ([]FileDigest, error) {
	var paths []string
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			paths = append(paths, p)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return digestFiles(paths...)
}

// digestOf is the digest of a list of files that does not depend on where they are.
func digestOf(list []FileDigest) string {
	h := sha256.New()
	for _, f := range list {
		io.WriteString(h, f.SHA256+"\n")
	}
	return hex.EncodeToString(h.Sum(nil))
}

// tokenizerDigest is the digest of everything that defines a tokenizer, its
// templates included.
func tokenizerDigest(t *tokenizer.Tokenizer) string {
	b, err := json.Marshal(t.Spec())
	if err != nil {
		panic(err) // a Spec holds strings and numbers
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
