package model

import (
	"fmt"

	"github.com/graft-lora/graft/internal/kernel"
)

// Product multiplies rows with a matrix W (out x in) that [Model.Matrices] lists, or with
// one of a stack that [Model.Stacks] lists: x·Wᵀ of x[T, in], or with back x·W of
// x[T, out]. An error in reading W is kept for [Model.TakeError]. It panics for another
// name. It must not run during a pass.
func (m *Model) Product(name string, expert int, x kernel.Mat, back bool) kernel.Mat {
	list := m.matrices(name)
	if expert >= len(list) {
		panic(fmt.Sprintf("model: there is no matrix %s, %d", name, expert))
	}
	l := list[expert]
	if back {
		y := kernel.NewMat(x.Rows, l.in)
		kernel.MulNN(m.pool, y, x, l.w, false)
		return y
	}
	y := kernel.NewMat(x.Rows, l.out)
	kernel.MulNT(m.pool, y, x, l.w, false)
	return y
}

// TakeError gives the first error of weights that could not be read, and forgets it.
func (m *Model) TakeError() error { return m.fail.take() }
