package train

import (
	"context"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// TestSensitivitiesOfSprig: every kind is measured, noise in the embedding, which is
// the head too, matters most by far, and noise in the gates least but for one.
func TestSensitivitiesOfSprig(t *testing.T) {
	t.Parallel()
	base := openSprig(t, "sprig-f16.gguf", model.Options{})
	m, err := quant.ReadImatrix(testutil.Shared(t, "models", "sprig", "imatrix.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	samples, err := base.EvalData(testutil.Shared(t, "models", "sprig", "stories.txt"), 128, data.Options{}, data.Fields{})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	got, err := base.Sensitivities(context.Background(), samples[:6], m, 1024, model.Options{}, func(kind string) { told = append(told, kind) })
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 8 || len(told) != 8 {
		t.Fatalf("%v, told of %v", got, told)
	}
	t.Log(got)
	less := 0
	for kind, s := range got {
		if kind != "token_embd" && s*5 > got["token_embd"] {
			t.Errorf("%s: %v, the embedding %v", kind, s, got["token_embd"])
		}
		if s < got["ffn_gate"] {
			less++
		}
	}
	if less > 1 {
		t.Errorf("%d kinds matter less than the gates: %v", less, got)
	}
}
