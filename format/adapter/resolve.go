package adapter

import (
	"fmt"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

// Resolve brings the adapter to the terms of a base model: every pair gets its
// Target, its Module, and rows in GGUF's order. A pair for which the model has no
// matrix, or one of another shape, is an error that names it. Resolving twice
// against the same model changes nothing.
func (a *Adapter) Resolve(m *arch.Model) error {
	if a.Arch != "" && a.Arch != m.Arch && !m.Stored() {
		return &format.UsageError{Reason: fmt.Sprintf("the adapter %s is for the architecture %s, the base %s is %s", a.Path, a.Arch, m.Path, m.Arch)}
	}
	a.toHF, a.experts = map[string]func(int64) int64{}, map[string]int{}
	a.modules, _ = m.Matrices()
	a.tied = !m.Stored() && m.View(arch.HeadName) == nil
	flat := flatNames(m, a)
	type key struct {
		target      string
		expert, row int
	}
	seen := map[key]string{}
	for _, p := range a.Pairs {
		if err := a.resolve(p, m, flat); err != nil {
			return fmt.Errorf("adapter %s does not fit %s: %w", a.Path, m.Path, err)
		}
		k := key{p.Target, p.Expert, p.Row}
		if other, ok := seen[k]; ok {
			return fmt.Errorf("adapter %s: %s and %s both change %s", a.Path, other, p.Module, p.Target)
		}
		seen[k] = p.Module
		if err := a.saved.compare(p, m); err != nil {
			return fmt.Errorf("adapter %s does not fit %s: %w", a.Path, m.Path, err)
		}
	}
	if err := a.resolveTokens(m); err != nil {
		return fmt.Errorf("adapter %s does not fit %s: %w", a.Path, m.Path, err)
	}
	a.native, a.resolved, a.Arch = true, true, m.Arch
	return nil
}

// flatNames maps names with underscores for dots, which some formats have, to
// module names. nil if the adapter has none.
func flatNames(m *arch.Model, a *Adapter) map[string]string {
	if a.Format != "kohya" && a.Format != "diffusers" {
		return nil
	}
	flat := map[string]string{}
	for _, v := range m.Views {
		if name, ok := m.HFModule(v.Name, 0); ok {
			flat[strings.ReplaceAll(name, ".", "_")] = name
		}
	}
	return flat
}

// place finds the tensor that p changes.
func (p *Pair) place(m *arch.Model, flat map[string]string) error {
	if m.Stored() {
		s, ok := m.StoredModule(p.Module, p.suffix)
		if !ok {
			return format.Usagef("the model has no module %s%s", p.Module, p.suffix)
		}
		p.Target, p.Expert, p.Row, p.swapped = s.Tensor, -1, 0, s.Swapped
		if p.part = s.Row != nil; p.part {
			p.Row = s.Row(p.B.Rows, p.A.Cols)
			if p.Vector {
				return format.Unsupported("%s%s is a part of the vector %s", p.Module, p.suffix, p.Target)
			}
		}
		return nil
	}
	for _, n := range []string{p.Module, strings.ReplaceAll(plainName(p.Module), ".", "_")} {
		if name, ok := flat[n]; ok {
			p.Module = name
			break
		}
	}
	tensor, expert, ok := m.Module(p.Module)
	if older := olderExpert(p.Module); !ok && older != p.Module {
		if tensor, expert, ok = m.Module(older); ok {
			p.Module = older
		}
	}
	if !ok {
		return format.Usagef("%s has no module %s", m.Arch, p.Module)
	}
	if p.suffix != "" {
		tensor = strings.TrimSuffix(tensor, ".weight") + p.suffix
	}
	p.Target, p.Expert = tensor, expert
	return nil
}

// fits says whether p has the shape of the tensor that it changes.
func (p *Pair) fits(shape []int64) bool {
	if p.Vector {
		return len(shape) == 1 && shape[0] == int64(p.A.Cols)
	}
	cols := int64(1)
	if len(shape) < 2 {
		return false
	}
	for _, n := range shape[1:] {
		cols *= n
	}
	rows := int64(p.B.Rows)
	return cols == int64(p.A.Cols) && (!p.part && shape[0] == rows || p.part && int64(p.Row)+rows <= shape[0])
}

// addBase completes a pair that depends on the base, GLoRA's: its rows are in GGUF's order.
func (p *Pair) addBase(m *arch.Model) error {
	if p.onBase == nil {
		return p.rememberVector(m)
	}
	if s := strings.TrimSuffix(p.Target, ".weight") + ".scale"; !m.Stored() && m.View(s) != nil {
		return format.Unsupported("what %s changes depends on tensor %s, whose factor stands in %s", name(p), p.Target, s)
	}
	if p.onBase.whole {
		return p.takeBase(m)
	}
	in, out := p.onBase.in, p.onBase.out
	v := m.View(p.Target)
	if _, cols := v.Rows.Dims(); cols != int64(p.A.Cols) {
		return format.Unsupported("GLoRA of tensor %s, whose rows in the file are not those of its matrix", p.Target)
	}
	b := Matrix{Rows: p.B.Rows, Cols: in.Cols + p.B.Cols, Data: make([]float32, p.B.Rows*(in.Cols+p.B.Cols))}
	row := make([]float32, p.A.Cols)
	acc := make([]float64, in.Cols)
	for i := range p.B.Rows {
		if err := v.Rows.ReadRows(row, int64(p.Row+i)); err != nil {
			return err
		}
		clear(acc)
		for j, w := range row {
			for k, x := range in.Row(j) {
				acc[k] += float64(w) * float64(x) // exact: two float32
			}
		}
		for k, x := range acc {
			b.Row(i)[k] = float32(x)
		}
		copy(b.Row(i)[in.Cols:], p.B.Row(i))
	}
	a := Matrix{Rows: b.Cols, Cols: p.A.Cols, Data: append(append([]float32{}, out.Data...), p.A.Data...)}
	p.SetFactors(a, b, p.Scale)
	p.onBase = nil
	return nil
}

func (a *Adapter) resolve(p *Pair, m *arch.Model, flat map[string]string) error {
	if a.native {
		weight := p.Target
		if bias, ok := strings.CutSuffix(weight, ".bias"); ok {
			weight, p.suffix = bias+".weight", ".bias"
		}
		if module, ok := m.HFModule(weight, p.Expert); ok {
			p.Module = module
		}
	} else if err := p.place(m, flat); err != nil {
		return err
	}
	v := m.View(p.Target)
	if v == nil {
		hint := ""
		if p.Target == "output.weight" {
			hint = " (its head is tied to the embedding)"
		}
		return format.Usagef("the base has no tensor %s%s, which %s changes", p.Target, hint, name(p))
	}
	shape := v.Shape
	if p.Expert >= 0 {
		if len(shape) != 3 || int64(p.Expert) >= shape[0] {
			return format.Usagef("%s is expert %d of %s, which has shape %v", name(p), p.Expert, p.Target, shape)
		}
		a.experts[p.Target] = int(shape[0])
		shape = shape[1:]
	}
	if !p.fits(shape) {
		return format.Usagef("%s changes a matrix of %d x %d, the base's %s is %v", name(p), p.B.Rows, p.A.Cols, p.Target, shape)
	}
	p.embedding = p.embedding || p.Target == arch.EmbeddingName
	if p.swapped && !a.native {
		p.reorder(p.halves())
	}
	toGGUF, toHF := m.RowOrder(p.Target)
	if toGGUF == nil {
		return p.addBase(m)
	}
	a.toHF[p.Target] = toHF
	if !a.native {
		p.reorder(toGGUF)
	}
	return p.addBase(m)
}

// halves is the order of rows, or of a vector's elements, in which the second half comes
// first. It is its own inverse.
func (p *Pair) halves() func(int64) int64 {
	n := int64(p.B.Rows)
	if p.Vector {
		n = int64(p.A.Cols)
	}
	return func(i int64) int64 { return (i + n/2) % n }
}

// reorder moves the rows of the changed matrix, or the elements of the changed vector.
func (p *Pair) reorder(at func(int64) int64) {
	if p.Vector {
		x := p.A.transposed().ordered(at)
		p.A = x.transposed()
		p.full = p.A
		return
	}
	p.B = p.B.ordered(at)
	if p.full.Data != nil {
		p.full = p.full.ordered(at)
		if p.full.Rows > p.full.Cols {
			p.B = p.full
		}
	}
	if p.Magnitude != nil && !p.Columns {
		p.Magnitude = Matrix{Rows: len(p.Magnitude), Cols: 1, Data: p.Magnitude}.ordered(at).Data
	}
}

func name(p *Pair) string {
	if p.Module != "" {
		return p.Module
	}
	return p.Target
}

// asNamed is p with rows as they are under its module's name, which the base's may not be.
func (p *Pair) asNamed() *Pair {
	if !p.swapped {
		return p
	}
	q := p.Clone()
	q.reorder(p.halves())
	return q
}

// hf returns B and Magnitude of p with rows in Hugging Face's order. The adapter is
// resolved.
func (a *Adapter) hf(p *Pair) (b Matrix, magnitude []float32) {
	b, magnitude = p.B, p.Magnitude
	if at := a.toHF[p.Target]; at != nil && !p.Vector {
		b = b.ordered(at)
		if magnitude != nil && !p.Columns {
			magnitude = Matrix{Rows: len(magnitude), Cols: 1, Data: magnitude}.ordered(at).Data
		}
	}
	return b, magnitude
}

// Experts is how many matrices the stack called target has in the base that the adapter
// was resolved against; 0 if it changes no such stack.
func (a *Adapter) Experts(target string) int { return a.experts[target] }
