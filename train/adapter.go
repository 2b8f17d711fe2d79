package train

import (
	"fmt"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/model"
)

// LoadAdapter reads an adapter of any format that fits the base.
func (b *Base) LoadAdapter(path string) (*model.Adapter, error) {
	a, err := adapter.Open(path)
	if err != nil {
		return nil, err
	}
	if err := a.Resolve(b.Source); err != nil {
		return nil, err
	}
	return ModelAdapter(a)
}

// ModelAdapter gives a resolved adapter in the model's terms. The matrices stay those of a.
func ModelAdapter(a *adapter.Adapter) (*model.Adapter, error) {
	m := model.NewAdapter()
	switch aware, ok, err := a.MergeAware(); {
	case err != nil:
		return nil, err
	case ok:
		m.TrainedFor = &model.Merge{Seed: aware.Seed}
	}
	for _, p := range a.Pairs {
		switch {
		case p.Magnitude != nil:
			return nil, format.Unsupported("running or training the DoRA adapter %s: merge it into its base", a.Path)
		case p.Expert >= 0:
			return nil, format.Unsupported("running or training an adapter of single experts (%s of %s): merge it into its base", p.Target, a.Path)
		case m.Pairs[p.Target] != nil:
			return nil, fmt.Errorf("%s changes %s twice", a.Path, p.Target)
		}
		m.Pairs[p.Target] = &model.Pair{A: matOf(p.A), B: matOf(p.B), Scale: p.Scale}
	}
	return m, nil
}

func matOf(m adapter.Matrix) kernel.Mat {
	return kernel.Mat{Data: m.Data, Rows: m.Rows, Cols: m.Cols, Stride: m.Cols}
}

// file is the adapter under training as one that can be written. Its matrices are
// those that the model computes with.
func (l *lora) file(name string, b *Base) (*adapter.Adapter, error) {
	var pairs []*adapter.Pair
	for _, n := range l.names {
		p := l.adapter.Pairs[n]
		pairs = append(pairs, &adapter.Pair{Target: n, Expert: -1, Rank: p.Rank(), Scale: p.Scale,
			A: adapter.Matrix{Rows: p.A.Rows, Cols: p.A.Cols, Data: p.A.Data},
			B: adapter.Matrix{Rows: p.B.Rows, Cols: p.B.Cols, Data: p.B.Data}})
	}
	a := adapter.New(name, b.Source.Arch, pairs)
	a.Base = b.name()
	return a, a.Resolve(b.Source)
}

// name is what the base calls itself.
func (b *Base) name() string {
	if n, ok := b.Source.Meta.Str("general.name"); ok && n != "" {
		return n
	}
	return b.Path
}
