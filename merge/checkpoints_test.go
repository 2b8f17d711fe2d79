package merge

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/diffusion"
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
			}
		})
	}
}
