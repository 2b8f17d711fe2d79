package merge

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/testutil"
)

// combinedCase is an entry of oracle/peft-merge/combined.json.
type combinedCase struct {
	Name     string    `json:"name"`
	Type     string    `json:"combination_type"`
	Adapters []string  `json:"adapters"`
	Weights  []float32 `json:"weights"`
	Density  float64   `json:"density"`
	Majority string    `json:"majority_sign_method"`
	Rank     int       `json:"svd_rank"`
	Clamp    float64   `json:"svd_clamp"`
	Error    string    `json:"error"`
	Result   int       `json:"rank"`
}

// recordedMasks reads masks as PEFT drew them.
func recordedMasks(t *testing.T, path string, adapters []string) func(matrix, part string, k int) func(int) bool {
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return func(matrix, part string, k int) func(int) bool {
		x := f.Tensor(matrix + "." + part + "." + adapters[k])
		if x == nil {
			t.Fatalf("%s has no mask of %s %s of %s", path, matrix, part, adapters[k])
		}
		b := make([]byte, x.Size)
		if _, err := x.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return func(i int) bool { return b[i] != 0 }
	}
}

// TestCombinedAsPEFT compares every recorded combination, as products, since the signs
// of singular vectors are free. Those on factors are the same bits; cat differs by a
// rounding of the scale (1e-7 seen). Singular forms were recorded from a float32
// decomposition, graft's is in float64: 1.3e-6 seen, and 3.8e-6 in the two
// where a cut between near singular values or the clamp's quantile magnifies it.
func TestCombinedAsPEFT(t *testing.T) {
	t.Parallel()
	dir := testutil.Shared(t, "oracle", "peft-merge")
	b, err := os.ReadFile(filepath.Join(dir, "combined.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []combinedCase
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 32 {
		t.Fatalf("%d recorded combinations, want 32", len(cases))
	}
	worst := map[string]float64{}
	for _, c := range cases {
		var ws []Weighted
		for i, name := range c.Adapters {
			a, err := adapter.Open(filepath.Join(dir, "adapters", name))
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range a.Pairs {
				p.Magnitude = nil // PEFT leaves them out silently; Combine refuses such adapters
			}
			ws = append(ws, Weighted{a, c.Weights[i]})
		}
		o := CombineOptions{Method: c.Type, Density: c.Density, MajoritySign: c.Majority, Cut: Cut{Rank: c.Rank}}
		o.mask = recordedMasks(t, filepath.Join(dir, "combined", c.Name, "masks.safetensors"), c.Adapters)
		if c.Type == "svd" && c.Rank == 0 {
			o.Cut.Rank = c.Result // PEFT's default; graft's keeps the exact sum
		}
		got, err := Combine(t.Context(), ws, o)
		if c.Error != "" {
			if err == nil || !strings.Contains(err.Error(), "equal ranks") {
				t.Errorf("%s: %v, PEFT says %s", c.Name, err, c.Error)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		want, err := adapter.Open(filepath.Join(dir, "combined", c.Name))
		if err != nil {
			t.Fatal(err)
		}
		index := map[string]*adapter.Pair{}
		for _, p := range want.Pairs {
			index[p.Module] = p
		}
		if len(got.Pairs) != len(index) {
			t.Errorf("%s: %d pairs, want %d", c.Name, len(got.Pairs), len(index))
		}
		for _, p := range got.Pairs {
			w := index[p.Module]
			if w == nil {
				t.Fatalf("%s: PEFT has no %s", c.Name, p.Module)
			}
			g := termOf(p)
			if c.Clamp != 0 {
				g = clampedLike(g, termOf(w), c.Clamp)
			}
			// PEFT means scale 1 whatever its config says: an rslora adapter that comes first makes it sqrt(r).
			want := mul(matOf(w.B), matOf(w.A))
			e := relative(mul(g.B, g.A), want, 1/float64(g.Scale))
			worst[c.Type] = max(worst[c.Type], e)
			limit := 0.0
			switch {
			case strings.HasSuffix(c.Type, "svd"):
				limit = 5e-6
			case c.Type == "cat":
				limit = 3e-7
			}
			if e > limit {
				t.Errorf("%s: %s: relative error %g", c.Name, p.Module, e)
			}
		}
	}
	for n, e := range worst {
		t.Logf("%s: worst relative error %.2g", n, e)
	}
}

// clampedLike gives the singular vectors of t the signs of want's before they are
// clamped.
func clampedLike(t, want Term, q float64) Term {
	l := LowRank{A: t.A, B: t.B, Singular: make([]float64, t.A.Rows)}
	for k := range t.A.Rows {
		var dot, aa, bb float64
		for j, v := range t.A.Row(k) {
			dot += float64(v) * float64(want.A.Row(k)[j])
			aa += float64(v) * float64(v)
		}
		for i := range t.B.Rows {
			bb += float64(t.B.Row(i)[k]) * float64(t.B.Row(i)[k])
		}
		l.Singular[k] = math.Sqrt(aa * bb)
		if dot < 0 {
			for j := range t.A.Row(k) {
				t.A.Row(k)[j] *= -1
			}
			for i := range t.B.Rows {
				t.B.Row(i)[k] *= -1
			}
		}
	}
	return l.clamped(q).term()
}

func adapterOf(pairs ...*adapter.Pair) *adapter.Adapter { return adapter.New("x", "llama", pairs) }

func pairOf(seed string, rows, rank, cols int, scale float32) *adapter.Pair {
	p := &adapter.Pair{Target: "blk.0.attn_q.weight", Expert: -1}
	p.SetFactors(matrixOf(randomMat("a"+seed, rank, cols)), matrixOf(randomMat("b"+seed, rows, rank)), scale)
	return p
}

// TestTrueDelta: linear on the changes is their exact weighted sum, whatever the
// ranks, where linear on factors is far off.
func TestTrueDelta(t *testing.T) {
	t.Parallel()
	ws := []Weighted{{adapterOf(pairOf("1", 40, 3, 30, 2)), 0.7}, {adapterOf(pairOf("2", 40, 3, 30, 0.5)), -0.4}}
	sum := kernel.NewMat(40, 30)
	for _, w := range ws {
		g := termOf(w.Pairs[0])
		d := mul(g.B, g.A)
		for i, v := range d.Data {
			sum.Data[i] += w.Factor * g.Scale * v
		}
	}
	for _, c := range []struct {
		o    CombineOptions
		rank int
		less float64
	}{
		{CombineOptions{Method: "linear", TrueDelta: true}, 6, 1e-6},
		{CombineOptions{Method: "cat"}, 6, 1e-6},
		{CombineOptions{Method: "svd"}, 6, 1e-6},
		{CombineOptions{Method: "magnitude_prune", Density: 1, TrueDelta: true}, 6, 1e-6},
		{CombineOptions{Method: "magnitude_prune_svd"}, 3, 0.6},
		{CombineOptions{Method: "magnitude_prune", Density: 0.5, TrueDelta: true}, 30, 1},
		{CombineOptions{Method: "dare_ties", Density: 0.5, TrueDelta: true, Cut: Cut{Rank: 5}}, 5, 3},
	} {
		out, err := Combine(t.Context(), ws, c.o)
		if err != nil {
			t.Fatal(err)
		}
		g := termOf(out.Pairs[0])
		e := relative(mul(g.B, g.A), sum, 1/float64(g.Scale))
		if g.A.Rows != c.rank || e > c.less {
			t.Errorf("%+v: rank %d, relative error %g; want rank %d", c.o, g.A.Rows, e, c.rank)
		}
	}
	out, err := Combine(t.Context(), ws, CombineOptions{Method: "linear"})
	if err != nil {
		t.Fatal(err)
	}
	g := termOf(out.Pairs[0])
	if e := relative(mul(g.B, g.A), sum, 1); e < 0.3 {
		t.Errorf("linear on factors is off by %g only: there should be cross terms", e)
	}
}

// TestDareMasks: a seed gives the same adapter again, another seed another one, and
// about the wanted share of values stays.
func TestDareMasks(t *testing.T) {
	t.Parallel()
	ws := []Weighted{{adapterOf(pairOf("1", 200, 8, 100, 1)), 1}, {adapterOf(pairOf("2", 200, 8, 100, 1)), 1}}
	make := func(seed uint64) adapter.Matrix {
		out, err := Combine(t.Context(), ws, CombineOptions{Method: "dare_linear", Density: 0.3, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		return out.Pairs[0].B
	}
	a, b, c := make(1), make(1), make(2)
	if fmt.Sprint(a) != fmt.Sprint(b) || fmt.Sprint(a) == fmt.Sprint(c) {
		t.Error("the masks are no function of the seed")
	}
	zero := 0
	for _, v := range a.Data {
		if v == 0 {
			zero++
		}
	}
	if share := float64(zero) / float64(len(a.Data)); math.Abs(share-0.49) > 0.04 {
		t.Errorf("%.3f of the values are zero, want 0.7 squared", share)
	}
}

// TestKeepFirstLargest: any blocks, the same values.
func TestKeepFirstLargest(t *testing.T) {
	t.Parallel()
	x := []float32{1, -3, 2, 3, -2, 0.5, 2}
	for k, want := range []string{"", "1", "13", "123", "1234", "12346", "012346", "0123456"} {
		for _, block := range []int{1, 3, len(x)} {
			y := slices.Clone(x)
			blocks := func(f func([]float32, int)) error {
				for at := 0; at < len(y); at += block {
					f(y[at:min(at+block, len(y))], at)
				}
				return nil
			}
			p, err := keepFirstLargest(blocks, len(x), k)
			if err == nil && p != nil {
				err = blocks(p)
			}
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for i, v := range y {
				if v != 0 {
					got += fmt.Sprint(i)
				}
			}
			if got != want {
				t.Errorf("the %d largest are %s, want %s", k, got, want)
			}
		}
	}
}

// TestCombineLarge: a change that is too large to be held is combined by blocks of rows,
// at any number of threads the same, and as a small one is.
func TestCombineLarge(t *testing.T) {
	t.Parallel()
	ws := []Weighted{{adapterOf(pairOf("1", 900, 3, 800, 2)), 0.7}, {adapterOf(pairOf("2", 900, 5, 800, 0.5)), -0.4}}
	var terms []Term
	weights := []float32{}
	for _, w := range ws {
		terms, weights = append(terms, termOf(w.Pairs[0])), append(weights, w.Factor)
	}
	for _, m := range []tasks{{pruneSmall, true}, {pruneRandom, true}, {pruneSmall, false}} {
		o := &CombineOptions{Density: 0.4, Seed: 3}
		c := func(threads int) *combination {
			pool := kernel.NewPool(threads)
			t.Cleanup(pool.Close)
			return &combination{CombineOptions: o, ctx: t.Context(), pool: pool, matrix: "x", weights: weights, from: []int{0, 1}}
		}
		var xs [][]float32
		for _, term := range terms {
			d := kernel.NewMat(900, 800)
			rowsOf(nil, d, term, 0)
			xs = append(xs, d.Data)
		}
		want, err := m.combineAll(xs, weights, o, c(1).masksOf("delta"))
		if err != nil {
			t.Fatal(err)
		}
		for threads := range 3 {
			r, err := m.changesOf(c(threads+1), terms)
			if err != nil {
				t.Fatal(err)
			}
			if got := allOf(t, r); !slices.Equal(got, want) {
				t.Errorf("%d threads: blocks of rows have other values than the whole", threads+1)
			}
		}
	}
	// The random directions find what the whole decomposition does.
	whole, err := Combine(t.Context(), ws, CombineOptions{Method: "dare_linear", Density: 1, TrueDelta: true, Cut: Cut{Rank: 8}, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	g, sum := termOf(whole.Pairs[0]), kernel.NewMat(900, 800)
	for i, term := range terms {
		d := mul(term.B, term.A)
		for j, v := range d.Data {
			sum.Data[j] += weights[i] * term.Scale * v
		}
	}
	if e := relative(mul(g.B, g.A), sum, 1); e > 1e-5 {
		t.Errorf("relative error %g", e)
	}
}

// TestSingularForm: what is too large to be decomposed as a whole needs a cut.
func TestSingularForm(t *testing.T) {
	t.Parallel()
	a, b := randomMat("a", 4, 2600), randomMat("b", 2600, 4)
	m := &changes{c: &combination{CombineOptions: &CombineOptions{}, ctx: t.Context(), weights: []float32{1}}, terms: []Term{{A: a, B: b, Scale: 1}},
		prune: make([]prune, 1), tmp: make([]changeBuffers, 1)}
	if _, err := singularForm(t.Context(), nil, m, Cut{}, 0); format.ExitStatus(err) != 2 {
		t.Error(err)
	}
	l, err := singularForm(t.Context(), nil, m, Cut{Energy: 0.999999}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if l.A.Rows != 4 {
		t.Errorf("rank %d, want 4", l.A.Rows)
	}
}
