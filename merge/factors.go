package merge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
)

// factorEnding names the tensor beside a weight of a GGUF file that multiplies it, of NVFP4:
// one number for each matrix of a stack.
const factorEnding = ".scale"

// factorEndings are those and the ones beside weights in 8-bit floats, which are not merged into.
var factorEndings = []string{factorEnding, ".scale_weight", ".weight_scale", ".weight_scale_inv"}

// factors multiply what is stored of a tensor. They are read-only; a nil one is a factor of 1.
type factors struct {
	of        []float32
	perMatrix int64 // rows
}

// factorName is the name of a tensor's factors.
func factorName(tensor string) string { return strings.TrimSuffix(tensor, ".weight") + factorEnding }

// factorsOf reads the factors of a tensor; nil if it has none.
func factorsOf(m *arch.Model, v *format.View) (*factors, error) {
	if m.Stored() || len(v.Shape) < 2 {
		return nil, nil
	}
	s := m.View(factorName(v.Name))
	if s == nil {
		return nil, nil
	}
	n := int64(1)
	for _, d := range v.Shape[:len(v.Shape)-2] {
		n *= d
	}
	if rows, cols := s.Rows.Dims(); rows*cols != n {
		return nil, fmt.Errorf("%s: tensor %s has %d factors for %d matrices of %s", m.Path, s.Name, rows*cols, n, v.Name)
	}
	f := &factors{make([]float32, n), v.Shape[len(v.Shape)-2]}
	if err := s.Rows.ReadRows(f.of, 0); err != nil {
		return nil, err
	}
	for i, x := range f.of {
		if x-x != 0 || x == 0 {
			return nil, fmt.Errorf("%s: tensor %s: factor %d is %v", m.Path, s.Name, i, x)
		}
	}
	return f, nil
}

// at is the factor of a row.
func (f *factors) at(row int64) float32 {
	if f == nil {
		return 1
	}
	return f.of[row/f.perMatrix]
}

// rows are those of r times their factors.
func (f *factors) rows(r format.RowReader) format.RowReader {
	if f == nil {
		return r
	}
	return &factored{r, f}
}

type factored struct {
	format.RowReader
	f *factors
}

func (r *factored) ReadRows(dst []float32, row int64) error {
	if err := r.RowReader.ReadRows(dst, row); err != nil {
		return err
	}
	r.f.multiply(dst, row, r.RowReader)
	return nil
}

// multiply multiplies whole rows by their factors.
func (f *factors) multiply(x []float32, row int64, of format.RowReader) {
	_, cols := of.Dims()
	for ; len(x) > 0; x, row = x[cols:], row+1 {
		kernel.Scale(x[:cols], f.at(row), x[:cols])
	}
}

// inStored is a delta whose change is of what a tensor stores, to be multiplied by its factors.
func (d *Delta) inStored(f *factors) *Delta {
	if f == nil {
		return d
	}
	out := *d
	out.factors = f
	return &out
}

// ofWeights is the delta whose change is of the weights themselves.
func (d *Delta) ofWeights() *Delta {
	if d.factors == nil {
		return d
	}
	out := *d
	out.factors = nil
	return &out
}

// changeStored is change of a delta with factors: what the weights, stored values times factors, change by, over the factors.
func (d *Delta) changeStored(dst, base []float32, row int64, tmp *kernel.Mat) {
	w := base
	if d.usesBase() {
		w = make([]float32, len(base))
		for i := range len(base) / int(d.Cols) {
			kernel.Scale(w[i*int(d.Cols):(i+1)*int(d.Cols)], d.factors.at(row+int64(i)), base[i*int(d.Cols):(i+1)*int(d.Cols)])
		}
	}
	d.ofWeights().change(dst, w, row, tmp)
	for i := range len(dst) / int(d.Cols) {
		x, f := dst[i*int(d.Cols):(i+1)*int(d.Cols)], d.factors.at(row+int64(i))
		for j := range x {
			x[j] /= f
		}
	}
}

// modelFactors are the factors of a model's tensors, by the name of what they multiply.
func modelFactors(m *arch.Model) (map[string]*factors, error) {
	all := map[string]*factors{}
	for _, v := range m.Views {
		f, err := factorsOf(m, v)
		if err != nil {
			return nil, err
		}
		if f != nil {
			all[v.Name] = f
		}
	}
	return all, nil
}

// asWeights is a model whose weights are what their factors make of them, without these; m itself
// where it has none. It shares m's files.
func asWeights(m *arch.Model) (*arch.Model, error) {
	all, err := modelFactors(m)
	if err != nil || len(all) == 0 {
		return m, err
	}
	dropped := map[string]bool{}
	for name := range all {
		dropped[factorName(name)] = true
	}
	var views []*format.View
	for _, v := range m.Views {
		if !dropped[v.Name] {
			views = append(views, all[v.Name].view(v))
		}
	}
	return m.With(views), nil
}

// view is v with its rows multiplied.
func (f *factors) view(v *format.View) *format.View {
	if f == nil {
		return v
	}
	w := *v
	w.Type, w.Rows = format.F16, f.rows(v.Rows) // what can hold them, where they are to be stored
	return &w
}

// equal says that the two multiply by the same.
func (f *factors) equal(g *factors) bool {
	return f == nil && g == nil || f != nil && g != nil && slices.Equal(f.of, g.of)
}
