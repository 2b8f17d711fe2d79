package merge

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

// jobOf is a job of one model against a base of zeros.
func jobOf(x kernel.Mat, params map[string]float64) *blendJob {
	j := &blendJob{name: "w", rows: int64(x.Rows), cols: int64(x.Cols), round: noRound}
	in := blendInput{rows: matRows{x}, param: func(name string, def float64) (float64, error) {
		if v, ok := params[name]; ok {
			return v, nil
		}
		return def, nil
	}}
	j.models = []blendInput{in}
	j.base = &blendInput{rows: matRows{kernel.NewMat(x.Rows, x.Cols)}}
	return j
}

// TestKeepRange compares the passes with sorting, on values with many equals.
func TestKeepRange(t *testing.T) {
	t.Parallel()
	s := rng.New(3, "keep")
	for trial := range uint64(300) {
		d := s.At(trial)
		rows, cols := 1+int(d.Uint64(0)%6), 1+int(d.Uint64(1)%9)
		levels := 1 + d.Uint64(2)%12
		x := kernel.NewMat(rows, cols)
		for i := range x.Data {
			x.Data[i] = float32(int(d.Uint64(uint64(i+10))%levels)-int(levels/2)) / 8
		}
		n := len(x.Data)
		from, to := int64(d.Uint64(3)%uint64(n+1)), int64(d.Uint64(4)%uint64(n+1))
		order := make([]int, n) // ascending, equal ones from the last to the first
		for i := range order {
			order[i] = n - 1 - i
		}
		sort.SliceStable(order, func(a, b int) bool { return magnitude(x.Data[order[a]]) < magnitude(x.Data[order[b]]) })
		want := make([]bool, n)
		for r := from; r < to; r++ {
			want[order[r]] = true
		}
		mask, err := jobOf(x, nil).keepRange(0, from, to)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]bool, n)
		for r := range rows {
			mask(got[r*cols:(r+1)*cols], x.Row(r), int64(r))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%v: ranks %d to %d: %v, want %v", x.Data, from, to, got, want)
		}
	}
}

// TestSparsifiers checks what the methods say they keep.
func TestSparsifiers(t *testing.T) {
	t.Parallel()
	x := randomMat("sparse", 50, 400)
	count := func(s sparsifier, density float64, params map[string]float64) (share float64, mean float64) {
		mask, err := s(jobOf(x, params), 0, density)
		if err != nil {
			t.Fatal(err)
		}
		keep := make([]bool, len(x.Data))
		mask(keep, append([]float32(nil), x.Data...), 0)
		var n int
		for i, k := range keep {
			if k {
				n++
				mean += math.Abs(float64(x.Data[i]))
			}
		}
		return float64(n) / float64(len(keep)), mean / float64(n)
	}
	for _, c := range []struct {
		name        string
		s           sparsifier
		params      map[string]float64
		exact       bool
		least, most float64 // mean magnitude of what is kept; that of all is 0.5
	}{
		{"largest", keepLargest, nil, true, 0.79, 0.81},
		{"middle", keepMiddle, map[string]float64{"gamma": 0.1}, true, 0.69, 0.71},
		{"random", keepRandom, nil, false, 0.48, 0.52},
		{"likely", keepLikely, map[string]float64{"epsilon": 0.3}, false, 0.6, 0.65},
	} {
		share, mean := count(c.s, 0.4, c.params)
		if off := math.Abs(share - 0.4); off > 0.012 || c.exact && off != 0 {
			t.Errorf("%s keeps %.4f, want 0.4", c.name, share)
		}
		if mean < c.least || mean > c.most {
			t.Errorf("%s: mean magnitude %.3f, want %.2f to %.2f", c.name, mean, c.least, c.most)
		}
	}
	if _, err := keepLikely(jobOf(x, map[string]float64{"epsilon": 0.5}), 0, 0.4); format.ExitStatus(err) != 2 {
		t.Errorf("probabilities below zero: %v", err)
	}
}

// TestSettings evaluates parameters as mergekit does.
func TestSettings(t *testing.T) {
	t.Parallel()
	r, err := ParseRecipe([]byte(`
merge_method: slerp
base_model: {model: {path: a}}
tokenizer_source: base
models:
  - model: a
  - model: b
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 1]
    - filter: mlp
      value: 0.25
    - value: 1e-1
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tensor  string
		t, want float64
	}{
		{"model.layers.0.self_attn.q_proj.weight", 0, 0}, {"model.layers.1.self_attn.q_proj.weight", 0.25, 0.25},
		{"model.layers.9.self_attn.q_proj.weight", 1, 1}, {"model.layers.0.mlp.up_proj.weight", 0.7, 0.25}, {"lm_head.weight", 0, 0.1},
	} {
		if v, ok := r.params["t"].at(c.tensor, c.t); !ok || math.Abs(v-c.want) > 1e-12 {
			t.Errorf("%s at %g: %g, want %g", c.tensor, c.t, v, c.want)
		}
	}
	if fmt.Sprint(r.Models()) != "[a b]" || r.Tokenizer != "base" || !r.Whole {
		t.Errorf("%+v", r)
	}
}

// TestRecipesRefused: what is no recipe says where and what was meant.
func TestRecipesRefused(t *testing.T) {
	t.Parallel()
	head := "merge_method: linear\nmodels:\n- model: a\n"
	for text, want := range map[string]string{
		"":                                   "the recipe is empty",
		"merge_methode: linear":              `line 1: the recipe has no key "merge_methode"; did you mean "merge_method"?`,
		"merge_method: dare_tie":             `did you mean "dare_ties"?`,
		"merge_method: linear":               "names no models",
		head + "  weight: 1":                 `line 4: a model has no key "weight"`,
		head + "  parameters: {wieght: 1}":   `line 4: parameters has no key "wieght"; did you mean "weight"?`,
		head + "parameters: {weight: hello}": "line 4: a parameter is a number",
		head + "dtype: int8":                 "line 4: the type is float32",
		head + "slices: []\nbase: b":         `did you mean "base_model"?`,
		"merge_method: passthrough\nslices:\n- sources:\n  - {model: a, layer_range: [2, 1]}": "line 4: a layer_range",
		"[1, 2]":        "should be a mapping",
		"merge_method:": "names no merge_method",
	} {
		_, err := ParseRecipe([]byte(text))
		if format.ExitStatus(err) != 2 || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestRecipeCut: a recipe cut anywhere, or with a byte changed, is read or refused,
// and does not panic.
func TestRecipeCut(t *testing.T) {
	t.Parallel()
	text := []byte(`merge_method: ties
base_model: base
parameters: &p {lambda: 0.5, weight: [{filter: mlp, value: [0, 1]}, {value: 2}]}
slices:
- sources:
  - {model: {lora: b, path: a}, layer_range: [0, 2], parameters: *p}
dtype: bfloat16
tokenizer: {source: base}
`)
	r, err := ParseRecipe(text)
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Slices[0].Sources[0]; m.Model != "a+b" || m.params["weight"].filters[1].value != 2 {
		t.Errorf("%+v", m)
	}
	good := 0
	for i := range text {
		for _, b := range [][]byte{text[:i], append(append(append([]byte{}, text[:i]...), '*'), text[i+1:]...), append(append([]byte{}, text[:i]...), text[i+1:]...)} {
			if _, err := ParseRecipe(b); err == nil {
				good++
			}
		}
	}
	if good == 0 || good == 3*len(text) {
		t.Errorf("%d of %d changed recipes are recipes", good, 3*len(text))
	}
}
