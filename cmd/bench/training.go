package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/graft-lora/graft/fixtures"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	_ "github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/optim"
)

const (
	benchContext = 512
	benchRank    = 16
)

// modelFile is the model to measure: the one named, or the embedded one in a temporary folder.
func modelFile(path string) (string, func(), error) {
	if path != "" {
		return path, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "graft-bench")
	if err != nil {
		return "", nil, err
	}
	paths, err := fixtures.Write(dir, fixtures.Model)
	if err != nil {
		return "", nil, err
	}
	return paths[0], func() { os.RemoveAll(dir) }, nil
}

// training measures whole steps (forward, backward, clipping, AdamW) on one sequence of
// 512 tokens with a rank 16 adapter on every linear matrix, all tokens trained,
// activations recomputed and kept. The arithmetic is what [model.Costs] counts; the
// share that is usual counts three passes forward and backward where activations are
// recomputed, though not every product is made again.
func training(r *report, path string, threads int) error {
	path, remove, err := modelFile(path)
	if err != nil {
		return err
	}
	defer remove()
	src, err := arch.Open(path, arch.Options{})
	if err != nil {
		return err
	}
	defer src.Close()
	for _, keep := range []int{0, -1} {
		m, err := model.New(src, model.Options{KeepLayers: keep, Threads: threads})
		if err != nil {
			return err
		}
		if err := trainingStep(r, m, filepath.Base(path), keep, threads); err != nil {
			return err
		}
		m.Close()
	}
	return nil
}

func trainingStep(r *report, m *model.Model, name string, keep, threads int) error {
	ad := model.NewAdapter()
	ranks := map[string]int{}
	s := rng.New(1, "bench")
	for _, n := range m.Matrices() {
		if !strings.HasPrefix(n, "blk.") {
			continue
		}
		out, in, _ := m.MatrixDims(n)
		p := &model.Pair{A: kernel.NewMat(benchRank, in), B: kernel.NewMat(out, benchRank), Scale: 1}
		for i := range p.A.Data {
			p.A.Data[i] = (2*s.Uniform(uint64(i)) - 1) / float32(in)
		}
		ad.Pairs[n], ranks[n] = p, benchRank
	}
	grads := model.NewGrads(ad)
	var params []optim.Param
	for _, n := range ad.Names() {
		p, g := ad.Pairs[n], grads[n]
		params = append(params, optim.Param{Name: n + ".lora_a", Rows: p.A.Rows, Cols: p.A.Cols, Value: p.A.Data, Grad: g.A.Data, Rate: 1},
			optim.Param{Name: n + ".lora_b", Rows: p.B.Rows, Cols: p.B.Cols, Value: p.B.Data, Grad: g.B.Data, Rate: 1})
	}
	opt, err := optim.New(optim.DefaultSettings("adamw"), params)
	if err != nil {
		return err
	}
	b := &model.Batch{IDs: make([]int32, benchContext)}
	for i := range b.IDs {
		b.IDs[i] = int32(s.Uint64(uint64(i)) % uint64(m.Vocab))
	}
	b.Targets = model.ShiftLabels(b.IDs, nil)
	var stepErr error
	var spent model.Spent // of all steps
	var optimizing time.Duration
	steps := 0.
	tier := cpu.Current()
	peak := kernel.MeasurePeak(tier)
	var busy time.Duration // of the step that took the processors least
	seconds := best(10*measureFor, func() {
		before := processorTime()
		grads.Zero()
		if _, err := m.LossAndGrad(b, ad, grads); err != nil {
			stepErr = err
		}
		begun := time.Now()
		optim.ClipNorm(params, 1, 2)
		opt.Step(1e-5)
		optimizing += time.Since(begun)
		if took := processorTime() - before; busy == 0 || took < busy {
			busy = took
		}
		for w, t := range m.Spent() {
			spent[w] += t
		}
		steps++
	})
	if stepErr != nil {
		return stepErr
	}
	core := max(peak, kernel.MeasurePeak(tier))
	peak = core * float64(threads) * 1e9
	lens, trained := []int{benchContext}, benchContext-1
	done := m.Costs(ranks, model.Options{KeepLayers: keep}, true).Of(lens, trained)
	usual, what, count := done.Total(), "activations kept", "4P a token"
	if keep == 0 {
		usual = m.Costs(ranks, model.Options{KeepLayers: -1}, true).Of(lens, trained).Total() + m.Costs(ranks, model.Options{}, false).Of(lens, 0).Total()
		what, count = "activations recomputed", "6P a token"
	}
	group := "training, " + name
	of := "the peak of " + fmt.Sprint(threads) + " cores"
	r.add(figure{group, fmt.Sprintf("context %d, rank %d, %s", benchContext, benchRank, what),
		benchContext / seconds, "tokens/s", usual / seconds / peak, of + ", counting " + count})
	if keep == 0 {
		r.add(figure{group, "  counting what is computed", done.Total() / 1e9, "GFLOP", done.Total() / seconds / peak, of})
	}
	if busy > 0 {
		r.add(figure{group, "  by processor time, waiting for each other included",
			benchContext / busy.Seconds() * float64(threads), "tokens/s", usual / busy.Seconds() / core / 1e9, of})
	}
	total := optimizing
	for _, t := range spent {
		total += t
	}
	for w, t := range spent {
		f := figure{group, "  " + model.Work(w).String(), 100 * t.Seconds() / total.Seconds(), "% of the time", 0, ""}
		if done[w] > 0 {
			f.Share, f.Of = steps*done[w]/t.Seconds()/peak, of
		}
		r.add(f)
	}
	r.add(figure{group, "  clipping and AdamW", 100 * optimizing.Seconds() / total.Seconds(), "% of the time", 0, ""})
	return nil
}
