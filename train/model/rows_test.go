package model

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
)

// withRows gives a rows for some tokens of the batch, on all matrices that have them.
func withRows(m *Model, a *Adapter, b *Batch, std float64) *Adapter {
	ids := slices.Clone(b.IDs[2:5])
	slices.Sort(ids)
	ids = append(slices.Compact(ids), int32(m.Vocab-1))
	slices.Sort(ids)
	ids = slices.Compact(ids)
	a.Rows = map[string]*Rows{}
	for _, name := range []string{embedName, headName} {
		if _, in, ok := m.MatrixDims(name); ok {
			a.Rows[name] = &Rows{IDs: ids, Data: randomMat(len(ids), in, std, "rows", name)}
		}
	}
	return a
}

// TestRowsFiniteDifferences compares the gradients of rows with slopes of the loss.
func TestRowsFiniteDifferences(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newModel(t, c.model(), Options{Threads: 1, KeepLayers: 1})
			b := randomBatch(m.Vocab, 9, 4)
			b.Weights = randomMat(1, 13, 1, "weights").Data
			for _, a := range []*Adapter{NewAdapter(), randomAdapter(m, 2)} {
				withRows(m, a, b, 4) // long: a step is short against them, as slopes need it
				g := NewGrads(a)
				if _, err := m.LossAndGrad(b, a, g); err != nil {
					t.Fatal(err)
				}
				if want := len(a.Rows); m.TiedHead && want != 1 || !m.TiedHead && want != 2 {
					t.Fatalf("rows on %d matrices", want)
				}
				for name, r := range a.Rows {
					slope(t, m, b, a, name+" rows", r.Data, g[name].Rows)
				}
			}
		})
	}
}

// TestRowsAreTheMatrix compares a model with rows bound to one whose matrices hold them: all
// bytes are the same, in sessions and for any threads, and the model is as before after that.
func TestRowsAreTheMatrix(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			src := c.model()
			m := newModel(t, src, Options{Threads: 2})
			b := randomBatch(m.Vocab, 30, 7)
			a := withRows(m, randomAdapter(m, 2), b, 0.5)
			whole := arch.Tokens{Rows: map[string]arch.TokenRows{}}
			for name, r := range a.Rows {
				whole.Rows[name] = arch.TokenRows{IDs: r.IDs, Data: r.Data.Data}
			}
			in, err := src.WithTokens(whole)
			if err != nil {
				t.Fatal(err)
			}
			n := newModel(t, in, Options{Threads: 1})
			plain := &Adapter{Pairs: a.Pairs}
			before := batchLogits(t, m, b)
			got, want := batchLogits(t, m, b, Scaled{a, 1}), batchLogits(t, n, b, Scaled{plain, 1})
			if !slices.Equal(got, want) {
				t.Error("rows beside the matrix are not what they are in it")
			}
			if slices.Equal(got, before) {
				t.Error("the rows change nothing")
			}
			if !slices.Equal(batchLogits(t, m, b), before) {
				t.Error("rows stay bound")
			}
			s, err := m.NewSession(10, Scaled{a, 1})
			if err != nil {
				t.Fatal(err)
			}
			last, err := s.Append(b.IDs[:5])
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(last, want[4*m.Vocab:5*m.Vocab]) {
				t.Error("a session has other logits")
			}
			ga, gp := NewGrads(a), NewGrads(plain)
			la, err := m.LossAndGrad(b, a, ga)
			if err != nil {
				t.Fatal(err)
			}
			lp, err := n.LossAndGrad(b, plain, gp)
			if err != nil {
				t.Fatal(err)
			}
			if la.Sum != lp.Sum {
				t.Errorf("the loss is %v, %v with the rows in the matrix", la.Sum, lp.Sum)
			}
			for name := range plain.Pairs {
				if !reflect.DeepEqual(ga[name], gp[name]) {
					t.Errorf("%s has other gradients", name)
				}
			}
		})
	}
}

// batchLogits are those of all tokens of b.
func batchLogits(t *testing.T, m *Model, b *Batch, adapters ...Scaled) (all []float32) {
	t.Helper()
	err := m.Logits(b, func(_ int, x kernel.Mat) error {
		all = append(all, x.Data...)
		return nil
	}, adapters...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRowsMemory: with rows alone the whole way down has a backward pass.
func TestRowsMemory(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		m := newModel(t, c.model(), Options{Threads: 1})
		b := randomBatch(m.Vocab, 100, 30, 7)
		a := withRows(m, NewAdapter(), b, 0.5)
		l, err := m.LossAndGrad(b, a, NewGrads(a))
		if err != nil {
			t.Fatal(err)
		}
		ranks := map[string]int{}
		for name := range a.Rows {
			ranks[name] = 0
		}
		got := bytesOf(reflect.ValueOf(m.work)) + 4*int64(len(m.work.losses)+4*100*(m.RopeDim/2))
		want := m.PassMemory(Shape{Tokens: 137, Longest: 100, Trained: l.Tokens, Rows: len(a.Rows[embedName].IDs)}, ranks, Options{Threads: 1})
		if got != want {
			t.Errorf("%s: %d bytes of buffers, %d were forecast", c.name, got, want)
		}
		costs, none := m.Costs(ranks, Options{}, true), m.Costs(nil, Options{}, true)
		if costs.Of([]int{100}, 99).Total() < 1.5*none.Of([]int{100}, 99).Total() {
			t.Errorf("%s: the way down to the rows costs nothing", c.name)
		}
	}
}

// TestRowsRefused: what does not fit is an error, and nothing stays bound.
func TestRowsRefused(t *testing.T) {
	t.Parallel()
	m := newModel(t, tinies[1].model(), Options{Threads: 1})
	b := randomBatch(m.Vocab, 9)
	rows := func(name string, cols int, ids ...int32) *Adapter {
		return &Adapter{Rows: map[string]*Rows{name: {IDs: ids, Data: randomMat(len(ids), cols, 1)}}}
	}
	good := rows(embedName, m.Hidden, 1, 4)
	for _, c := range []struct {
		want     string
		adapters []Scaled
	}{
		{"factor of 0.5", []Scaled{{good, 0.5}}},
		{"two adapters", []Scaled{{good, 1}, {rows(embedName, m.Hidden, 2), 1}}},
		{"its embedding", []Scaled{{rows(headName, m.Hidden, 1), 1}}},
		{"does not have", []Scaled{{rows("blk.0.attn_q.weight", m.Hidden, 1), 1}}},
		{"where a row has", []Scaled{{rows(embedName, m.Hidden+1, 1), 1}}},
		{"ids ascend", []Scaled{{rows(embedName, m.Hidden, 4, 1), 1}}},
		{"ids ascend", []Scaled{{rows(embedName, m.Hidden, int32(m.Vocab)), 1}}},
	} {
		if _, err := m.Loss(b, c.adapters...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v where %q is wanted", err, c.want)
		}
	}
	if _, err := m.LossAndGrad(b, good, Grads{}); err == nil {
		t.Error("there is no gradient to add to")
	}
}
