package merge

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/fixtures"
	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/testutil"
)

// withVocab is a model with a token more, and its tokens in another order: token i is
// number n-i. The row of the new one is all fill.
func withVocab(t *testing.T, m *arch.Model, extra string, fill float32) *arch.Model {
	t.Helper()
	tokens, ok := m.Meta.Strs(tokensKey)
	if !ok {
		t.Fatal("no tokens")
	}
	meta := m.Meta.Clone()
	turned := append(slices.Clone(tokens), extra)
	slices.Reverse(turned)
	meta.Set(tokensKey, turned)
	var views []*format.View
	for _, v := range m.Views {
		if v.Name == "token_embd.weight" {
			w := *v
			x := allOf(t, v.Rows)
			rows, cols := v.Rows.Dims()
			out := matRows{randomMat("x", int(rows)+1, int(cols))}
			for i := range rows {
				copy(out.Row(int(rows-i)), x[i*cols:(i+1)*cols])
			}
			for j := range out.Row(0) {
				out.Row(0)[j] = fill
			}
			w.Rows, w.Shape, w.Type = out, []int64{rows + 1, cols}, format.F32
			v = &w
		}
		views = append(views, v)
	}
	return arch.NewModel("turned", meta, views)
}

// TestBlendByToken blends models whose vocabularies differ in order and size.
func TestBlendByToken(t *testing.T) {
	t.Parallel()
	paths, err := fixtures.Write(t.TempDir(), fixtures.Model)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := arch.Open(paths[0], arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Close() })
	models := map[string]*arch.Model{"plain": plain, "turned": withVocab(t, plain, "<new>", 3)}
	want := allOf(t, plain.View("token_embd.weight").Rows)
	rows, cols := plain.View("token_embd.weight").Rows.Dims()
	for _, c := range []struct {
		source string
		turned bool
	}{{"base", false}, {"plain", false}, {"turned", true}, {"union", true}} {
		r, err := ParseRecipe([]byte("merge_method: task_arithmetic\nbase_model: plain\ntokenizer_source: " + c.source +
			"\nmodels: [{model: plain, parameters: {weight: 1}}, {model: turned, parameters: {weight: 0.5}}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		out, err := Blend(r, models, BlendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		v := out.View("token_embd.weight")
		got := allOf(t, v.Rows)
		n := rows
		if c.turned {
			n++
		}
		tokens, _ := out.Meta.Strs(tokensKey)
		if v.Shape[0] != n || len(tokens) != int(n) || (tokens[0] == "<new>") != c.turned {
			t.Fatalf("%s: %d rows, %d tokens, the first is %q", c.source, v.Shape[0], len(tokens), tokens[0])
		}
		for i := range n {
			row := got[i*cols : (i+1)*cols]
			from := i
			if c.turned {
				from = rows - i
			}
			for j, x := range row {
				w := float32(3) // the new token: base lacks it and has the mean of those that have it
				if from < rows {
					w = want[from*cols+int64(j)]
				}
				if math.Abs(float64(x-w)) > 1e-6 {
					t.Fatalf("%s: token %d: %g, want %g", c.source, i, x, w)
				}
			}
		}
		if x := allOf(t, out.View("blk.1.ffn_up.weight").Rows); !slices.Equal(x, allOf(t, plain.View("blk.1.ffn_up.weight").Rows)) {
			t.Errorf("%s: a matrix of equal models changed", c.source)
		}
	}
	models["other"] = withVocab(t, plain, "<other>", 1)
	r, err := ParseRecipe([]byte("merge_method: linear\ntokenizer_source: union\n" +
		"models: [{model: turned, parameters: {weight: 1}}, {model: other, parameters: {weight: 0.5}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Blend(r, models, BlendOptions{}); format.ExitStatus(err) != 4 || !strings.Contains(err.Error(), "lacks 1 token") {
		t.Errorf("a union of two that each have their own: %v", err)
	}
}

// TestBlendFamilies blends models with themselves, of families whose norms are stored
// otherwise in GGUF, or whose experts are stacked: what comes out is what went in,
// in Hugging Face's terms.
func TestBlendFamilies(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"qwen3moe", "mixtral", "gemma3", "gemma2"} {
		dir := testutil.Shared(t, "oracle", "zoo", name, "hf")
		m, err := arch.Open(dir, arch.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		for _, recipe := range []string{
			"merge_method: linear\ndtype: float32\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 3}}]",
			"merge_method: slerp\nbase_model: a\ndtype: float32\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.3}",
			"merge_method: nuslerp\ndtype: float32\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]",
			"merge_method: ties\nbase_model: a\ndtype: float32\nmodels: [{model: b, parameters: {weight: 1, density: 0.3}}]",
		} {
			r, err := ParseRecipe([]byte(recipe))
			if err != nil {
				t.Fatal(err)
			}
			out, err := Blend(r, map[string]*arch.Model{"a": m, "b": m}, BlendOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Views) != len(m.Views) {
				t.Errorf("%s, %s: %d tensors, want %d", name, r.Method, len(out.Views), len(m.Views))
			}
			for _, v := range out.Views {
				got, want := allOf(t, v.Rows), allOf(t, m.View(v.Name).Rows)
				for i, w := range want {
					if math.Abs(float64(got[i]-w)) > 2.5e-7*max(1, math.Abs(float64(w))) {
						t.Fatalf("%s, %s: %s: element %d is %g, want %g", name, r.Method, v.Name, i, got[i], w)
					}
				}
			}
		}
	}
}
