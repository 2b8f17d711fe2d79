package model

import (
	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// Compute is the arithmetic in use.
func (m *Model) Compute() kernel.Compute { return m.opt.Compute }

// SetCompute changes [Options].Compute. It must not be called during a pass. In
// [kernel.BF16] all that is promised of bytes holds, but for a session's logits in layers
// with a window: attention meets the keys there in other pairs.
func (m *Model) SetCompute(c kernel.Compute) error {
	if err := computes(c); err != nil {
		return err
	}
	m.opt.Compute = c
	return nil
}

// computes is an error where c is not to be had.
func computes(c kernel.Compute) error {
	if c.Available() {
		return nil
	}
	return format.Unsupported("products in %v: %s", c, c.Lacks())
}
