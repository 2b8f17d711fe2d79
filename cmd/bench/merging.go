package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

// ours is the place of graft among the commands that merging times; the one after it does not sync.
const ours = 2

// mergeRank is that of the adapter that is merged, of all matrices of the layers.
const mergeRank = 16

// mergeFiles are what merges are timed with, in a folder of their own: graft, f16.gguf of random
// weights, and adapter.gguf, an adapter of all matrices of its layers.
type mergeFiles struct {
	dir, graft string
	size       int64   // of f16.gguf
	flops      float64 // of the adapter's products
}

func newMergeFiles(layers int) (m *mergeFiles, err error) {
	m = &mergeFiles{}
	if m.dir, err = os.MkdirTemp("", "graft-bench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.remove()
		}
	}()
	if m.graft, err = buildGraft(m.dir); err != nil {
		return nil, err
	}
	if m.size, err = writeRandomModel(m.in("f16.gguf"), m.in("imatrix.gguf"), layers, 0); err != nil {
		return nil, err
	}
	m.flops, err = writeRandomAdapter(m.in("f16.gguf"), m.in("adapter.gguf"))
	return m, err
}

func (m *mergeFiles) in(name string) string { return filepath.Join(m.dir, name) }
func (m *mergeFiles) remove()               { os.RemoveAll(m.dir) }

// merging times a merge of an F16 file of random weights, file to file, in turn with cp of
// it, without and with a sync of the copy (graft syncs what it writes, unless told not to), and, if LLAMA_EXPORT_LORA
// names a llama-export-lora, with that. Before each the disk has nothing left to do. The goal is
// the time of cp, times 1.3, and that of the arithmetic at 60 % of the peak.
func merging(r *report, layers, rounds, threads int) error {
	m, err := newMergeFiles(layers)
	if err != nil {
		return err
	}
	defer m.remove()
	in, graft, size, flops := m.in, m.graft, m.size, m.flops
	group := fmt.Sprintf("merge, %.2f GB of F16, rank %d, %d threads", float64(size)/1e9, mergeRank, threads)
	merge := []string{"--quiet", "--threads", fmt.Sprint(threads), "merge", in("f16.gguf"), in("adapter.gguf"), "-o", in("merged.gguf"), "--force", "--no-check"}
	commands := []struct {
		name, path string
		args       []string
	}{
		{"cp", "cp", []string{in("f16.gguf"), in("copy.gguf")}},
		{"cp and sync", "sh", []string{"-c", `cp "$1" "$2" && sync "$2"`, "sh", in("f16.gguf"), in("copy.gguf")}},
		{"graft merge", graft, merge},
		{"graft merge --no-sync", graft, append(slices.Clone(merge), "--no-sync")},
	}
	if other := os.Getenv("LLAMA_EXPORT_LORA"); other != "" {
		commands = append(commands, struct {
			name, path string
			args       []string
		}{"llama-export-lora", other, []string{"-m", in("f16.gguf"), "--lora", in("adapter.gguf"), "-o", in("exported.gguf"), "-t", fmt.Sprint(threads)}})
	}
	took := make([]usage, len(commands))
	for range rounds {
		for i, c := range commands {
			for _, name := range []string{"copy.gguf", "merged.gguf", "exported.gguf"} {
				os.Remove(in(name))
			}
			if err := exec.Command("sync").Run(); err != nil {
				return fmt.Errorf("sync: %w", err)
			}
			u, err := measureCommand(c.path, c.args)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			took[i] = took[i].better(u)
		}
	}
	for i, c := range commands {
		r.add(figure{Group: group, Name: c.name, Value: took[i].seconds, Unit: "s"})
		r.add(figure{Group: group, Name: c.name + ": peak of its own", Value: float64(took[i].own) / 1e6, Unit: "MB"})
		if i > ours+1 {
			r.add(figure{Group: group, Name: c.name + " takes, times ours", Value: took[i].seconds / took[ours].seconds})
		}
	}
	peak := kernel.MeasurePeak(cpu.Current()) * float64(threads)
	arithmetic := flops / (0.6 * peak * 1e9)
	for i, name := range []string{"cp", "cp and sync"} {
		goal := 1.3*took[i].seconds + arithmetic
		like := commands[ours+1-i] // which waits for the disk as that does
		r.add(figure{Group: group, Name: "1.3 times " + name + ", and the arithmetic at 60 % of the peak", Value: goal, Unit: "s", Share: took[ours+1-i].seconds / goal, Of: "that is " + like.name})
	}
	return nil
}

// writeRandomAdapter writes an adapter of all matrices of a model's layers and returns the
// operations that its product takes.
func writeRandomAdapter(base, path string) (flops float64, err error) {
	m, err := arch.Open(base, arch.Options{NoVocab: true})
	if err != nil {
		return 0, err
	}
	defer m.Close()
	var pairs []*adapter.Pair
	for _, v := range m.Views {
		rows, cols := v.Rows.Dims()
		if len(v.Shape) != 2 || v.Name == "token_embd.weight" || v.Name == "output.weight" {
			continue
		}
		matrix := func(name string, rows, cols int, scale float64) adapter.Matrix {
			s := rng.New(2, v.Name, name)
			x := adapter.Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}
			for i := range x.Data {
				x.Data[i] = (2*s.Uniform(uint64(i)) - 1) * float32(scale)
			}
			return x
		}
		pairs = append(pairs, &adapter.Pair{Target: v.Name, Expert: -1, Rank: mergeRank, Scale: 2,
			A: matrix("a", mergeRank, int(cols), 1/math.Sqrt(float64(cols))), B: matrix("b", int(rows), mergeRank, 0.002)})
		flops += 2 * mergeRank * float64(rows) * float64(cols)
	}
	a := adapter.New("random", m.Arch, pairs)
	if err := a.Resolve(m); err != nil {
		return 0, err
	}
	return flops, adapter.WriteGGUF(path, a, adapter.WriteOptions{Type: format.F16})
}
