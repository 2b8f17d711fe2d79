package adapter

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
)

// WriteGGUF writes a as a GGUF adapter, atomically. a must be resolved, unless it
// came from GGUF. The file has one alpha; B is multiplied where a pair's scale is
// another, so that alpha / rank is right for all. Experts of a layer become a
// stack; those that the adapter does not change are zero in it. What [Adapter.CheckGGUF]
// says is refused.
func WriteGGUF(path string, a *Adapter, opt WriteOptions) error {
	if !a.resolved && !a.native {
		return errUnresolved
	}
	if err := a.CheckGGUF(); err != nil {
		return err
	}
	plan, meta, err := a.ggufPlan(opt)
	if err != nil {
		return err
	}
	w, err := gguf.Create(path, meta, plan, gguf.WriteOptions{Force: opt.Force})
	if err != nil {
		return err
	}
	return carry(plan, w)
}

// CheckGGUF says why a has no GGUF form, or nil: a [format.UnsupportedError] for DoRA, for
// parts of tensors, for rows of tokens, and for what llama.cpp ends its process on: an adapter of the
// embedding of a model whose head is tied to it, which is known of a resolved adapter.
func (a *Adapter) CheckGGUF() error {
	if err := a.noTokens("a GGUF adapter"); err != nil {
		return err
	}
	for _, p := range a.Pairs {
		if p.Magnitude != nil {
			return format.Unsupported("DoRA (%s) in a GGUF adapter: merge it into its base instead", name(p))
		}
		if err := onlyLoRA(p, "a GGUF adapter"); err != nil {
			return err
		}
		if p.part {
			return format.Unsupported("a GGUF adapter cannot hold a part of the tensor %s (%s): merge it into its base instead", p.Target, name(p))
		}
		if a.tied && p.Target == arch.EmbeddingName {
			return format.Unsupported("a GGUF adapter of %s where the head is tied to it: llama.cpp cannot run it; merge it into its base instead", name(p))
		}
	}
	return nil
}

// group is what becomes one pair of tensors: a matrix's pair, or those of experts.
type group struct {
	target string
	pairs  []*Pair
	rank   int // the largest
	count  int // of the stack, 0 for a matrix
}

func (a *Adapter) groups() ([]*group, error) {
	pairs := slices.Clone(a.Pairs)
	slices.SortStableFunc(pairs, func(x, y *Pair) int { return strings.Compare(x.Module, y.Module) })
	index := map[string]*group{}
	var list []*group
	for _, p := range pairs {
		g := index[p.Target]
		if g == nil {
			g = &group{target: p.Target}
			if p.Expert >= 0 {
				if !a.resolved {
					return nil, errUnresolved // how many experts a stack has is the base's to say
				}
				g.count = a.experts[p.Target]
			}
			index[p.Target] = g
			list = append(list, g)
		}
		g.pairs = append(g.pairs, p)
		g.rank = max(g.rank, p.Rank)
	}
	return list, nil
}

func (a *Adapter) ggufPlan(opt WriteOptions) (*format.Plan, *gguf.Meta, error) {
	groups, err := a.groups()
	if err != nil {
		return nil, nil, err
	}
	if len(groups) == 0 {
		return nil, nil, errEmpty
	}
	var alphas []float32
	var size int64
	for _, g := range groups {
		for _, p := range g.pairs {
			if p.Rank == g.rank {
				alphas = append(alphas, float32(p.Alpha()))
			} else {
				alphas = append(alphas, float32(float64(p.Scale)*float64(g.rank)))
			}
			size += int64(p.B.Rows) * int64(p.A.Cols)
		}
	}
	alpha := common(alphas)
	if alpha == 0 { // would mean a factor of 1
		alpha = float32(groups[0].rank)
	}
	plan := &format.Plan{}
	for _, g := range groups {
		if err := g.plan(plan, alpha, opt.Type); err != nil {
			return nil, nil, err
		}
	}
	meta := &gguf.Meta{}
	meta.Set("general.architecture", a.Arch)
	meta.Set("general.type", "adapter")
	meta.Set("adapter.type", "lora")
	if opt.Name != "" {
		meta.Set("general.name", opt.Name)
	} else {
		arch.NameKeys(meta, a.Name, -size)
	}
	meta.Set("adapter.lora.alpha", alpha)
	if len(a.Invocation) > 0 {
		meta.Set("adapter.alora.invocation_tokens", a.Invocation)
	}
	meta.Set("general.quantization_version", uint32(2))
	extra := opt.extra(a)
	var keys []string
	for k := range extra {
		if strings.HasPrefix(k, "graft.") {
			keys = append(keys, k)
		} else if _, asked := opt.Extra[k]; asked {
			return nil, nil, fmt.Errorf("adapter: extra metadata %s: such a key begins with \"graft.\"", k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		meta.Set(k, extra[k])
	}
	return plan, meta, nil
}

// plan adds the two tensors of a group, B multiplied by what alpha / rank lacks.
func (g *group) plan(plan *format.Plan, alpha float32, typ format.Type) error {
	first := g.pairs[0]
	out, in := first.B.Rows, first.A.Cols
	n := max(g.count, 1)
	a := Matrix{Rows: n * g.rank, Cols: in, Data: make([]float32, n*g.rank*in)}
	b := Matrix{Rows: n * out, Cols: g.rank, Data: make([]float32, n*out*g.rank)}
	for _, p := range g.pairs {
		e := max(p.Expert, 0)
		copy(a.Data[e*g.rank*in:], p.A.Data)
		factor := float32(float64(p.Scale) * float64(g.rank) / float64(alpha))
		if math.Abs(float64(factor)-1) < 1e-6 { // the rounding of alpha to float32, no more
			factor = 1
		}
		for i := range out {
			dst := b.Row(e*out + i)
			for j, x := range p.B.Row(i) {
				dst[j] = x * factor
			}
		}
	}
	shapeA, shapeB := dims(a), dims(b)
	if g.count > 0 {
		shapeA, shapeB = []int64{int64(n), int64(g.rank), int64(in)}, []int64{int64(n), int64(out), int64(g.rank)}
	}
	if g.target == arch.EmbeddingName { // flipped, see finish
		a, b = b, a.transposed()
		shapeA, shapeB = dims(a), dims(b)
	}
	if err := output(plan, g.target+".lora_a", typ, shapeA, a); err != nil {
		return err
	}
	return output(plan, g.target+".lora_b", typ, shapeB, b)
}
