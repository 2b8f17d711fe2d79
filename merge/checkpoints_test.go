package merge

import (
	"context"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/diffusion"
	"github.com/graft-lora/graft/internal/kernel"
)

// TestCheckpoints merges adapters with the names of all modules, as kohya's scripts and
// diffusers have them, into checkpoints with all of their blocks, of a small width.
func TestCheckpoints(t *testing.T) {
	t.Parallel()
	const rank = 2
	for name, c := range map[string]struct {
		tensors    []diffusion.Tensor
		real       []diffusion.Tensor
		parameters int64 // of the real one
	}{
		"flux": {diffusion.FLUX(12), diffusion.FLUX(3072), 11901408320},
		"wan":  {diffusion.Wan(20), diffusion.Wan(5120), 16394878784},
		"sdxl": {diffusion.SDXL(10), diffusion.SDXL(320), 2567463684},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if n := diffusion.Parameters(c.real); n != c.parameters {
				t.Errorf("%d parameters, want %d", n, c.parameters)
			}
			r := rand.New(rand.NewPCG(1, 2))
			dir := t.TempDir()
			base := map[string]array{}
			for _, x := range c.tensors {
				base[x.Name] = randomArray(r, x.Shape...)
			}
			writeArrays(t, filepath.Join(dir, "base.safetensors"), base)
			stored, err := arch.Open(filepath.Join(dir, "base.safetensors"), arch.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer stored.Close()
			m, err := stored.Flat()
			if err != nil {
				t.Fatal(err)
			}
			for _, form := range []struct {
				name      string
				diffusers bool
				module    func(string) string
				down, up  string
			}{
				{"kohya", false, diffusion.Kohya, ".lora_down.weight", ".lora_up.weight"},
				{"kohya, of diffusers' names", true, diffusion.Kohya, ".lora_down.weight", ".lora_up.weight"},
				{"diffusers", true, func(m string) string { return "transformer." + m }, ".lora_A.weight", ".lora_B.weight"},
				{"ComfyUI", false, func(m string) string { return "diffusion_model." + m }, ".lora_A.weight", ".lora_B.weight"},
			} {
				parts := diffusion.Adapter(c.tensors, form.diffusers)
				file := map[string]array{}
				for _, p := range parts {
					ones := make([]int64, len(p.Kernel))
					for i := range ones {
						ones[i] = 1
					}
					file[form.module(p.Module)+form.down] = randomArray(r, append([]int64{rank, p.In}, p.Kernel...)...)
					file[form.module(p.Module)+form.up] = randomArray(r, append([]int64{p.Out, rank}, ones...)...)
				}
				path := filepath.Join(dir, form.name+".safetensors")
				writeArrays(t, path, file)
				a, err := adapter.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				if len(a.Pairs) != len(parts) {
					t.Errorf("%s: %d pairs of %d", form.name, len(a.Pairs), len(parts))
				}
				ds, err := NewDeltas(m, []Weighted{{a, 1}})
				if err != nil {
					t.Fatalf("%s: %v", form.name, err)
				}
				sum, err := Apply(m, ds)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range parts {
					v := sum.View(p.Tensor)
					_, cols := v.Rows.Dims()
					got := make([]float32, p.Out*cols)
					if err := v.Rows.ReadRows(got, p.FirstRow); err != nil {
						t.Fatal(err)
					}
					up, down := file[form.module(p.Module)+form.up].data, file[form.module(p.Module)+form.down].data
					was := base[p.Tensor].data[p.FirstRow*cols:]
					for i := range p.Out {
						from := i
						if p.SwappedRows {
							from = (i + p.Out/2) % p.Out
						}
						for j := range cols {
							want := float64(was[i*cols+j])
							for k := range int64(rank) {
								want += float64(up[from*rank+k]) * float64(down[k*cols+j])
							}
							if math.Abs(want-float64(got[i*cols+j])) > 1e-6 {
								t.Fatalf("%s: %s, row %d, column %d is %g, want %g", form.name, p.Module, i, j, got[i*cols+j], want)
							}
						}
					}
				}
				t.Logf("%s: %d modules", form.name, len(parts))
				if form.name == "kohya" {
					extractedAgain(t, m, sum, rank, len(parts))
				}
			}
		})
	}
}

// extractedAgain extracts the adapter that makes sum of m, writes it as other programs name its modules, and merges it: sum comes out.
func extractedAgain(t *testing.T, m, sum *arch.Model, rank, modules int) {
	t.Helper()
	a, _, err := Extract(context.Background(), m, sum, ExtractOptions{Cut: Cut{Rank: rank}, Noise: true, Vectors: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Resolve(m); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "extracted.safetensors")
	if err := adapter.WriteKohya(path, a, adapter.WriteOptions{Type: format.F32}); err != nil {
		t.Fatal(err)
	}
	if a, err = adapter.Open(path); err != nil || len(a.Pairs) != modules {
		t.Fatalf("extracted %d modules of %d, %v", len(a.Pairs), modules, err)
	}
	ds, err := NewDeltas(m, []Weighted{{a, 1}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Apply(m, ds)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Diff(context.Background(), sum, again, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range d.Tensors {
		if x.NMSE > 1e-10 {
			t.Errorf("%s: of what was extracted %g is missing", x.Name, x.NMSE)
		}
	}
}

// TestCheckpointGGUF merges into GGUF files as ComfyUI-GGUF has them: FLUX with its matrices
// in Q8_0, and the convolutions of SDXL in rows of 256, which are not their matrices'.
func TestCheckpointGGUF(t *testing.T) {
	t.Parallel()
	const rank = 2
	for name, tensors := range map[string][]diffusion.Tensor{"flux": diffusion.FLUX(64), "sdxl": diffusion.SDXL(20)} {
		r := rand.New(rand.NewPCG(3, 4))
		meta := &gguf.Meta{}
		meta.Set("general.architecture", name)
		meta.Set("general.file_type", uint32(7))
		plan := &format.Plan{}
		base := map[string]array{}
		matrices := 0
		for _, x := range tensors {
			name := strings.TrimPrefix(x.Name, "model.diffusion_model.")
			a := randomArray(r, x.Shape...)
			base[name] = a
			shape, typ := x.Shape, format.F32
			if n := int64(len(a.data)); len(x.Shape) == 4 && n%256 == 0 {
				meta.Set("comfy.gguf.orig_shape."+name, x.Shape)
				shape, typ = []int64{n / 256, 256}, format.Q8_0
			} else if len(x.Shape) == 2 && x.Shape[1]%32 == 0 {
				typ = format.Q8_0
			}
			if len(x.Modules) > 0 {
				matrices++
			}
			cols := shape[len(shape)-1]
			o, err := format.NewOutput(name, typ, shape, matrix{kernel.Mat{Data: a.data, Rows: len(a.data) / int(cols), Cols: int(cols), Stride: int(cols)}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			plan.Outputs = append(plan.Outputs, o)
		}
		path := filepath.Join(t.TempDir(), name+".gguf")
		w, err := gguf.Create(path, meta, plan, gguf.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := format.Run(t.Context(), plan, w, format.RunOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		stored, err := arch.Open(path, arch.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer stored.Close()
		m, err := stored.Flat()
		if err != nil {
			t.Fatal(err)
		}
		file := map[string]array{}
		for _, p := range diffusion.Adapter(tensors, false) {
			up := []int64{p.Out, rank}
			for range p.Kernel {
				up = append(up, 1)
			}
			file[diffusion.Kohya(p.Module)+".lora_down.weight"] = randomArray(r, append([]int64{rank, p.In}, p.Kernel...)...)
			file[diffusion.Kohya(p.Module)+".lora_up.weight"] = randomArray(r, up...)
		}
		lora := filepath.Join(t.TempDir(), "lora.safetensors")
		writeArrays(t, lora, file)
		a, err := adapter.Open(lora)
		if err != nil {
			t.Fatal(err)
		}
		ds, err := NewDeltas(m, []Weighted{{a, 1}})
		if err != nil {
			t.Fatal(err)
		}
		if len(ds) != matrices {
			t.Errorf("%s: %d tensors of %d are changed", name, len(ds), matrices)
		}
		out, report, err := NewPlan(m, ds, Options{})
		if err != nil {
			t.Fatal(err)
		}
		merged, err := gguf.Create(filepath.Join(t.TempDir(), "merged.gguf"), m.FileMeta(), out, gguf.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := format.Run(t.Context(), out, merged, format.RunOptions{}); err != nil {
			t.Fatal(err)
		}
		merged.Abort()
		report.Finish()
		if g := report.Total.Gain; math.Abs(g-1) > 0.01 || report.Total.Correlation < 0.99 {
			t.Errorf("%s: %+v", name, report.Total)
		}
		// The convolution's change, value for value.
		for _, p := range diffusion.Adapter(tensors, false) {
			v := m.View(strings.TrimPrefix(p.Tensor, "model.diffusion_model."))
			if !reshaped(v) {
				continue
			}
			d := ds[v.Name]
			up, down := file[diffusion.Kohya(p.Module)+".lora_up.weight"].data, file[diffusion.Kohya(p.Module)+".lora_down.weight"].data
			got, none := make([]float32, 3*d.Cols), make([]float32, 3*d.Cols)
			d.Change(got, none, 1)
			for i, x := range got {
				at := int(d.Cols) + i
				row, col := at/int(v.Shape[1]), at%int(v.Shape[1])
				var want float64
				for k := range rank {
					want += float64(up[row*rank+k]) * float64(down[k*int(v.Shape[1])+col])
				}
				if math.Abs(want-float64(x)) > 1e-6 {
					t.Fatalf("%s: value %d is %g, want %g", v.Name, at, x, want)
				}
			}
			break
		}
	}
}

// matrix lets a matrix in memory be read by rows.
type matrix struct{ kernel.Mat }

func (m matrix) Dims() (rows, cols int64) { return int64(m.Rows), int64(m.Cols) }
func (m matrix) ReadRows(dst []float32, row int64) error {
	m.DecodeRows(dst, int(row))
	return nil
}
