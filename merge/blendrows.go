package merge

import (
	"fmt"
	"sync"
)

// blendedRows is a tensor of the result. Of a stack of experts each is blended for itself.
type blendedRows struct {
	rows, cols, each int64
	open             func(*blendJob) (blendBlock, error)
	segs             []segment
}

type segment struct {
	job  *blendJob
	once sync.Once
	make blendBlock
	err  error
}

func (b *blendedRows) Dims() (rows, cols int64) { return b.rows, b.cols }

func (b *blendedRows) ReadRows(dst []float32, row int64) error {
	if b.cols == 0 {
		return nil
	}
	n := int64(len(dst)) / b.cols
	if row < 0 || row+n > b.rows {
		return fmt.Errorf("rows %d to %d of %d", row, row+n, b.rows)
	}
	for n > 0 {
		s, first := &b.segs[row/b.each], row%b.each
		k := min(n, b.each-first)
		if err := s.read(dst[:k*b.cols], first, b.open); err != nil {
			return err
		}
		dst, row, n = dst[k*b.cols:], row+k, n-k
	}
	return nil
}

func (s *segment) read(dst []float32, row int64, open func(*blendJob) (blendBlock, error)) error {
	j := s.job
	s.once.Do(func() { s.make, s.err = open(j) })
	if s.err != nil {
		return s.err
	}
	x, base := j.buffers(int64(len(dst)) / j.cols)
	if err := j.readBlock(x, base, row); err != nil {
		return err
	}
	s.make(dst, row, x, base)
	in := j.base
	if in == nil {
		in = &j.models[0]
	}
	if in.shift != 0 {
		for i := range dst {
			dst[i] += in.shift
		}
	}
	return nil
}

// Release gives back the mapped pages of all models' tensors.
func (b *blendedRows) Release() {
	release := func(in *blendInput) {
		if r, ok := in.rows.(interface{ Release() }); ok {
			r.Release()
		}
	}
	for i := range b.segs {
		j := b.segs[i].job
		for k := range j.models {
			release(&j.models[k])
		}
		if j.base != nil {
			release(j.base)
		}
	}
}
