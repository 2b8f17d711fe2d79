package adapter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

// PEFT's modules_to_save are trained as a whole: the file has what their weights became, and what they changed by is
// that without the base's.

// wholeMark stands behind a module that was saved whole in a raw state dict, and an adapter's name after it.
const wholeMark = ".modules_to_save."

// readWhole takes a tensor that is a whole weight or bias.
func readWhole(h *halves, t *format.Tensor) (taken bool, err error) {
	key := strings.TrimPrefix(t.Name, peftPrefix)
	if i := strings.LastIndex(key, wholeMark); i >= 0 {
		rest := key[i+len(wholeMark):]
		key = key[:i] + "." + rest[strings.LastIndexByte(rest, '.')+1:]
	}
	module, weight := strings.CutSuffix(key, ".weight")
	if !weight {
		var bias bool
		if module, bias = strings.CutSuffix(key, ".bias"); !bias {
			return false, nil
		}
	}
	if strings.Contains(key, "lora_") || strings.HasSuffix(module, ".base_layer") || strings.HasSuffix(module, ".original_module") {
		return false, nil
	}
	m, err := readMatrix(t)
	if err != nil {
		return true, err
	}
	p := fullPair(module, m, nil, len(t.Shape) < 2)
	if !weight {
		p.suffix = ".bias"
	}
	if slices.ContainsFunc(h.whole, func(q *Pair) bool { return q.Module == p.Module && q.suffix == p.suffix }) {
		return true, format.Unsupported("%s: several adapters in one file (%s)", t.Path, t.Name)
	}
	p.onBase = &onBase{whole: true}
	h.whole = append(h.whole, p)
	return true, nil
}

// takeBase makes the change of a whole weight: rows are in GGUF's order.
func (p *Pair) takeBase(m *arch.Model) error {
	v := m.View(p.Target)
	shift, err := shiftOf(m, p.Target)
	if err != nil {
		return err
	}
	rows, cols := p.full.Rows, p.full.Cols
	d := Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}
	row := make([]float32, cols)
	first := p.Row
	if p.Expert >= 0 {
		first = p.Expert * rows
	}
	for i := range rows {
		if err := v.Rows.ReadRows(row, int64(first+i)); err != nil {
			return err
		}
		to := d.Row(i)
		for j, x := range p.full.Row(i) {
			to[j] = float32(float64(x) + float64(shift) - float64(row[j]))
		}
		if p.Vector { // as the base's module has it, to be written whole again
			p.was = make([]float32, cols)
			for j, x := range row {
				p.was[j] = x - shift
			}
		}
	}
	q := fullPair(p.Module, d, nil, p.Vector)
	p.A, p.B, p.Rank, p.Scale, p.alpha, p.full, p.onBase = q.A, q.B, q.Rank, q.Scale, q.alpha, q.full, nil
	return nil
}

// shiftOf is how much more GGUF's values of a tensor are than those of the checkpoint.
func shiftOf(m *arch.Model, target string) (float32, error) {
	if m.Stored() || m.Table == nil {
		return 0, nil
	}
	views, err := m.HF()
	if err != nil {
		return 0, err
	}
	for _, v := range views {
		if v.GGUF == target {
			return v.Shift, nil
		}
	}
	return 0, nil
}

// rememberVector keeps the base's values of a vector that p changes, by which PEFT's whole module can be written.
func (p *Pair) rememberVector(m *arch.Model) error {
	if !p.Vector || p.was != nil || p.suffix != "" {
		return nil
	}
	shift, err := shiftOf(m, p.Target)
	if err != nil {
		return err
	}
	p.was = make([]float32, p.A.Cols)
	if err := m.View(p.Target).Rows.ReadRows(p.was, 0); err != nil {
		return err
	}
	for i := range p.was {
		p.was[i] -= shift
	}
	return nil
}

// wholeVectors takes the vectors out of pairs that PEFT can have as whole modules: norms, beside pairs of matrices, where the
// base is known.
func wholeVectors(pairs []*Pair) (rest, vectors []*Pair) {
	for _, p := range pairs {
		if p.Vector && p.was != nil && p.suffix == "" {
			vectors = append(vectors, p)
		} else {
			rest = append(rest, p)
		}
	}
	if len(rest) == 0 {
		return pairs, nil
	}
	return rest, vectors
}

// planWhole adds vectors as PEFT's modules_to_save, in float32, and names them in the configuration.
func planWhole(plan *format.Plan, c map[string]any, vectors []*Pair) error {
	var names []string
	for _, p := range vectors {
		whole := Matrix{Rows: 1, Cols: len(p.was), Data: make([]float32, len(p.was))}
		for i, x := range p.was {
			whole.Data[i] = x + float32(p.Scale*float32(p.B.Data[0]*p.A.Data[i]))
		}
		if err := output(plan, peftPrefix+p.Module+".weight", format.F32, []int64{int64(len(p.was))}, whole); err != nil {
			return err
		}
		names = append(names, p.Module)
	}
	if names != nil {
		c["modules_to_save"] = names
	}
	return nil
}

// Complete says whether a's changes are known: those of GLoRA and of PEFT's modules_to_save are when it was resolved against a base.
func (a *Adapter) Complete() error {
	for _, p := range a.Pairs {
		if err := p.complete(); err != nil {
			return fmt.Errorf("%s: %w", a.Path, err)
		}
	}
	return nil
}

func (p *Pair) complete() error {
	switch {
	case p.onBase == nil:
		return nil
	case p.onBase.whole:
		return format.Usagef("%s was saved as a whole (modules_to_save): what it changes depends on the weights that were there, give the model with --base", name(p))
	}
	return format.Usagef("%s: GLoRA depends on the weights that it changes: give the model with --base", name(p))
}
