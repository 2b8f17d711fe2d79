package train

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
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
	exact := NewInputMoments(b.Model, samples, 512, 1<<30, matrices)
	for _, name := range []string{"blk.0.attn_v.weight", "blk.1.ffn_up.weight", "blk.2.ffn_down.weight", "blk.3.attn_output.weight"} {
		h, err := exact.Moments(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Moments(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		var off, all, diag float64
		for i := range h.Rows {
			for j := range h.Cols {
				x, y := float64(h.Row(i)[j]), float64(got.Row(i)[j])
				if i == j {
					diag = math.Max(diag, math.Abs(x-y)/x)
					continue
				}
				off += (x - y) * (x - y)
				all += x * x
			}
		}
		if part := math.Sqrt(off / all); part > 0.6 || diag > 0.02 {
			t.Errorf("%s: what is beside the diagonal is off by %.3f of itself, the diagonal by %.4f", name, part, diag)
		} else {
			t.Logf("%s: %.3f, %.4f", name, part, diag)
		}
		// What a merge does with it first: x H xᵀ of no x is negative.
		var x [4]kernel.Mat
		for i := range x {
			x[i] = kernel.NewMat(1, h.Rows)
			for j := range x[i].Data {
				x[i].Data[j] = float32(math.Sin(float64(j*(i+3)) + float64(i)))
			}
			y := kernel.NewMat(1, h.Rows)
			kernel.GemmNN(nil, y, x[i], got, false)
			if v := kernel.Dot(x[i].Data, y.Data); !(v > 0) {
				t.Errorf("%s: x H x is %v", name, v)
			}
		}
	}
	if m, err := s.Moments(ctx, "token_embd.weight"); err != nil || m.Rows != 0 {
		t.Errorf("an input that was not sketched: %v, %v", m.Rows, err)
	}
	two, err := Sketches{s, s}.Moments(ctx, "blk.0.attn_q.weight")
	if err != nil {
		t.Fatal(err)
	}
	one, _ := s.Moments(ctx, "blk.0.attn_k.weight")
	if two.Row(1)[0] != 2*one.Row(1)[0] {
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
