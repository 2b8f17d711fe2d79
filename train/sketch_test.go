package train

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// TestSketch compares the moments that a stored sketch stands for with those that it was
// made of: the diagonal is there, most of what is beside it too, and no more than there is.
func TestSketch(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := openSprig(t, "sprig-q4_k_m.gguf", model.Options{})
	samples, err := b.EvalData(testutil.Shared(t, "models", "sprig", "identity-train.jsonl"), 64, data.Options{}, data.Fields{})
	if err != nil {
		t.Fatal(err)
	}
	matrices := b.Model.Matrices()[1:] // without the embedding
	var first []byte
	dir := t.TempDir()
	path := filepath.Join(dir, MomentsFile)
	for _, run := range []struct{ limit, threads int }{{64, 1}, {512, 3}} {
		s, err := sketchInputs(ctx, b.Model, samples, run.limit, run.threads, matrices)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.write(ctx, path); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = got
		} else if !bytes.Equal(first, got) {
			t.Error("the sketch depends on threads or passes")
		}
	}
	s, err := OpenSketch(filepath.Join(dir, GGUFFile+"-or-any-other"))
	if err == nil || s != nil {
		t.Error("an adapter that is not there has a sketch")
	}
	if s, err = OpenSketch(dir); err != nil {
		t.Fatal(err)
	}
	exact := map[string]kernel.Mat{}
	err = eachInput(ctx, b.Model, samples, 512, false, nil, func(name string, x kernel.Mat) error {
		h, ok := exact[inputOf(name)]
		if !ok {
			h = kernel.NewMat(x.Cols, x.Cols)
			exact[inputOf(name)] = h
		}
		kernel.GemmTN(nil, h, x, x, true)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"blk.0.attn_v.weight", "blk.1.ffn_up.weight", "blk.2.ffn_down.weight", "blk.3.attn_output.weight"} {
		rest, z, err := s.Moments(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		h, tokens := exact[inputOf(name)], float64(s.Tokens)
		off, diag := beside(rest, z, func(i, j int) float64 { return float64(h.Row(i)[j]) / tokens })
		if off > 0.6 || diag > 0.02 {
			t.Errorf("%s: what is beside the diagonal is off by %.3f of itself, the diagonal by %.4f", name, off, diag)
		} else {
			t.Logf("%s: %.3f, %.4f", name, off, diag)
		}
		if slices.Min(rest) < 0 {
			t.Errorf("%s: a negative part of the diagonal", name)
		}
	}
	if _, z, err := s.Moments(ctx, "token_embd.weight"); err != nil || z.Rows != 0 {
		t.Errorf("an input that was not sketched: %v, %v", z.Rows, err)
	}
	rest, z, err := Sketches{s, s}.Moments(ctx, "blk.0.attn_q.weight")
	if err != nil {
		t.Fatal(err)
	}
	oneRest, one, _ := s.Moments(ctx, "blk.0.attn_k.weight")
	if kernel.Dot(z.Row(1), z.Row(0)) != 2*kernel.Dot(one.Row(1), one.Row(0)) || rest[2] != 2*oneRest[2] {
		t.Error("two sketches are not the sum of both")
	}

	for at := 0; at < len(first); at += 1 + len(first)/23 {
		if err := os.WriteFile(path, first[:at], 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSketch(dir); err == nil {
			t.Errorf("%d of %d bytes are read as if they were all", at, len(first))
		}
	}
}
