package model

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/graft-lora/graft/internal/rng"
)

// modelPath finds a model that ../shared/get-models fetched.
func modelPath(b testing.TB, file string) string {
	b.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		b.Skip(err)
	}
	path := filepath.Join(cache, "graft-models", file)
	if _, err := os.Stat(path); err != nil {
		b.Skipf("%s is not here: ../shared/get-models fetches it", path)
	}
	return path
}

func realModel(b testing.TB, file string, opt Options) *Model {
	b.Helper()
	return newModel(b, openModel(b, modelPath(b, file)), opt)
}

// randomAdapter has a pair of rank r for each matrix but embedding and head.
func randomAdapter(m *Model, r int, names ...string) *Adapter {
	a := NewAdapter()
	if names == nil {
		for _, n := range m.Matrices() {
			if n != embedName && n != headName {
				names = append(names, n)
			}
		}
	}
	for _, n := range names {
		out, in, ok := m.MatrixDims(n)
		if !ok {
			var e int
			e, out, in, _ = m.StackDims(n)
			a.Pairs[n] = &Pair{A: randomMat(e*r, in, 0.1, "A", n), B: randomMat(e*out, r, 0.1, "B", n), Scale: 0.5}
			continue
		}
		p := &Pair{A: randomMat(r, in, 0.1, "A", n), B: randomMat(out, r, 0.1, "B", n), Scale: 0.5}
		a.Pairs[n] = p
	}
	return a
}

// BenchmarkStep is a forward and backward pass over 512 tokens, half of them
// trained, rank 16, with layers recomputed and kept.
func BenchmarkStep(b *testing.B) {
	for name, file := range map[string]string{"SmolLM2": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3": "gemma-3-270m-q4_k_m.gguf"} {
		for mode, opt := range map[string]Options{"recomputed": {}, "attention": {KeepAttention: true}, "kept": {KeepLayers: -1}} {
			b.Run(name+"/"+mode, func(b *testing.B) {
				m := realModel(b, file, opt)
				a := randomAdapter(m, 16)
				g := NewGrads(a)
				batch := randomBatch(m.Vocab, 512)
				for t := range 256 {
					batch.Targets[t] = Untrained
				}
				if _, err := m.LossAndGrad(batch, a, g); err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					m.LossAndGrad(batch, a, g)
				}
				b.ReportMetric(512*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}

// BenchmarkGenerate is one token after a prompt of 64.
func BenchmarkGenerate(b *testing.B) {
	m := realModel(b, "SmolLM2-135M-Instruct.Q4_1.gguf", Options{})
	s, err := m.NewSession(2048)
	if err != nil {
		b.Fatal(err)
	}
	ids := randomBatch(m.Vocab, 64).IDs
	s.Append(ids)
	start, n := time.Now(), 0
	for b.Loop() {
		if s.Len() == 2048 {
			s.Reset()
		}
		s.Append(ids[:1])
		n++
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "tokens/s")
}

// randomBatch has one sequence for each length, the last token of each untrained.
func randomBatch(vocab int, lens ...int) *Batch {
	b := &Batch{Lens: lens}
	s := rng.New(5, "ids")
	for _, n := range lens {
		for range n {
			b.IDs = append(b.IDs, int32(s.Uint64(uint64(len(b.IDs)))%uint64(vocab)))
		}
	}
	b.Targets = ShiftLabels(b.IDs, lens)
	return b
}
