package train

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
			l, err := newLoRA(background, m, &c, 1, nil, nil)
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
			base := &Base{Path: src.Path, Source: src, original: src, Model: m}
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

// TestEVAExperts wants of each expert the directions of what is routed to it, and of those
// that see too little, and of the embedding, the beginning without EVA and a word.
func TestEVAExperts(t *testing.T) {
	t.Parallel()
	c := kindRun(t, "mixtral", func(c *Config) {
		c.Adapter.Targets, c.Adapter.Init, c.Adapter.Rank = []string{"experts", "embed_tokens"}, "eva", 12
	})
	r, err := open(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.base.Close()
	r.train, r.perEpoch = r.train[:1], 1
	var notes []string
	r.told = func(p Progress) { notes = append(notes, p.Note) }
	if err := r.ready(background); err != nil {
		t.Fatal(err)
	}
	begun, unseen := 0, 0
	plain := c.Adapter
	plain.Init = ""
	l, err := newLoRA(background, r.base.Model, &plain, c.Seed, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range r.lora.adapter.Pairs {
		_, _, n := dimsOf(r.base.Model, name)
		for e := range n {
			a := p.A.Sub(e*12, (e+1)*12, 0, p.A.Cols)
			switch {
			case slices.Equal(a.Data, l.adapter.Pairs[name].A.Sub(e*12, (e+1)*12, 0, p.A.Cols).Data):
				unseen++
			default:
				begun++
				if n := dot64(a.Row(0), a.Row(0)); math.Abs(n-1) > 1e-3 || math.Abs(dot64(a.Row(0), a.Row(3))) > 1e-3 {
					t.Errorf("%s, expert %d: the first direction has the squared norm %v", name, e, n)
				}
			}
		}
	}
	want := []string{"the embedding", fmt.Sprintf("%d of 24 matrices of experts", unseen-1)}
	if begun == 0 || unseen < 2 || !strings.Contains(strings.Join(notes, "\n"), want[0]) || !strings.Contains(strings.Join(r.notes, "\n"), want[1]) {
		t.Errorf("%d experts begin with their inputs, %d matrices do not; notes %q, in the report %q", begun, unseen, notes, r.notes)
	}
}

// TestRouterLossTold looks for the loss of routers in log and report, and asks for it
// where there are none.
func TestRouterLossTold(t *testing.T) {
	t.Parallel()
	c := kindRun(t, "qwen3moe", func(c *Config) { c.RouterLoss, c.Steps = 0.25, 2 })
	mustRun(t, c, Fresh)
	lines, err := ReadLog(filepath.Join(c.Output, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.isStep() != (l.Router > 2) || l.Router > 4 { // 2 of 4 experts are used
			t.Errorf("step %d: the loss of routers is %v", l.Step, l.Router)
		}
	}
	page, err := os.ReadFile(filepath.Join(c.Output, ReportFile))
	if err != nil {
		t.Fatal(err)
	}
	if want := "2 where they are used evenly. 0.25 times"; !strings.Contains(string(page), want) {
		t.Errorf("the report lacks %q", want)
	}
	c = kindRun(t, "", func(c *Config) { c.RouterLoss = 0.1 })
	var usage *format.UsageError
	if _, err := Run(background, c, Fresh, nil); !errors.As(err, &usage) {
		t.Errorf("a model without experts: %v", err)
	}
}
