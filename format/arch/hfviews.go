package arch

import (
	"fmt"

	"github.com/graft-lora/graft/format"
)

// HFView is a tensor as a Hugging Face folder holds it.
type HFView struct {
	format.View
	// Shift is how much more GGUF's values are: 1 for the norms of Gemma.
	Shift float32
	// GGUF is the name of the tensor it is made from.
	GGUF string
}

// HF gives the tensors of the model under their Hugging Face names and in that
// layout: heads in halves, norms without their one, experts apart. Tensors that
// the configuration replaces (rope factors) are left out. A tensor that the
// architecture's table does not know is an error that names it.
func (m *Model) HF() ([]*HFView, error) {
	t := m.Table
	if t == nil {
		return nil, format.Unsupported("%s: architecture %q has no table of Hugging Face names", m.Path, m.Arch)
	}
	var out []*HFView
	for _, v := range m.Views {
		switch v.Name {
		case "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight":
			continue
		}
		views, err := m.hfViews(t, v)
		if err != nil {
			return nil, fmt.Errorf("%s: tensor %s: %w", m.Path, v.Name, err)
		}
		out = append(out, views...)
	}
	return out, nil
}

func (m *Model) hfViews(t *Table, v *format.View) ([]*HFView, error) {
	module, suffix := cutSuffix(v.Name)
	pat, layer, _ := pattern(module)
	for _, r := range t.rules {
		if r.gguf != pat || r.once || r.op == dropped {
			continue
		}
		h := &HFView{View: *v, GGUF: v.Name}
		h.Name = fill(r.hf, layer, -1) + suffix
		h.Why = ""
		switch r.op {
		case queryRows, keyRows:
			if t.Rope != Norm {
				break
			}
			if err := permute(&h.View, m.headCount(r.op), fromRope); err != nil {
				return nil, err
			}
			h.Why = "rows of each head in halves"
		case plusOne:
			h.Rows, h.Shift, h.Why = &plus{v.Rows, -1}, 1, "one subtracted"
		case experts:
			return unstack(r, v, layer, suffix)
		}
		return []*HFView{h}, nil
	}
	return nil, format.Unsupported("the table of %s knows no such tensor", t.modelType)
}

// headCount is the number of heads whose rows an op reorders; 1 if the metadata
// does not tell, which then fails to divide or not, but never panics.
func (m *Model) headCount(o op) int64 {
	n, _ := m.Meta.Int(m.Arch + ".attention.head_count")
	if kv, ok := m.Meta.Int(m.Arch + ".attention.head_count_kv"); ok && o == keyRows {
		n = kv
	}
	return max(n, 1)
}

func unstack(r rule, v *format.View, layer int, suffix string) ([]*HFView, error) {
	if len(v.Shape) != 3 {
		return nil, fmt.Errorf("shape %v is no stack of matrices", v.Shape)
	}
	var out []*HFView
	rows := v.Shape[1]
	for e := range v.Shape[0] {
		h := &HFView{View: *v, GGUF: v.Name}
		h.Name = fill(r.hf, layer, int(e)) + suffix
		h.Shape = v.Shape[1:]
		h.Rows = mapRows(v.Rows, rows, func(i int64) int64 { return e*rows + i })
		h.Why = fmt.Sprintf("expert %d of %d", e, v.Shape[0])
		out = append(out, h)
	}
	return out, nil
}
