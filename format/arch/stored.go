package arch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/format/safetensors"
)

// OpenStored opens a file or folder of safetensors as it stands: a model that is no
// language model graft knows, such as a diffusion checkpoint. Tensors have their own
// names, Table is nil and Arch is "". See [Model.Flat] for weights of convolutions.
func OpenStored(path string) (*Model, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	open := safetensors.Open
	switch {
	case st.IsDir():
		open = safetensors.OpenDir
	case strings.HasSuffix(path, ".index.json"):
		open = safetensors.OpenIndex
	}
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	m, err := storedModel(path, &gguf.Meta{}, f.Tensors, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	m.Metadata = f.Metadata
	return m, nil
}

func storedModel(path string, meta *gguf.Meta, tensors []*format.Tensor, closer io.Closer) (*Model, error) {
	views := make([]*format.View, len(tensors))
	for i, t := range tensors {
		v, err := storedView(t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		views[i] = v
	}
	return NewModel(path, meta, views, closer.Close), nil
}

// storedView sees a tensor as it stands.
func storedView(t *format.Tensor) (*format.View, error) {
	v := &format.View{Name: t.Name, Type: t.Type, Shape: t.Shape, From: []*format.Tensor{t}}
	var unknown *format.UnsupportedError
	rows, err := format.StoredRows(t)
	if errors.As(err, &unknown) { // integers and the like, which are only copied
		v.Rows = bytesOnly{t}
		return v, nil
	}
	v.Rows = rows
	return v, err
}

// Flat is m with the weights of convolutions, tensors of four dimensions and more, seen as
// matrices of their first dimension by the others. Their shape in the file is still that
// of From[0]. A GGUF file may have other rows than the matrix that it says a tensor is, so
// that blocks fill them: then Shape is the matrix', and Rows are the file's. It shares m's
// files; closing it closes nothing.
func (m *Model) Flat() (*Model, error) {
	views := make([]*format.View, len(m.Views))
	for i, v := range m.Views {
		views[i] = v
		if shape, ok := m.Meta.Ints(originalShape + v.Name); ok && len(shape) > 1 && shape[0] > 0 {
			rows, cols := v.Rows.Dims()
			inner := int64(1)
			for _, n := range shape[1:] {
				inner *= n
			}
			if shape[0]*inner != rows*cols || inner <= 0 {
				return nil, fmt.Errorf("%s: tensor %s has %d values, and by %s the shape %v", m.Path, v.Name, rows*cols, originalShape+v.Name, shape)
			}
			w := *v
			w.Shape = []int64{shape[0], inner}
			views[i] = &w
			continue
		}
		if len(v.Shape) < 4 || len(v.From) != 1 || v.Shape[0] == 0 {
			continue
		}
		t := *v.From[0]
		t.Shape = []int64{t.Shape[0], t.Rows() * t.Cols() / t.Shape[0]}
		w, err := storedView(&t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		w.From = v.From
		views[i] = w
	}
	flat := NewModel(m.Path, m.Meta, views)
	flat.Metadata = m.Metadata
	return flat, nil
}

// originalShape, before a tensor's name, is the key of the shape that it had before its rows
// were made to fill blocks: of GGUF files of diffusion models that ComfyUI-GGUF reads.
const originalShape = "comfy.gguf.orig_shape."

// bytesOnly is a tensor whose values graft does not decode.
type bytesOnly struct{ t *format.Tensor }

func (b bytesOnly) Dims() (int64, int64) { return b.t.Rows(), b.t.Cols() }
func (b bytesOnly) RawType() format.Type { return b.t.Type }
func (b bytesOnly) ReadRows([]float32, int64) error {
	return format.Unsupported("tensor %s: values of type %v are not decoded", b.t.Name, b.t.Type)
}

func (b bytesOnly) ReadRaw(dst []byte, row int64) error {
	_, err := b.t.ReadAt(dst, row*(b.t.Size/max(b.t.Rows(), 1)))
	return err
}

// storedAlone says whether a safetensors file lies in no folder of a language model, or
// a folder is one of diffusers' components.
func storedAlone(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	return err == nil && strings.Contains(string(b), `"_class_name"`)
}

// hasSafetensors says whether a folder holds tensors at all.
func hasSafetensors(dir string) bool {
	list, err := filepath.Glob(filepath.Join(globQuote.Replace(dir), "*.safetensors"))
	return err == nil && len(list) > 0
}

var globQuote = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// Stored says whether m is seen as it stands, without a table of its architecture.
func (m *Model) Stored() bool { return m.Table == nil }

// StoredModule is where a stored model has the weight of a module.
type StoredModule struct {
	Tensor string
	// Row says where in the tensor's rows the module's begin, given its numbers of rows
	// and columns; nil: at the first, and the module is the whole tensor.
	Row func(rows, cols int) int
	// Swapped: the module's name is of a convention in which the two halves of the tensor's
	// rows stand the other way round.
	Swapped bool
}

// StoredModule finds the weight of a module of a stored model by any of the names it has:
// as in the file, without the file's prefix, with underscores for dots, and for Stable
// Diffusion, SDXL, FLUX and Wan as diffusers calls it. suffix is "" for the weight,
// ".bias" for the bias. ok is false if there is none.
func (m *Model) StoredModule(module, suffix string) (s StoredModule, ok bool) {
	m.stored.once.Do(func() { m.stored.fill(m.Views) })
	for _, c := range candidates(module) {
		n, row := m.stored.find(c)
		tensor := n.tensor
		if tensor == "" {
			continue
		}
		found := StoredModule{Tensor: tensor, Row: row}
		if v := m.View(tensor); n.swap && len(v.Shape) == 2 {
			found.Swapped = v.Shape[0] == 2*v.Shape[1]
		}
		if suffix == ".bias" {
			tensor = strings.TrimSuffix(strings.TrimSuffix(tensor, "_weight"), ".weight")
			if found.Tensor = tensor + "_bias"; m.View(found.Tensor) == nil {
				found.Tensor = tensor + ".bias"
			}
			if m.View(found.Tensor) == nil {
				continue
			}
		}
		return found, true
	}
	return StoredModule{}, false
}
