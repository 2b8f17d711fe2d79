package diffusion

import "strings"

// Part is a pair of an adapter: B, out x rank, and A, rank x in (x height x width).
type Part struct {
	Module      string
	Out, In     int64
	Kernel      []int64
	Tensor      string // that it changes
	FirstRow    int64
	SwappedRows bool // its rows are the tensor's second half and its first
}

// Adapter are the modules of all matrices and convolutions, by diffusers' names or by
// those of the checkpoint.
func Adapter(tensors []Tensor, diffusers bool) []Part {
	var out []Part
	for _, t := range tensors {
		if len(t.Modules) == 0 {
			continue
		}
		p := Part{Tensor: t.Name, Out: t.Shape[0], In: t.Shape[1], Kernel: t.Shape[2:]}
		if !diffusers {
			p.Module = strings.TrimPrefix(strings.TrimSuffix(t.Name, ".weight"), "model.diffusion_model.")
			out = append(out, p)
			continue
		}
		rows := t.Shape[0] / int64(max(len(t.Modules), 1))
		if len(t.Modules) == 4 { // three of the width, and the rest
			rows = t.Shape[1]
		}
		p.SwappedRows = t.Modules[0] == "norm_out.linear"
		for i, m := range t.Modules {
			q := p
			q.Module, q.FirstRow, q.Out = m, int64(i)*rows, rows
			if i == 3 {
				q.Out = t.Shape[0] - q.FirstRow
			}
			out = append(out, q)
		}
	}
	return out
}

// Kohya is the name of a module in kohya's files.
func Kohya(module string) string { return "lora_unet_" + strings.ReplaceAll(module, ".", "_") }

// Parameters counts the numbers in tensors.
func Parameters(tensors []Tensor) (n int64) {
	for _, t := range tensors {
		m := int64(1)
		for _, d := range t.Shape {
			m *= d
		}
		n += m
	}
	return n
}
