package train

import (
	"maps"
	"math"
	"slices"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/train/model"
)

// initPiSSA begins with the leading singular vectors of the matrices themselves (Meng
// et al., PiSSA, 2024): with W ≈ U·Σ·Vᵀ of the pair's rank,
//
//	A₀ = √(Σ/s)·Vᵀ    B₀ = U·√(Σ/s)    so that s·B₀·A₀ = U·Σ·Vᵀ.
//
// The base stays as it is: what training starts from is taken off again ([lora.offset]).
func initPiSSA(m *model.Model, ad *model.Adapter, seed uint64) error {
	for _, name := range slices.Sorted(maps.Keys(ad.Pairs)) {
		p := ad.Pairs[name]
		out, in, n := dimsOf(m, name)
		r := p.Rank()
		for e := range n {
			s := rng.New(seed, "pissa", name).At(uint64(e))
			f := principal(out, in, r, s, func(x kernel.Mat) kernel.Mat { return m.Product(name, e, x, false) },
				func(y kernel.Mat) kernel.Mat { return m.Product(name, e, y, true) })
			for c, sigma := range f.sigma {
				root := float32(math.Sqrt(sigma / float64(p.Scale)))
				kernel.Scale(p.A.Row(e*r+c), root, f.v.Row(c))
				for o := range out {
					p.B.Row(e*out + o)[c] = root * f.u.Row(c)[o]
				}
			}
		}
	}
	return m.TakeError()
}

// offset takes the adapter as it is now off from what it will do, so that it begins by
// changing nothing.
func (l *lora) offset() {
	l.adapter.Fixed = map[string]*model.Pair{}
	for name, p := range l.adapter.Pairs {
		l.adapter.Fixed[name] = &model.Pair{Scale: -p.Scale,
			A: kernel.Mat{Data: slices.Clone(p.A.Data), Rows: p.A.Rows, Cols: p.A.Cols, Stride: p.A.Stride},
			B: kernel.Mat{Data: slices.Clone(p.B.Data), Rows: p.B.Rows, Cols: p.B.Cols, Stride: p.B.Stride}}
	}
}
