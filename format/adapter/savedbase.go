package adapter

import (
	"fmt"
	"math"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/safetensors"
)

// savedBase are the base's own weights of modules with a pair: PEFT writes them
// beside the pairs of embeddings and heads. They change nothing where they are those
// of the base that the adapter is used with, and tell when they are not.
type savedBase struct {
	path    string // the file they are in
	modules []string
}

// savedLimit is the relative difference from which two matrices are not one
// matrix in two types. Quantizations stay below it, other models are beyond.
const savedLimit = 0.5

// check makes sure that each is of a module that has a pair.
func (s savedBase) check(h *halves) error {
	for _, module := range s.modules {
		if h.index[module] == nil {
			return format.Unsupported("%s: tensor %s.base_layer.weight: a weight of the base without a pair", s.path, module)
		}
	}
	return nil
}

// compare compares the saved weight of p's module, if there is one, with m's.
func (s savedBase) compare(p *Pair, m *arch.Model) error {
	if !slices.Contains(s.modules, p.Module) {
		return nil
	}
	f, err := safetensors.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	name := p.Module + ".base_layer.weight"
	t := f.Tensor(peftPrefix + name)
	if t == nil {
		t = f.Tensor(name)
	}
	if t == nil {
		return fmt.Errorf("%s has changed while it was read", s.path)
	}
	saved, err := format.StoredRows(t)
	if err != nil {
		return err
	}
	base := m.View(p.Target).Rows
	rows, cols := base.Dims()
	if n, c := saved.Dims(); n != rows || c != cols {
		return format.Usagef("%s was trained on a matrix of %d x %d, the base's is %d x %d", p.Module, n, c, rows, cols)
	}
	toGGUF, _ := m.RowOrder(p.Target)
	return sameWeights(p.Module, saved, base, toGGUF)
}

// sameWeights wants the rows of a saved matrix, of which there may be more, to be the base's.
func sameWeights(module string, saved, base format.RowReader, toGGUF func(int64) int64) error {
	rows, cols := base.Dims()
	x, y := make([]float32, cols), make([]float32, cols)
	var diff, norm float64
	for r := range rows {
		at := r
		if toGGUF != nil {
			at = toGGUF(r)
		}
		if err := saved.ReadRows(x, at); err != nil {
			return err
		}
		if err := base.ReadRows(y, r); err != nil {
			return err
		}
		for i, v := range x {
			d := float64(v) - float64(y[i])
			diff += float64(d * d)
			norm += float64(float64(v) * float64(v))
		}
	}
	if !(diff <= savedLimit*savedLimit*norm) {
		return format.Usagef("the weight of %s that was saved with it is not the base's: they differ by %.3g of its norm; is it another model's adapter?", module, math.Sqrt(diff/norm))
	}
	return nil
}
