package model

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/kernel"
)

// magnitudes gives every pair magnitudes that are not the norms.
func magnitudes(t testing.TB, m *Model, a *Adapter) *Adapter {
	t.Helper()
	for _, n := range a.Names() {
		norms, err := m.RowNorms(n)
		if n == embedName {
			norms, err = m.ColumnNorms()
		}
		if err != nil {
			t.Fatal(err)
		}
		r := randomMat(1, len(norms), 0.2, "magnitude", n).Data
		for i := range norms {
			norms[i] *= 1 + r[i]
		}
		a.Pairs[n].Magnitude = norms
	}
	return a
}

// offset gives a random fixed change to some matrices.
func offset(m *Model, a *Adapter) *Adapter {
	a.Fixed = map[string]*Pair{}
	for i, n := range all(m) {
		if i%2 == 0 {
			p := randomAdapter(m, 1, n).Pairs[n]
			p.Scale = -0.7
			a.Fixed[n] = p
		}
	}
	return a
}

// settle changes the batch until no token of it is about to choose other experts.
func settle(t *testing.T, m *Model, b *Batch, a *Adapter) {
	t.Helper()
	if m.MoE.Experts == 0 {
		return
	}
	best, ids := float32(0), slices.Clone(b.IDs)
	for tries := 0; best < 6e-3 && tries < 400; tries++ {
		for i := range b.IDs {
			b.IDs[i] = (b.IDs[i]*5 + int32(i)) % int32(m.Vocab)
		}
		if _, err := m.LossAndGrad(b, a, NewGrads(a)); err != nil {
			t.Fatal(err)
		}
		margin := float32(1)
		for i := range m.work.acts {
			p := m.work.acts[i].mix.probs.mat(len(b.IDs), m.MoE.Experts)
			for r := range p.Rows {
				row := slices.Clone(p.Row(r))
				slices.Sort(row)
				k := len(row) - m.MoE.Used
				margin = min(margin, row[k]-row[k-1])
			}
		}
		if margin > best {
			best, ids = margin, slices.Clone(b.IDs)
		}
	}
	b.IDs = ids // whether that is enough the slopes say
}

// TestOtherKinds is TestFiniteDifferences for DoRA, whose norms stand still as long as
// the adapter is not said to have changed, and for a fixed change beside. A magnitude of
// zero is a row of zeros with a gradient.
func TestOtherKinds(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			opt := Options{Threads: 1, KeepLayers: 1}
			if c.experts > 0 {
				opt.KeepLayers = -1 // settle looks at all layers
			}
			m := newModel(t, c.model(), opt)
			b := randomBatch(m.Vocab, 9, 4)
			if c.experts > 0 {
				b = randomBatch(m.Vocab, 4, 2)
			}
			b.Targets[2] = Untrained
			for i, a := range []*Adapter{magnitudes(t, m, randomAdapter(m, 2, all(m)...)), offset(m, randomAdapter(m, 2, all(m)...))} {
				if i == 0 {
					a.Pairs["blk.1.attn_output.weight"].Magnitude[3] = 0
				}
				for _, drop := range []float32{0, 0.3} {
					b.Dropout = Dropout{P: drop, Seed: 1, Step: 2}
					settle(t, m, b, a)
					g := NewGrads(a)
					if _, err := m.LossAndGrad(b, a, g); err != nil {
						t.Fatal(err)
					}
					for _, name := range a.Names() {
						p := a.Pairs[name]
						slope(t, m, b, a, name+" A", p.A, g[name].A)
						slope(t, m, b, a, name+" B", p.B, g[name].B)
						if n := len(p.Magnitude); n > 0 {
							row := func(x []float32) kernel.Mat { return kernel.Mat{Data: x, Rows: 1, Cols: n, Stride: n} }
							slope(t, m, b, a, name+" magnitude", row(p.Magnitude), row(g[name].Magnitude))
						}
					}
				}
			}
		})
	}
}

// TestOtherKindsSameBytes is TestSameBytes and TestPacked for DoRA and fixed changes.
func TestOtherKindsSameBytes(t *testing.T) {
	for _, c := range tinies {
		src := c.model()
		m := newModel(t, src, Options{Threads: 1, KeepLayers: -1})
		for what, a := range map[string]*Adapter{"DoRA": magnitudes(t, m, randomAdapter(m, 3, all(m)...)), "fixed": offset(m, randomAdapter(m, 3, m.Stacks()...))} {
			if len(a.Pairs) == 0 || what == "fixed" {
				a = offset(m, randomAdapter(m, 3))
			}
			b := randomBatch(m.Vocab, 70, 3, 20)
			want := runPass(t, m, a, b)
			var alone []*Batch
			first := 0
			for _, n := range b.Lens {
				alone = append(alone, &Batch{IDs: b.IDs[first : first+n], Targets: b.Targets[first : first+n]})
				first += n
			}
			want.equalTied(t, c.name+", alone, "+what, runPass(t, m, a, alone...), m)
			for _, opt := range []Options{{Threads: 2}, {Threads: 3, KeepLayers: 1}, {Threads: 2, HeadMemory: 1}, {KeepAttention: true}} {
				want.equal(t, c.name+", "+what, runPass(t, newModel(t, src, opt), a, b))
			}
			for _, tier := range cpu.Tiers() {
				restore := cpu.Force(tier)
				want.equal(t, c.name+", "+what+", "+tier.String(), runPass(t, newModel(t, src, Options{Threads: 2}), a, b))
				restore()
			}
		}
	}
}

// changed is src with W replaced by diag(m/n)(W + s·B·A), of the embedding (W + s·B·A)diag(m/n),
// or with s·B·A added, in float64.
func changed(t *testing.T, src *arch.Model, a *Adapter) *arch.Model {
	t.Helper()
	var views []*format.View
	for _, v := range src.Views {
		w := *v
		for _, pairs := range []map[string]*Pair{a.Pairs, a.Fixed} {
			p := pairs[v.Name]
			if p == nil {
				continue
			}
			rows, cols := w.Rows.Dims()
			data := make([]float32, rows*cols)
			if err := w.Rows.ReadRows(data, 0); err != nil {
				t.Fatal(err)
			}
			r := p.Rank()
			experts := p.A.Rows / r
			for o := range int(rows) {
				row := make([]float64, cols)
				e := o / (int(rows) / experts)
				sum := 0.
				columns := v.Name == embedName
				for i := range row {
					x := float64(data[o*int(cols)+i])
					for j := range r {
						x += float64(p.Scale) * float64(p.B.Row(o)[j]) * float64(p.A.Row(e*r + j)[i])
					}
					row[i] = x
					sum += x * x
				}
				f := 1.
				if p.Magnitude != nil && !columns {
					f = float64(p.Magnitude[o]) / math.Sqrt(sum)
				}
				for i, x := range row {
					data[o*int(cols)+i] = float32(f * x)
				}
			}
			for i := range int(cols) {
				if p.Magnitude == nil || v.Name != embedName {
					break
				}
				sum := 0.
				for o := range int(rows) {
					x := float64(data[o*int(cols)+i])
					sum += x * x
				}
				for o := range int(rows) {
					data[o*int(cols)+i] *= float32(float64(p.Magnitude[i]) / math.Sqrt(sum))
				}
			}
			w.Rows = memRows{data, cols}
		}
		views = append(views, &w)
	}
	return arch.NewModel(src.Path, src.Meta, views)
}

func allLogits(t *testing.T, m *Model, b *Batch, adapters ...Scaled) (all []float32) {
	t.Helper()
	err := m.Logits(b, func(_ int, x kernel.Mat) error {
		all = append(all, x.Data[:x.Rows*x.Cols]...)
		return nil
	}, adapters...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestDoRAIsTheMatrixItMakes compares the logits of adapters with those of models whose matrices are what the adapters say,
// before and after a change of the adapter, and with two at once.
func TestDoRAIsTheMatrixItMakes(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		src := c.model()
		m := newModel(t, src, Options{Threads: 2})
		b := randomBatch(m.Vocab, 12, 30)
		compare := func(what string, want *arch.Model, adapters ...Scaled) {
			t.Helper()
			w, g := allLogits(t, newModel(t, want, Options{Threads: 2}), b), allLogits(t, m, b, adapters...)
			if e := relative(g, w); e > 1e-5 {
				t.Errorf("%s, %s: the logits differ by %.2g", c.name, what, e)
			}
		}
		a := magnitudes(t, m, randomAdapter(m, 2, all(m)...))
		compare("DoRA", changed(t, src, a), Scaled{a, 1})
		for _, p := range a.Pairs {
			for i := range p.B.Data {
				p.B.Data[i] *= -2
			}
		}
		a.Changed()
		compare("changed", changed(t, src, a), Scaled{a, 1})
		f := offset(m, randomAdapter(m, 2, all(m)...))
		compare("a fixed change", changed(t, src, f), Scaled{f, 1})
		// Two on one matrix: each adds what it does to the base.
		two, name := randomAdapter(m, 1, "blk.1.attn_output.weight"), "blk.1.attn_output.weight"
		one := &Adapter{Pairs: map[string]*Pair{name: a.Pairs[name]}}
		if src.View(name) != nil {
			compare("two", changed(t, changed(t, src, one), two), Scaled{one, 1}, Scaled{two, 1})
		}
	}
}

// TestDoRASession wants of a session what the whole sequence gives.
func TestDoRASession(t *testing.T) {
	t.Parallel()
	m := newModel(t, tinies[3].model(), Options{Threads: 1})
	a := Scaled{magnitudes(t, m, randomAdapter(m, 2, all(m)...)), 0.5}
	b := randomBatch(m.Vocab, 30)
	want := allLogits(t, m, b, a)
	s, err := m.NewSession(30, a)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.IDs {
		got, err := s.Append(b.IDs[i : i+1])
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want[i*m.Vocab:(i+1)*m.Vocab]) {
			t.Errorf("token %d has other logits", i)
		}
	}
}

// TestDoRAMemory compares the forecast with the buffers there are after a pass.
func TestDoRAMemory(t *testing.T) {
	t.Parallel()
	for _, c := range tinies {
		for _, opt := range []Options{{Threads: 1}, {Threads: 1, KeepLayers: -1}} {
			m := newModel(t, c.model(), opt)
			a := magnitudes(t, m, randomAdapter(m, 3, m.Matrices()...))
			b := randomBatch(m.Vocab, 100, 30)
			l, err := m.LossAndGrad(b, a, NewGrads(a))
			if err != nil {
				t.Fatal(err)
			}
			ranks := map[string]int{}
			for n := range a.Pairs {
				ranks[n] = 3
			}
			got := bytesOf(reflect.ValueOf(m.work)) + 4*int64(cap(m.work.losses)+4*100*(m.RopeDim/2))
			want := m.PassMemory(Shape{Tokens: 130, Longest: 100, Trained: l.Tokens, DoRA: true}, ranks, opt)
			// Outputs that nobody wants are counted where all are kept too: 2 % is seen.
			if math.Abs(float64(got-want)) > 0.03*float64(want) {
				t.Errorf("%s, %+v: %d bytes are used, %d were forecast", c.name, opt, got, want)
			}
		}
	}
}

// TestDoRARefused wants errors for what cannot be.
func TestDoRARefused(t *testing.T) {
	t.Parallel()
	m := newModel(t, tinies[0].model(), Options{Threads: 1})
	b := randomBatch(m.Vocab, 5)
	embedding := randomAdapter(m, 2, embedName)
	embedding.Pairs[embedName].Magnitude = make([]float32, m.Vocab)
	short := randomAdapter(m, 2)
	short.Pairs[short.Names()[0]].Magnitude = make([]float32, 3)
	both := offset(m, magnitudes(t, m, randomAdapter(m, 2)))
	beside := magnitudes(t, m, randomAdapter(m, 2, embedName))
	beside.Fixed = randomAdapter(m, 1, embedName).Pairs
	embedRows := withRows(m, magnitudes(t, m, randomAdapter(m, 2, embedName)), b, 1)
	headRows := withRows(m, magnitudes(t, m, randomAdapter(m, 2, headName)), b, 1)
	for what, a := range map[string]*Adapter{"rows of an embedding": embedding, "too few": short, "beside a fixed change": both, "an embedding beside a fixed change": beside, "an embedding beside rows": embedRows, "a head beside rows": headRows} {
		if _, err := m.LossAndGrad(b, a, NewGrads(a)); err == nil {
			t.Errorf("magnitudes of %s are taken", what)
		}
	}
}
