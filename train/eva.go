package train

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// How much EVA looks at: sequences, tokens of each and matrix, and how many inputs it gathers
// before it reduces them to their directions.
const (
	evaSequences = 32
	evaTokens    = 16
	evaGathered  = 96
)

// gathered keeps the leading directions of a stream of inputs: the rows of kept are right
// singular vectors times singular values, to which new rows are added and which is then
// reduced again (incremental principal components, as EVA has it, without centering).
type gathered struct {
	k     int
	rows  kernel.Mat
	n     int     // of rows in use
	total float64 // sum of squares of all inputs
	seen  int
	seed  rng.Stream
}

func (s *gathered) add(row []float32) {
	if s.n == s.rows.Rows {
		s.reduce()
	}
	copy(s.rows.Row(s.n), row)
	s.n++
	s.seen++
	s.total += kernel.SumSquares64(row)
}

// reduce leaves no more than k rows.
func (s *gathered) reduce() factors {
	m := s.rows.Sub(0, s.n, 0, s.rows.Cols)
	f := principal(s.n, m.Cols, s.k, s.seed, func(x kernel.Mat) kernel.Mat {
		y := kernel.NewMat(x.Rows, m.Rows)
		kernel.GemmNT(nil, y, x, m, false)
		return y
	}, func(y kernel.Mat) kernel.Mat {
		x := kernel.NewMat(y.Rows, m.Cols)
		kernel.GemmNN(nil, x, y, m, false)
		return x
	})
	for c, sigma := range f.sigma {
		kernel.Scale(s.rows.Row(c), float32(sigma), f.v.Row(c))
	}
	s.n = len(f.sigma)
	return f
}

// initEVA begins with A the leading directions of the matrices' inputs on the data
// (Paischer et al., EVA, 2024) and B zero. With c.EVARho above 1 the ranks go, all
// together as many as before, to the directions that explain the largest part of
// their inputs; a matrix that gets none is not trained. Each expert has the inputs that
// are routed to it, and its rank. What has no such inputs begins as it does without EVA:
// the embedding, whose inputs are tokens, and experts that saw fewer than their rank. The
// note says which.
func initEVA(ctx context.Context, m *model.Model, ad *model.Adapter, c *AdapterConfig, seed uint64, samples []data.Sample) (note string, err error) {
	initLoRA(ad, seed)
	rho := max(c.EVARho, 1)
	inputs := map[string][]*gathered{}
	for name, p := range ad.Pairs {
		if name == arch.EmbeddingName {
			continue
		}
		_, in, n := dimsOf(m, name)
		k := p.Rank()
		if !stacked(name) {
			k = min(int(rho*float64(k)), in)
		}
		for e := range n {
			s := rng.New(seed, "eva", name)
			if stacked(name) {
				s = s.At(uint64(e))
			}
			inputs[name] = append(inputs[name], &gathered{k: k, rows: kernel.NewMat(k+evaGathered, in), seed: s})
		}
	}
	m.OnExpertInput = func(name string, expert int, x kernel.Mat) {
		if s := inputs[name]; s != nil {
			step := max(x.Rows/evaTokens, 1)
			for t := 0; t < x.Rows; t += step {
				s[expert].add(x.Row(t))
			}
		}
	}
	m.OnInput = func(name string, x kernel.Mat) { m.OnExpertInput(name, 0, x) }
	defer func() { m.OnInput, m.OnExpertInput = nil, nil }()
	for _, sample := range samples[:min(evaSequences, len(samples))] {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if _, err := m.Loss(batchOf(answers([]data.Sample{sample})[:1])); err != nil {
			return "", err
		}
	}
	found, ranks, unseen, experts := map[string]factors{}, map[string]int{}, 0, 0
	for name, list := range inputs {
		p := ad.Pairs[name]
		r := p.Rank()
		if !stacked(name) {
			if list[0].seen < r {
				return "", fmt.Errorf("train: eva saw %d inputs of %s, fewer than its rank", list[0].seen, name)
			}
			found[name], ranks[name] = list[0].reduce(), r
			continue
		}
		for e, s := range list {
			if experts++; s.seen < r {
				unseen++
				continue
			}
			s.reduce().directions(p.A.Sub(e*r, (e+1)*r, 0, p.A.Cols))
		}
	}
	if rho > 1 {
		redistribute(ranks, found, inputs)
	}
	for name, r := range ranks {
		p := ad.Pairs[name]
		if r == 0 {
			delete(ad.Pairs, name)
			continue
		}
		if r != p.Rank() {
			p.A, p.B = kernel.NewMat(r, p.A.Cols), kernel.NewMat(p.B.Rows, r)
			one := model.NewAdapter()
			one.Pairs[name] = p
			initLoRA(one, seed)
		}
		found[name].directions(p.A)
	}
	if ad.Pairs[arch.EmbeddingName] != nil {
		note = "eva: the embedding, whose inputs are tokens, begins as without it"
	}
	if unseen > 0 {
		if note != "" {
			note += "; "
		}
		note += fmt.Sprintf("eva: %d of %d matrices of experts saw fewer inputs than their rank and begin as without it", unseen, experts)
	}
	return note, nil
}

// directions makes the rows of a the leading directions, as many as there are; the others
// stay.
func (f factors) directions(a kernel.Mat) {
	for c := range min(a.Rows, len(f.sigma)) {
		if f.sigma[c] > 1e-6*f.sigma[0] {
			copy(a.Row(c), f.v.Row(c))
		}
	}
}

// redistribute gives the sum of the ranks to the directions that explain the largest
// part of the inputs they are of. The scales stay.
func redistribute(ranks map[string]int, found map[string]factors, inputs map[string][]*gathered) {
	type direction struct {
		name  string
		c     int
		share float64
	}
	var all []direction
	budget := 0
	for _, name := range slices.Sorted(maps.Keys(ranks)) {
		budget += ranks[name]
		ranks[name] = 0
		for c, sigma := range found[name].sigma {
			all = append(all, direction{name, c, float64(sigma*sigma) / inputs[name][0].total})
		}
	}
	slices.SortStableFunc(all, func(a, b direction) int { return cmp.Compare(b.share, a.share) })
	for _, d := range all[:min(budget, len(all))] {
		ranks[d.name] = max(ranks[d.name], d.c+1)
	}
}
