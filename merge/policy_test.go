package merge

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/testutil"
)

// TestChangeNorms compares the norms that a policy and a review go by with those of what PEFT merged: of
// DoRA the norms it sets count, not the product of its matrices.
func TestChangeNorms(t *testing.T) {
	t.Parallel()
	dir := testutil.Shared(t, "oracle", "peft-merge")
	base, err := arch.Open(filepath.Join(dir, "base"), arch.Options{NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	weights := readFloats(t, filepath.Join(dir, "base", "model.safetensors"))
	for _, name := range []string{"a_r4_alpha8", "e_dora_r4", "h_rs_patterns_dora"} {
		a, err := adapter.Open(filepath.Join(dir, "adapters", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Resolve(base); err != nil {
			t.Fatal(err)
		}
		merged := readFloats(t, filepath.Join(dir, "merged", name+".safetensors"))
		largest := 0.0
		for _, p := range a.Pairs {
			s, err := PairSpectrum(p)
			if err != nil {
				t.Fatal(err)
			}
			norm, _ := EffectiveRank(s)
			change, weight, err := changeNorms(p, norm, base)
			if err != nil {
				t.Fatal(err)
			}
			var want, of float64
			for i, w := range weights[p.Module+".weight"] {
				d := float64(merged[p.Module+".weight"][i]) - float64(w)
				want += d * d
				of += float64(w) * float64(w)
			}
			largest = max(largest, math.Sqrt(want/of))
			if got, want := change/weight, math.Sqrt(want/of); math.Abs(got-want) > 1e-5*want {
				t.Errorf("%s, %s: %v of the weights' norm, PEFT %v", name, p.Module, got, want)
			}
		}
		r, err := ReviewAdapter(a, base)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(r.LargestRatio-largest) > 1e-5*largest || (r.DoRA > 0) != (name != "a_r4_alpha8") {
			t.Errorf("%s: the review has %v and DoRA of %d, want %v", name, r.LargestRatio, r.DoRA, largest)
		}
		strict, lax := Policy{MaxNorm: largest * 0.999}, Policy{MaxNorm: largest * 1.001}
		if broken, err := strict.Check(a, base); err != nil || len(broken) == 0 {
			t.Errorf("%s: a norm over the largest is let in: %v, %v", name, broken, err)
		}
		if broken, err := lax.Check(a, base); err != nil || len(broken) > 0 {
			t.Errorf("%s: a norm under the largest is not let in: %v, %v", name, broken, err)
		}
	}
}

// TestForbiddenByEitherName: without a base a matrix has one of its two names, and what the other forbids would be let in.
func TestForbiddenByEitherName(t *testing.T) {
	t.Parallel()
	dir := testutil.Shared(t, "oracle", "peft-merge")
	base, err := arch.Open(filepath.Join(dir, "base"), arch.Options{NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	for _, pattern := range []string{"output*", "*lm_head"} {
		a, err := adapter.Open(filepath.Join(dir, "adapters", "f_embed_head"))
		if err != nil {
			t.Fatal(err)
		}
		p := Policy{ForbidTargets: []string{pattern}}
		if broken, err := p.Check(a, nil); err != nil || len(broken) == 0 {
			t.Errorf("%s without a base: %v, %v", pattern, broken, err)
		}
		if err := a.Resolve(base); err != nil {
			t.Fatal(err)
		}
		if broken, err := p.Check(a, base); err != nil || len(broken) != 1 || !strings.Contains(broken[0], "it changes lm_head") {
			t.Errorf("%s: %v, %v", pattern, broken, err)
		}
	}
}

func readFloats(t *testing.T, path string) map[string][]float32 {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]float32{}
	for _, x := range f.Tensors {
		r, err := format.StoredRows(x)
		if err != nil {
			t.Fatal(err)
		}
		out[x.Name] = allOf(t, r)
	}
	return out
}

// TestEmptyRules: a rule that holds nothing back is an error, as a misspelt one is.
func TestEmptyRules(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	for text, want := range map[string]string{
		"max_rank: 4":                 "",
		"require_provenance: false":   "",
		"":                            "it has no rules",
		"# nothing":                   "it has no rules",
		"signers: []":                 "signers has no value",
		"bases:":                      "bases has no value",
		"max_rank: 0":                 "max_rank has no value",
		"max_norm: 0.0":               "max_norm has no value",
		"max_norm: -1":                "neither may be negative",
		"forbid_targets: []":          "forbid_targets has no value",
		"max_rank: 4\nlicence: [mit]": "licence not found",
	} {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := LoadPolicy(path)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
