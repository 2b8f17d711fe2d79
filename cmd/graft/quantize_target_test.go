package main

import (
	"encoding/json"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
)

// TestTargetBeatsRecipes quantizes sprig by recipes and to a target of the same size
// with types of the recipes' own family: the predictions must move half as
// much at most. Seen: a quarter of Q4_K_M's divergence, a third of Q4_K_S's.
func TestTargetBeatsRecipes(t *testing.T) {
	t.Parallel()
	sprig := func(name string) string { return testutil.Shared(t, "models", "sprig", name) }
	out := command(t, "quantize", sprig("sprig-f16.gguf"), "--compare", "Q4_K_M,4.92bpw,Q4_K_S,4.67bpw", "--target-types", "q3_k,q4_k,q5_k,q6_k",
		"--imatrix", sprig("imatrix.gguf"), "--data", sprig("stories.txt"), "--context", "256", "--limit", "8", "--json", "--quiet")
	var doc struct{ Results []ladderRow }
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	r := doc.Results
	if len(r) != 5 || r[0].Divergence != nil {
		t.Fatalf("%d results: %s", len(r), out)
	}
	for i := 1; i < 5; i += 2 {
		recipe, target := r[i], r[i+1]
		t.Logf("%s: %d bytes, KL %.6f; %s: %d bytes, KL %.6f", recipe.Type, recipe.Bytes, recipe.Divergence.KL, target.Type, target.Bytes, target.Divergence.KL)
		if target.Bytes > recipe.Bytes || target.Divergence.KL > recipe.Divergence.KL/2 {
			t.Errorf("%s of %d bytes has a divergence of %.6f, %s of %d bytes %.6f", target.Type, target.Bytes, target.Divergence.KL, recipe.Type, recipe.Bytes, recipe.Divergence.KL)
		}
	}
}
