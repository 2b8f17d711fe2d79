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
	if a.Arch != "" && a.Arch != m.Arch {
		return &format.UsageError{Reason: fmt.Sprintf("the adapter %s is for the architecture %s, the base %s is %s", a.Path, a.Arch, m.Path, m.Arch)}
	}
	a.toHF, a.experts = map[string]func(int64) int64{}, map[string]int{}
	a.modules, _ = m.Matrices()
	flat := flatNames(m, a)
	type key struct {
		target string
		expert int
	}
	seen := map[key]string{}
	for _, p := range a.Pairs {
		if err := a.resolve(p, m, flat); err != nil {
			return fmt.Errorf("adapter %s does not fit %s: %w", a.Path, m.Path, err)
		}
		k := key{p.Target, p.Expert}
		if other, ok := seen[k]; ok {
			return fmt.Errorf("adapter %s: %s and %s both change %s", a.Path, other, p.Module, p.Target)
		}
		seen[k] = p.Module
		if err := a.saved.compare(p, m); err != nil {
			return fmt.Errorf("adapter %s does not fit %s: %w", a.Path, m.Path, err)
		}
	}
	a.native, a.resolved, a.Arch = true, true, m.Arch
	return nil
}

// flatNames maps names with underscores for dots, which some formats have, to
// module names. nil if the adapter has none.
func flatNames(m *arch.Model, a *Adapter) map[string]string {
	if a.Format != "kohya" {
		return nil
	}
	flat := map[string]string{}
	modules, _ := m.Matrices()
	for _, name := range modules {
		flat[strings.ReplaceAll(name, ".", "_")] = name
	}
	return flat
}

func (a *Adapter) resolve(p *Pair, m *arch.Model, flat map[string]string) error {
	if a.native {
		if module, ok := m.HFModule(p.Target, p.Expert); ok {
			p.Module = module
		}
	} else {
		if name, ok := flat[p.Module]; ok {
			p.Module = name
		}
		tensor, expert, ok := m.Module(p.Module)
		if !ok {
			return format.Usagef("%s has no module %s", m.Arch, p.Module)
		}
		p.Target, p.Expert = tensor, expert
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
	if len(shape) != 2 || shape[0] != int64(p.B.Rows) || shape[1] != int64(p.A.Cols) {
		return format.Usagef("%s changes a matrix of %d x %d, the base's %s is %v", name(p), p.B.Rows, p.A.Cols, p.Target, shape)
	}
	p.embedding = p.embedding || p.Target == "token_embd.weight"
	toGGUF, toHF := m.RowOrder(p.Target)
	if toGGUF == nil {
		return nil
	}
	a.toHF[p.Target] = toHF
	if !a.native {
		p.B = p.B.ordered(toGGUF)
		if p.Magnitude != nil {
			p.Magnitude = Matrix{Rows: len(p.Magnitude), Cols: 1, Data: p.Magnitude}.ordered(toGGUF).Data
		}
	}
	return nil
}

func name(p *Pair) string {
	if p.Module != "" {
		return p.Module
	}
	return p.Target
}

// hf returns B and Magnitude of p with rows in Hugging Face's order. The adapter is
// resolved.
func (a *Adapter) hf(p *Pair) (b Matrix, magnitude []float32) {
	b, magnitude = p.B, p.Magnitude
	if at := a.toHF[p.Target]; at != nil {
		b = b.ordered(at)
		if magnitude != nil {
			magnitude = Matrix{Rows: len(magnitude), Cols: 1, Data: magnitude}.ordered(at).Data
		}
	}
	return b, magnitude
}

// Experts is how many matrices the stack called target has in the base that the adapter
// was resolved against; 0 if it changes no such stack.
func (a *Adapter) Experts(target string) int { return a.experts[target] }
