package train

import (
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/optim"
)

// TestExperts trains every expert of two mixtures, with and without magnitudes, writes
// the adapter in both forms, and wants of what is read again the logits that it had.
func TestExperts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mixtral", "qwen3moe"} {
		for _, dora := range []bool{false, true} {
			src, err := arch.Open(testutil.Shared(t, "oracle", "zoo", name, "f32.gguf"), arch.Options{NoVocab: true})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			m, err := model.New(src, model.Options{Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			c := DefaultConfig().Adapter
			c.Rank, c.Targets, c.DoRA = 2, []string{"all-linear", "experts"}, dora
			l, err := newLoRA(background, m, &c, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(l.names) != 7*len(m.Layers) {
				t.Errorf("%s: %d matrices and stacks are trained in %d layers", name, len(l.names), len(m.Layers))
			}
			batch := &model.Batch{IDs: []int32{3, 8, 1, 30, 22, 9, 9, 14, 40, 2, 11, 5}, Router: 0.01}
			batch.Targets = model.ShiftLabels(batch.IDs, nil)
			opt, err := optim.New(optim.DefaultSettings("adamw"), l.params)
			if err != nil {
				t.Fatal(err)
			}
			var first, last float64
			for step := range 5 {
				l.grads.Zero()
				loss, err := m.LossAndGrad(batch, l.adapter, l.grads)
				if err != nil {
					t.Fatal(err)
				}
				if last = loss.Mean(); step == 0 {
					first = last
				}
				opt.Step(1e-2)
				l.sync()
			}
			if !(last < first) {
				t.Errorf("%s: the loss was %v and is %v", name, first, last)
			}
			logits := func(a *model.Adapter) (all []float32) {
				err := m.Logits(batch, func(_ int, x kernel.Mat) error {
					all = append(all, x.Data[:x.Rows*x.Cols]...)
					return nil
				}, model.Scaled{Adapter: a, Weight: 1})
				if err != nil {
					t.Fatal(err)
				}
				return all
			}
			want := logits(l.adapter)
			base := &Base{Path: src.Path, Source: src, Model: m}
			file, err := l.file("experts", base)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			paths := map[string]error{filepath.Join(dir, "peft"): adapter.WritePEFT(filepath.Join(dir, "peft"), file, adapter.WriteOptions{Type: format.F16})}
			if !dora {
				paths[filepath.Join(dir, "a.gguf")] = adapter.WriteGGUF(filepath.Join(dir, "a.gguf"), file, adapter.WriteOptions{Type: format.F16})
			}
			for path, err := range paths {
				if err != nil {
					t.Fatal(err)
				}
				a, err := base.LoadAdapter(path)
				if err != nil {
					t.Fatal(err)
				}
				if e := distanceOf(logits(a), want); e > 1e-6 {
					t.Errorf("%s, DoRA %v: read from %s the logits differ by %.2g", name, dora, filepath.Base(path), e)
				}
			}
		}
	}
}
