package adapter

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

func sniffGGUF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	if n, _ := f.Read(magic[:]); n < 4 || string(magic[:]) != "GGUF" {
		return false
	}
	g, err := gguf.OpenShard(path)
	if err != nil {
		return strings.Contains(strings.ToLower(path), "lora") || strings.Contains(strings.ToLower(path), "adapter")
	}
	defer g.Close()
	t, _ := g.Meta.Str("general.type")
	return t == "adapter"
}

func openGGUF(path string) (*Adapter, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if t, _ := f.Meta.Str("general.type"); t != "adapter" {
		return nil, format.Usagef("%s is no adapter: its general.type is %q", path, t)
	}
	if t, _ := f.Meta.Str("adapter.type"); t != "lora" {
		return nil, format.Unsupported("%s: an adapter of type %q", path, t)
	}
	alpha, ok := f.Meta.Float("adapter.lora.alpha")
	if !ok {
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "adapter.lora.alpha", Err: errors.New("missing")}
	}
	a := &Adapter{Path: path, Format: "gguf", Name: folderName(path), Meta: map[string]string{}, native: true}
	if a.Arch, ok = f.Meta.Str("general.architecture"); !ok {
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "general.architecture", Err: errors.New("missing")}
	}
	if s, ok := f.Meta.Str("general.name"); ok {
		a.Name = s
	}
	ids, _ := f.Meta.Ints("adapter.alora.invocation_tokens")
	for _, id := range ids {
		a.Invocation = append(a.Invocation, uint32(id))
	}
	for _, kv := range f.Meta.All() {
		if s, ok := kv.Value.(string); ok && strings.HasPrefix(kv.Key, "graft.") {
			a.Meta[kv.Key] = s
		}
	}
	g := &ggufHalves{path: path, stacks: map[string]*stackPair{}}
	for i, t := range f.Tensors {
		if i == 0 {
			a.Type = t.Type
		}
		if err := g.read(t); err != nil {
			return nil, err
		}
	}
	a.Pairs, err = g.finish(alpha)
	return a, err
}

// ggufHalves gathers the pairs of a GGUF adapter, stacks of experts among them.
type ggufHalves struct {
	path   string
	order  []string
	stacks map[string]*stackPair
}

type stackPair struct{ a, b *stackTensor }

// stackTensor is one matrix or, of experts, several.
type stackTensor struct {
	count, rows, cols int // count -1: no stack
	data              []float32
}

func (g *ggufHalves) read(t *format.Tensor) error {
	target, isA := strings.CutSuffix(t.Name, ".lora_a")
	if !isA {
		var isB bool
		if target, isB = strings.CutSuffix(t.Name, ".lora_b"); !isB {
			return format.Unsupported("%s: tensor %s: neither A nor B of a pair", g.path, t.Name)
		}
	}
	s := &stackTensor{count: -1}
	switch len(t.Shape) {
	case 2:
		s.rows, s.cols = int(t.Shape[0]), int(t.Shape[1])
	case 3:
		s.count, s.rows, s.cols = int(t.Shape[0]), int(t.Shape[1]), int(t.Shape[2])
	default:
		return &format.CorruptError{Path: g.path, Offset: t.Offset, Field: "tensor " + t.Name, Err: fmt.Errorf("shape %v", t.Shape)}
	}
	var err error
	if s.data, err = readAll(t); err != nil {
		return err
	}
	p := g.stacks[target]
	if p == nil {
		p = &stackPair{}
		g.stacks[target] = p
		g.order = append(g.order, target)
	}
	if isA {
		p.a = s
	} else {
		p.b = s
	}
	return nil
}

func (s *stackTensor) matrix(e int) Matrix {
	n := s.rows * s.cols
	return Matrix{Rows: s.rows, Cols: s.cols, Data: s.data[e*n : (e+1)*n : (e+1)*n]}
}

// finish makes pairs. An alpha of 0 means a factor of 1, as llama.cpp has it.
func (g *ggufHalves) finish(alpha float64) ([]*Pair, error) {
	var pairs []*Pair
	for _, target := range g.order {
		s := g.stacks[target]
		bad := func(f string, args ...any) error {
			return &format.CorruptError{Path: g.path, Offset: -1, Field: "tensor " + target, Err: fmt.Errorf(f, args...)}
		}
		if s.a == nil || s.b == nil {
			return nil, bad("has only one of A and B")
		}
		if s.a.count != s.b.count {
			return nil, bad("A is a stack of %d, B of %d", s.a.count, s.b.count)
		}
		n := s.a.count
		if n < 0 {
			n = 1
		}
		for e := range n {
			p := &Pair{Target: target, Expert: -1, A: s.a.matrix(e), B: s.b.matrix(e)}
			if s.a.count >= 0 {
				p.Expert = e
			}
			if target == "token_embd.weight" { // stored flipped: A is vocabulary x r, B hidden x r
				p.A, p.B, p.embedding = p.B.transposed(), p.A, true
			}
			if p.A.Rows != p.B.Cols || p.A.Rows == 0 {
				return nil, bad("A has rank %d, B %d", p.A.Rows, p.B.Cols)
			}
			p.Rank = p.A.Rows
			p.alpha, p.Scale = alpha, float32(alpha)/float32(p.Rank)
			if alpha == 0 {
				p.alpha, p.Scale = 0, 1
			}
			pairs = append(pairs, p)
		}
	}
	return pairs, nil
}
