package train

import (
	"fmt"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/tokenizer"
	"github.com/graft-lora/graft/train/model"
)

// LoadAdapter reads an adapter of any format that fits the base. One that brings tokens
// which the base lacks makes it the base with those: load it before texts are tokenized.
func (b *Base) LoadAdapter(path string) (*model.Adapter, error) {
	a, err := adapter.Open(path)
	if err != nil {
		return nil, err
	}
	return b.UseAdapter(a)
}

// UseAdapter is [Base.LoadAdapter] for an adapter that is open.
func (b *Base) UseAdapter(a *adapter.Adapter) (*model.Adapter, error) {
	if err := a.Resolve(b.Source); err != nil {
		return nil, err
	}
	if a.Tokens != nil {
		if err := b.addTokens(a.Tokens.Added, a.Tokens.Init); err != nil {
			return nil, err
		}
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
	experts := map[string][]*adapter.Pair{}
	for _, p := range a.Pairs {
		if p.Changes() != "matrix" || p.Magnitude != nil && (p.Columns != (p.Target == arch.EmbeddingName) || p.NormEpsilon != 0) {
			return nil, format.Unsupported("running or training an adapter that changes a %s (%s of %s), or has DoRA as PEFT has not: merge it into its base", p.Changes(), p.Target, a.Path)
		}
		if p.Expert >= 0 {
			experts[p.Target] = append(experts[p.Target], p)
			continue
		}
		if m.Pairs[p.Target] != nil {
			return nil, fmt.Errorf("%s changes %s twice", a.Path, p.Target)
		}
		m.Pairs[p.Target] = &model.Pair{A: matOf(p.A), B: matOf(p.B), Scale: p.Scale, Magnitude: p.Magnitude}
	}
	for target, pairs := range experts {
		p, err := stackOf(pairs, a.Experts(target))
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", a.Path, target, err)
		}
		m.Pairs[target] = p
	}
	for _, id := range a.Invocation {
		m.Invocation = append(m.Invocation, int32(id))
	}
	if a.Tokens != nil {
		m.Rows = map[string]*model.Rows{}
		for _, r := range a.Tokens.Rows {
			m.Rows[r.Target] = &model.Rows{IDs: r.IDs, Data: matOf(r.Rows)}
		}
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
		pairs = append(pairs, filePairs(n, l.adapter.Pairs[n], l.adapter.Fixed[n])...)
	}
	a := adapter.New(name, b.Source.Arch, pairs)
	for _, id := range l.adapter.Invocation {
		a.Invocation = append(a.Invocation, uint32(id))
	}
	a.Base, a.Tokens = b.name(), l.fileTokens(b)
	return a, a.Resolve(b.original)
}

// name is what the base calls itself.
func (b *Base) name() string {
	if n, ok := b.Source.Meta.Str("general.name"); ok && n != "" {
		return n
	}
	return b.Path
}

// invocation is the tokens of an invocation, as they stand in the middle of a text.
func (b *Base) invocation(text string) ([]int32, error) {
	ids := b.Tokenizer.Encode(text, tokenizer.EncodeOptions{ParseSpecial: true})
	if len(ids) == 0 {
		return nil, fmt.Errorf("train: the invocation %q has no tokens", text)
	}
	return ids, nil
}

// stackOf lays pairs of single experts of a stack of n under each other; an expert
// without one gets zeros. Where ranks differ the smaller are filled up with zeros, and
// where scales differ B takes the difference.
func stackOf(pairs []*adapter.Pair, n int) (*model.Pair, error) {
	first, rank := pairs[0], 0
	for _, p := range pairs {
		if rank = max(rank, p.Rank); p.Expert >= n {
			return nil, fmt.Errorf("expert %d of %d", p.Expert, n)
		}
		if (p.Magnitude == nil) != (first.Magnitude == nil) || p.Magnitude != nil && len(pairs) != n {
			return nil, format.Unsupported("DoRA on some experts of a stack: merge the adapter into its base")
		}
	}
	out, in := first.B.Rows, first.A.Cols
	stack := &model.Pair{A: kernel.NewMat(n*rank, in), B: kernel.NewMat(n*out, rank), Scale: first.Scale}
	if first.Magnitude != nil {
		stack.Magnitude = make([]float32, n*out)
		if stack.Scale == 0 {
			return nil, format.Unsupported("DoRA with a scale of zero")
		}
	}
	if stack.Scale == 0 {
		stack.Scale = 1
	}
	for _, p := range pairs {
		copy(stack.A.Data[p.Expert*rank*in:], p.A.Data)
		for o := range out {
			row := stack.B.Row(p.Expert*out + o)
			for j, x := range p.B.Row(o) {
				if row[j] = x; p.Scale != stack.Scale {
					row[j] = x * (p.Scale / stack.Scale)
				}
			}
		}
		if p.Magnitude != nil {
			copy(stack.Magnitude[p.Expert*out:], p.Magnitude)
		}
	}
	return stack, nil
}

// filePairs gives a trained pair, with what is taken off again beside it, as it is
// written: that of a matrix, or one for each expert of a stack.
//
//	s·B·A - s·B₀·A₀ = s·[B, -B₀]·[A; A₀]
func filePairs(target string, p, fixed *model.Pair) (pairs []*adapter.Pair) {
	r := p.Rank()
	n := p.A.Rows / r
	out, in := p.B.Rows/n, p.A.Cols
	for e := range n {
		f := &adapter.Pair{Target: target, Expert: e, Rank: r, Scale: p.Scale,
			A: adapter.Matrix{Rows: r, Cols: in, Data: p.A.Data[e*r*in : (e+1)*r*in]},
			B: adapter.Matrix{Rows: out, Cols: r, Data: p.B.Data[e*out*r : (e+1)*out*r]}}
		if !stacked(target) {
			f.Expert = -1
		}
		switch {
		case target == arch.EmbeddingName && p.Magnitude != nil:
			f.Magnitude, f.Columns = p.Magnitude, true
		case p.Magnitude != nil:
			f.Magnitude = p.Magnitude[e*out : (e+1)*out]
		}
		if fixed != nil {
			f.Rank = 2 * r
			f.A = adapter.Matrix{Rows: 2 * r, Cols: in, Data: append(slices.Clone(f.A.Data), fixed.A.Data[e*r*in:(e+1)*r*in]...)}
			b := adapter.Matrix{Rows: out, Cols: 2 * r, Data: make([]float32, out*2*r)}
			for o := range out {
				copy(b.Row(o), f.B.Row(o))
				for j, x := range fixed.B.Row(e*out + o) {
					b.Row(o)[r+j] = -x
				}
			}
			f.B = b
		}
		pairs = append(pairs, f)
	}
	return pairs
}
