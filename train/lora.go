package train

import (
	"fmt"
	"math"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/optim"
)

// lora is the adapter under training: what the model computes with, the float32
// masters behind it, and the gradients.
type lora struct {
	names   []string // of the matrices, in the model's order
	left    []string // matrices that were meant but cannot be trained to be merged
	adapter *model.Adapter
	grads   model.Grads
	params  []optim.Param // A, B of each matrix; Value is the master
	half    bool          // the adapter is the masters rounded to float16; else it is the masters
	groups  []int         // of each matrix, over which A is constant; nil for an ordinary adapter
}

// newLoRA begins a new adapter: A uniform in ±1/√in (kaiming_uniform with a = √5, as
// PEFT has it), B zero.
func newLoRA(m *model.Model, c *AdapterConfig, seed uint64) (*lora, error) {
	chosen, err := chooseTargets(m.Matrices(), c.Targets, c.Exclude)
	var left []string
	if err == nil && c.MergeAware {
		chosen, left, err = mergeTargets(m, chosen, c)
	}
	if err != nil {
		return nil, err
	}
	ad := model.NewAdapter()
	for _, name := range chosen {
		out, in, _ := m.MatrixDims(name)
		p := &model.Pair{A: kernel.NewMat(c.Rank, in), B: kernel.NewMat(out, c.Rank), Scale: float32(c.scale())}
		s := rng.New(seed, "init", name)
		bound := float32(1 / math.Sqrt(float64(in)))
		for i := range p.A.Data {
			p.A.Data[i] = float32(2*s.Uniform(uint64(i))-1) * bound
		}
		ad.Pairs[name] = p
	}
	l, err := wrapLoRA(m, ad, c, seed)
	if err != nil {
		return nil, err
	}
	l.left = left
	return l, nil
}

// wrapLoRA prepares an adapter, whose memory it takes over as masters, for training.
func wrapLoRA(m *model.Model, ad *model.Adapter, c *AdapterConfig, seed uint64) (*lora, error) {
	l := &lora{adapter: model.NewAdapter(), half: !c.Float32}
	for _, name := range m.Matrices() {
		if ad.Pairs[name] != nil {
			l.names = append(l.names, name)
		}
	}
	if len(l.names) != len(ad.Pairs) {
		for name := range ad.Pairs {
			if _, _, ok := m.MatrixDims(name); !ok {
				return nil, fmt.Errorf("train: the adapter changes %s, which the base does not have", name)
			}
		}
		return nil, fmt.Errorf("train: the adapter changes matrices that cannot be trained")
	}
	for _, name := range l.names {
		p := ad.Pairs[name]
		if l.half {
			p = &model.Pair{A: kernel.NewMat(p.A.Rows, p.A.Cols), B: kernel.NewMat(p.B.Rows, p.B.Cols), Scale: p.Scale}
		}
		l.adapter.Pairs[name] = p
	}
	l.grads = model.NewGrads(l.adapter)
	for _, name := range l.names {
		p, g := ad.Pairs[name], l.grads[name]
		l.params = append(l.params,
			optim.Param{Name: name + ".lora_a", Rows: p.A.Rows, Cols: p.A.Cols, Value: p.A.Data, Grad: g.A.Data, Rate: 1},
			optim.Param{Name: name + ".lora_b", Rows: p.B.Rows, Cols: p.B.Cols, Value: p.B.Data, Grad: g.B.Data, Rate: 1})
	}
	if c.MergeAware {
		if err := l.mergeAware(m, seed); err != nil {
			return nil, err
		}
	}
	l.sync()
	return l, nil
}

// setRatio sets the rates of LoRA+ (arXiv 2402.12354): that of B is ratio times that of A.
func (l *lora) setRatio(ratio float64) {
	for i := range l.params {
		if i%2 == 1 {
			l.params[i].Rate = ratio
		}
	}
}

// sync makes the adapter the masters, rounded to the nearest float16 where that is
// what it is held in.
func (l *lora) sync() {
	l.adapter.Changed()
	if !l.half {
		return
	}
	for i, name := range l.names {
		p := l.adapter.Pairs[name]
		roundHalf(p.A.Data, l.params[2*i].Value)
		roundHalf(p.B.Data, l.params[2*i+1].Value)
	}
}

// roundHalf rounds src to float16 numbers.
func roundHalf(dst, src []float32) {
	var b [8192]byte
	for len(src) > 0 {
		n := min(len(src), len(b)/2)
		kernel.F32ToF16(b[:2*n], src[:n])
		kernel.F16ToF32(dst[:n], b[:2*n])
		dst, src = dst[n:], src[n:]
	}
}

// count is the number of trained numbers.
func (l *lora) count() (n int64) {
	for i := range l.params {
		n += int64(len(l.params[i].Value))
	}
	return n
}
