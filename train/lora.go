package train

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/optim"
)

// lora is the adapter under training: what the model computes with, the float32
// masters behind it, and the gradients.
type lora struct {
	names    []string // of the matrices and stacks, in the model's order
	rowNames []string // of the matrices with rows of tokens
	left     []string // matrices that were meant but cannot be trained to be merged
	note     string   // how it begins, where that needs a word
	adapter  *model.Adapter
	grads    model.Grads
	params   []optim.Param // A, B and perhaps the magnitude of each matrix; Value is the master
	used     [][]float32   // what the model computes with of each of params, in float16's numbers; nil: the master itself
	total    int64         // trained numbers
	groups   []int         // of each matrix, over which A is constant; nil for an ordinary adapter
}

// newLoRA begins a new adapter on the matrices that c chooses, with the numbers that
// c.Init says, and with rows of tokens, which may be nil. samples are those to be trained on.
func newLoRA(ctx context.Context, m *model.Model, c *AdapterConfig, seed uint64, samples []data.Sample, rows map[string]*model.Rows) (*lora, error) {
	chosen, err := chooseMatrices(m, c)
	var left []string
	if err == nil && c.MergeAware {
		chosen, left, err = mergeTargets(m, chosen, c)
	}
	if err != nil {
		return nil, err
	}
	ranks, alphas, err := c.patterns(chosen)
	if err != nil {
		return nil, err
	}
	ad := model.NewAdapter()
	for _, name := range chosen {
		out, in, n := dimsOf(m, name)
		r := ranks[name]
		ad.Pairs[name] = &model.Pair{A: kernel.NewMat(n*r, in), B: kernel.NewMat(n*out, r), Scale: float32(c.scale(alphas[name], r))}
	}
	note := ""
	switch c.Init {
	case "pissa":
		err = initPiSSA(m, ad, seed)
	case "eva":
		note, err = initEVA(ctx, m, ad, c, seed, samples)
	default:
		initLoRA(ad, seed)
	}
	if err == nil && c.DoRA {
		err = initDoRA(m, ad)
	}
	if err != nil {
		return nil, err
	}
	ad.Rows = rows
	l, err := wrapLoRA(m, ad, c, seed)
	if err != nil {
		return nil, err
	}
	if l.left, l.note = left, note; c.Init == "pissa" {
		l.offset()
	}
	return l, nil
}

// dimsOf gives the outputs and inputs of a matrix, or of each of the n of a stack.
func dimsOf(m *model.Model, name string) (out, in, n int) {
	if out, in, ok := m.MatrixDims(name); ok {
		return out, in, 1
	}
	n, out, in, _ = m.StackDims(name)
	return out, in, n
}

// initLoRA makes A uniform in ±1/√in (kaiming_uniform with a = √5, as PEFT has it) and B zero.
func initLoRA(ad *model.Adapter, seed uint64) {
	for name, p := range ad.Pairs {
		s := rng.New(seed, "init", name)
		bound := float32(1 / math.Sqrt(float64(p.A.Cols)))
		for i := range p.A.Data {
			p.A.Data[i] = float32(2*s.Uniform(uint64(i))-1) * bound
		}
	}
}

// initDoRA gives every pair magnitudes: the norms of the rows as they are, B being zero; of
// the embedding those of the columns.
func initDoRA(m *model.Model, ad *model.Adapter) error {
	for name, p := range ad.Pairs {
		var err error
		if name == arch.EmbeddingName {
			p.Magnitude, err = m.ColumnNorms()
		} else {
			p.Magnitude, err = m.RowNorms(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wrapLoRA prepares an adapter, whose memory it takes over as masters, for training.
func wrapLoRA(m *model.Model, ad *model.Adapter, c *AdapterConfig, seed uint64) (*lora, error) {
	l := &lora{adapter: model.NewAdapter()}
	l.adapter.Invocation = ad.Invocation
	for _, name := range append(m.Matrices(), m.Stacks()...) {
		if ad.Pairs[name] != nil {
			l.names = append(l.names, name)
		}
	}
	if err := l.addRows(m, ad, c.Float32); err != nil {
		return nil, err
	}
	if len(l.names) != len(ad.Pairs) {
		for name := range ad.Pairs {
			if _, _, n := dimsOf(m, name); n == 0 {
				return nil, fmt.Errorf("train: the adapter changes %s, which the base does not have", name)
			}
		}
		return nil, fmt.Errorf("train: the adapter changes matrices that cannot be trained")
	}
	for _, name := range l.names {
		p := *ad.Pairs[name]
		if !c.Float32 {
			p.A, p.B = kernel.NewMat(p.A.Rows, p.A.Cols), kernel.NewMat(p.B.Rows, p.B.Cols)
		}
		l.adapter.Pairs[name] = &p
	}
	if l.grads = model.NewGrads(l.adapter); m.TiedHead {
		l.grads.Apart()
	}
	for _, name := range l.names {
		p, used, g := ad.Pairs[name], l.adapter.Pairs[name], l.grads[name]
		l.params = append(l.params,
			optim.Param{Name: name + loraA, Rows: p.A.Rows, Cols: p.A.Cols, Value: p.A.Data, Grad: g.A.Data, Rate: 1},
			optim.Param{Name: name + loraB, Rows: p.B.Rows, Cols: p.B.Cols, Value: p.B.Data, Grad: g.B.Data, Rate: 1})
		if c.Float32 {
			l.used = append(l.used, nil, nil)
		} else {
			l.used = append(l.used, used.A.Data, used.B.Data)
		}
		if n := len(p.Magnitude); n > 0 { // always float32: rounded norms would change the base
			l.params = append(l.params, optim.Param{Name: name + loraM, Rows: 1, Cols: n, Value: p.Magnitude, Grad: g.Magnitude, Rate: 1})
			l.used = append(l.used, nil)
		}
	}
	l.rowParams(ad, c.Float32)
	if c.MergeAware {
		if err := l.mergeAware(m, seed); err != nil {
			return nil, err
		}
	}
	l.total = l.count()
	l.sync()
	return l, nil
}

// The endings of parameters' names.
const (
	loraA = ".lora_a"
	loraB = ".lora_b"
	loraM = ".lora_magnitude"
)

// setRatio sets the rates of LoRA+ (arXiv 2402.12354): that of B is ratio times that of A.
func (l *lora) setRatio(ratio float64) {
	for i := range l.params {
		if strings.HasSuffix(l.params[i].Name, loraB) {
			l.params[i].Rate = ratio
		}
	}
}

// sync makes the adapter the masters, rounded to the nearest float16 where that is
// what it is held in.
func (l *lora) sync() {
	l.adapter.Changed()
	for i, dst := range l.used {
		if dst != nil {
			roundHalf(dst, l.params[i].Value)
		}
	}
}

// dora says whether magnitudes are trained.
func (l *lora) dora() bool { return len(l.names) > 0 && l.adapter.Pairs[l.names[0]].Magnitude != nil }

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
