package arch

import "strings"

// HFModule gives the Hugging Face module whose weight a tensor of the model holds;
// of a stack of experts that of expert e. ok is false if the table has none.
func (m *Model) HFModule(tensor string, e int) (module string, ok bool) {
	if m.Table == nil {
		return "", false
	}
	return m.Table.HFModule(tensor, e)
}

// Module finds the tensor that holds the weight of a Hugging Face module, and its
// place in the stack if it is one of several experts (else -1). ok is false if the
// architecture has no such module; whether the model has the tensor is for View
// to say.
func (m *Model) Module(module string) (tensor string, expert int, ok bool) {
	if m.Table == nil {
		return "", -1, false
	}
	mod, ok := m.Table.Module(module)
	return mod.Tensor, mod.Expert, ok
}

// RowOrder says how the rows of a matrix move between the layouts: row i in GGUF is
// row toGGUF(i) in Hugging Face's, and row i there is row toHF(i) in GGUF. Both are
// nil if rows stay where they are, or the model has no such tensor.
func (m *Model) RowOrder(tensor string) (toGGUF, toHF func(int64) int64) {
	v := m.View(tensor)
	if m.Table == nil || m.Table.Rope != Norm || v == nil || len(v.Shape) == 0 {
		return nil, nil
	}
	module, _ := cutSuffix(tensor)
	pat, _, _ := pattern(module)
	for _, r := range m.Table.rules {
		if r.gguf != pat || r.op != queryRows && r.op != keyRows {
			continue
		}
		rows, heads := v.Shape[0], m.headCount(r.op)
		if rows%heads != 0 || rows/heads%2 != 0 {
			return nil, nil
		}
		return toRope(rows, heads), fromRope(rows, heads)
	}
	return nil, nil
}

// Matrices lists the Hugging Face modules of all matrices of the model that a
// linear layer or an embedding holds, with their tensors, in the model's order;
// stacks of experts are left out.
func (m *Model) Matrices() (modules, tensors []string) {
	for _, v := range m.Views {
		if len(v.Shape) != 2 || !strings.HasSuffix(v.Name, ".weight") {
			continue
		}
		if module, ok := m.HFModule(v.Name, 0); ok {
			modules, tensors = append(modules, module), append(tensors, v.Name)
		}
	}
	return modules, tensors
}
