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

// training measures forward and backward of one sequence of 512 tokens with a rank
// 16 adapter on every linear matrix, all tokens trained, activations recomputed
// and kept. The arithmetic counted is 2 operations a weight and token for each of
// forward, recomputation and backward, the same for the adapter's matrices (and
// once more for their gradients) and for the head, and the products of attention.
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
	var body, adapter, head float64
	s := rng.New(1, "bench")
	for _, n := range m.Matrices() {
		out, in, _ := m.MatrixDims(n)
		if !strings.HasPrefix(n, "blk.") {
			head = float64(out) * float64(in) // tied or not, the last such matrix is the head
			continue
		}
		body += float64(out) * float64(in)
		adapter += float64(benchRank) * float64(out+in)
		p := &model.Pair{A: kernel.NewMat(benchRank, in), B: kernel.NewMat(out, benchRank), Scale: 1}
		for i := range p.A.Data {
			p.A.Data[i] = (2*s.Uniform(uint64(i)) - 1) / float32(in)
		}
		ad.Pairs[n] = p
	}
	grads := model.NewGrads(ad)
	b := &model.Batch{IDs: make([]int32, benchContext)}
	for i := range b.IDs {
		b.IDs[i] = int32(s.Uint64(uint64(i)) % uint64(m.Vocab))
	}
	b.Targets = model.ShiftLabels(b.IDs, nil)
	var stepErr error
	var spent model.Spent // of all steps
	tier := cpu.Current()
	peak := kernel.MeasurePeak(tier)
	var busy time.Duration // of the step that took the processors least
	seconds := best(10*measureFor, func() {
		before := processorTime()
		if _, err := m.LossAndGrad(b, ad, grads); err != nil {
			stepErr = err
		}
		if took := processorTime() - before; busy == 0 || took < busy {
			busy = took
		}
		for w, t := range m.Spent() {
			spent[w] += t
		}
	})
	if stepErr != nil {
		return stepErr
	}
	core := max(peak, kernel.MeasurePeak(tier))
	peak = core * float64(threads)
	passes, what := 4.0, "activations kept"
	if keep == 0 {
		passes, what = 6, "activations recomputed"
	}
	// Half of the square is masked; q·kᵀ and p·v forward, five products of that size backward.
	attention := float64(len(m.Layers)) * 2 * float64(benchContext) / 2 * float64(m.QDim()+m.ODim())
	attention *= (passes-2)/2 + 2.5
	flops := benchContext * (passes*body + (passes+2)*adapter + 4*head + attention)
	r.add(figure{"training, " + name, fmt.Sprintf("context %d, rank %d, %s", benchContext, benchRank, what),
		benchContext / seconds, "tokens/s", flops / seconds / 1e9 / peak, "peak over all its arithmetic"})
	if busy > 0 {
		r.add(figure{"training, " + name, "  the same by processor time, waiting for each other included",
			benchContext / busy.Seconds() * float64(threads), "tokens/s", flops / busy.Seconds() / 1e9 / core, "peak over all its arithmetic"})
	}
	total := time.Duration(0)
	for _, t := range spent {
		total += t
	}
	for w, t := range spent {
		r.add(figure{"training, " + name, "  " + model.Work(w).String(), 100 * t.Seconds() / total.Seconds(), "% of the time", 0, ""})
	}
	return nil
}
