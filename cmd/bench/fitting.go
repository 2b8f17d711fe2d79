package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/merge"
)

// fitting times what a merge into a Q4_K_M file takes, by every method that keeps the file's types, in
// turn with quantizing that file from F16, by graft and, if LLAMA_QUANTIZE names a llama-quantize, with that.
// The adapter is one of all matrices of the layers, and moments are as a trainer leaves
// them: 16 directions, and the rest of the diagonal.
func fitting(r *report, layers, rounds, threads int) error {
	ctx := context.Background()
	files, err := newMergeFiles(layers)
	if err != nil {
		return err
	}
	defer files.remove()
	in, graft := files.in, files.graft
	const typ = "Q4_K_M"
	quantize := func(to string) (usage, error) {
		return measureCommand(graft, []string{"--quiet", "--threads", fmt.Sprint(threads), "quantize", in("f16.gguf"), "-o", in(to), "--type", typ, "--force"})
	}
	if _, err := quantize("base.gguf"); err != nil {
		return err
	}
	base, err := arch.Open(in("base.gguf"), arch.Options{NoVocab: true})
	if err != nil {
		return err
	}
	defer base.Close()
	ad, err := adapter.Open(in("adapter.gguf"))
	if err != nil {
		return err
	}
	deltas, err := merge.NewDeltas(base, []merge.Weighted{{Adapter: ad, Factor: 1}})
	if err != nil {
		return err
	}
	merged := func(method string) func() (usage, error) {
		return func() (usage, error) {
			begin, before := time.Now(), processorTime()
			plan, report, err := merge.NewPlan(base, deltas, merge.Options{Method: method, Moments: &randomMoments{made: map[string]kernel.Mat{}}})
			if err != nil {
				return usage{}, err
			}
			if err := writePlan(ctx, in("merged.gguf"), base.FileMeta(), plan); err != nil {
				return usage{}, err
			}
			report.Finish()
			return usage{seconds: time.Since(begin).Seconds(), processor: (processorTime() - before).Seconds()}, nil
		}
	}
	type line struct {
		name string
		run  func() (usage, error)
		took usage
	}
	lines := []*line{{name: "requantize", run: merged("requantize")}, {name: "keep", run: merged("keep")}, {name: "fit", run: merged("fit")}}
	ours := lines[len(lines)-1]
	lines = append(lines, &line{name: "graft quantize", run: func() (usage, error) { return quantize("again.gguf") }})
	if other := os.Getenv("LLAMA_QUANTIZE"); other != "" {
		lines = append(lines, &line{name: "llama-quantize", run: func() (usage, error) {
			return measureCommand(other, []string{in("f16.gguf"), in("again.gguf"), typ, fmt.Sprint(threads)})
		}})
	}
	for range rounds {
		for _, l := range lines {
			for _, name := range []string{"merged.gguf", "again.gguf"} {
				os.Remove(in(name))
			}
			u, err := l.run()
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			l.took = l.took.better(u)
		}
	}
	group := fmt.Sprintf("merge into %s, of %.2f GB of F16, rank %d, %d threads", typ, float64(files.size)/1e9, mergeRank, threads)
	for _, l := range lines {
		r.add(figure{Group: group, Name: l.name, Value: l.took.seconds, Unit: "s"})
		r.add(figure{Group: group, Name: l.name + ": of processors", Value: l.took.processor, Unit: "s"})
		if strings.Contains(l.name, "quantize") && l.name != "requantize" {
			r.add(figure{Group: group, Name: l.name + " takes, times fit", Value: l.took.seconds / ours.took.seconds})
		}
	}
	return nil
}

// randomMoments has moments for the inputs of llama's matrices: 16 directions, each of less than the one before.
type randomMoments struct{ made map[string]kernel.Mat }

func (m *randomMoments) Moments(_ context.Context, tensor string) (rest []float32, z kernel.Mat, err error) {
	layer, kind, _ := strings.Cut(strings.TrimPrefix(tensor, "blk."), ".")
	n := benchWidth
	switch kind {
	case "attn_q.weight", "attn_k.weight", "attn_v.weight":
		kind = "attn"
	case "ffn_gate.weight", "ffn_up.weight":
		kind = "ffn"
	case "ffn_down.weight":
		n = benchInner
	}
	z, ok := m.made[layer+kind]
	if !ok {
		s := rng.New(3, layer, kind)
		z = kernel.NewMat(n, 16)
		for i := range z.Data {
			z.Data[i] = (2*s.Uniform(uint64(i)) - 1) / float32(1+i%16)
		}
		clear(m.made) // of inputs that do not come again
		m.made[layer+kind] = z
	}
	rest = make([]float32, n)
	for i := range rest {
		rest[i] = 0.05 * float32(1+math.Abs(math.Sin(float64(i))))
	}
	return rest, z, nil
}
