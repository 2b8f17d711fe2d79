package merge

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/quant"
)

type array struct {
	shape []int64
	data  []float32
}

func randomArray(r *rand.Rand, shape ...int64) array {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	a := array{shape, make([]float32, n)}
	for i := range a.data {
		a.data[i] = float32(0.1 * r.NormFloat64())
	}
	return a
}

// writeArrays writes float32 tensors into a safetensors file.
func writeArrays(t *testing.T, path string, arrays map[string]array) {
	t.Helper()
	var plan format.Plan
	var names []string
	for name := range arrays {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		a := arrays[name]
		o := &format.Output{Name: name, Type: format.F32, Shape: a.shape, Units: int64(len(a.data)), UnitBytes: 4}
		o.Fill = func(dst []byte, unit int64) error {
			for i := range len(dst) / 4 {
				b := math.Float32bits(a.data[int(unit)+i])
				dst[4*i], dst[4*i+1], dst[4*i+2], dst[4*i+3] = byte(b), byte(b>>8), byte(b>>16), byte(b>>24)
			}
			return nil
		}
		plan.Outputs = append(plan.Outputs, o)
	}
	w, err := safetensors.Create(path, &plan, nil, safetensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := format.Run(context.Background(), &plan, w, format.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestStored merges an adapter with every kind of part into a model that is seen as it
// stands, and writes and reads the adapter in kohya's form on the way.
func TestStored(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	const h, rank = 12, 3
	base := map[string]array{
		"model.diffusion_model.double_blocks.0.img_attn.qkv.weight":   randomArray(r, 3*h, h),
		"model.diffusion_model.double_blocks.0.img_attn.qkv.bias":     randomArray(r, 3*h),
		"model.diffusion_model.single_blocks.0.linear1.weight":        randomArray(r, 7*h, h),
		"model.diffusion_model.input_blocks.1.0.in_layers.2.weight":   randomArray(r, h, 5, 3, 3),
		"model.diffusion_model.norm.weight":                           randomArray(r, h),
		"model.diffusion_model.out.weight":                            randomArray(r, h, 2*h),
		"model.diffusion_model.untouched.weight":                      randomArray(r, 5),
		"model.diffusion_model.final_layer.adaLN_modulation.1.weight": randomArray(r, 2*h, h),
		"model.diffusion_model.final_layer.adaLN_modulation.1.bias":   randomArray(r, 2*h),
	}
	parts := map[string]array{
		"lora_unet_transformer_blocks_0_attn_to_k.lora_down.weight": randomArray(r, rank, h),
		"lora_unet_transformer_blocks_0_attn_to_k.lora_up.weight":   randomArray(r, h, rank),
		"lora_unet_transformer_blocks_0_attn_to_k.alpha":            {nil, []float32{6}},
		"lora_unet_double_blocks_0_img_attn_qkv.diff_b":             randomArray(r, 3*h),
		"lora_unet_single_transformer_blocks_0_proj_mlp.diff":       randomArray(r, 4*h, h),
		"lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight":  randomArray(r, rank, 5, 3, 3),
		"lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight":    randomArray(r, h, rank, 1, 1),
		"lora_unet_norm.w_norm":                                     randomArray(r, h),
		"lora_unet_out.lora_down.weight":                            randomArray(r, rank, 2*h),
		"lora_unet_out.lora_up.weight":                              randomArray(r, h, rank),
		"lora_unet_out.dora_scale":                                  randomArray(r, 1, 2*h),
		"lora_unet_norm_out_linear.lora_down.weight":                randomArray(r, rank, h),
		"lora_unet_norm_out_linear.lora_up.weight":                  randomArray(r, 2*h, rank),
		"lora_unet_norm_out_linear.diff_b":                          randomArray(r, 2*h),
	}
	dir := t.TempDir()
	writeArrays(t, filepath.Join(dir, "base.safetensors"), base)
	writeArrays(t, filepath.Join(dir, "lora.safetensors"), parts)

	// What is wanted, in float64.
	want := map[string][]float64{}
	for name, a := range base {
		for _, x := range a.data {
			want[name] = append(want[name], float64(x))
		}
	}
	product := func(module string, scale float64) []float64 {
		up, down := parts[module+".lora_up.weight"], parts[module+".lora_down.weight"]
		out, in := int(up.shape[0]), len(down.data)/rank
		d := make([]float64, out*in)
		for i := range out {
			for k := range rank {
				for j := range in {
					d[i*in+j] += scale * float64(up.data[i*rank+k]) * float64(down.data[k*in+j])
				}
			}
		}
		return d
	}
	add := func(name string, at int, d []float64) {
		for i, x := range d {
			want["model.diffusion_model."+name][at+i] += x
		}
	}
	wide := func(a array) (d []float64) {
		for _, x := range a.data {
			d = append(d, float64(x))
		}
		return d
	}
	add("double_blocks.0.img_attn.qkv.weight", h*h, product("lora_unet_transformer_blocks_0_attn_to_k", 2))
	add("double_blocks.0.img_attn.qkv.bias", 0, wide(parts["lora_unet_double_blocks_0_img_attn_qkv.diff_b"]))
	add("single_blocks.0.linear1.weight", 3*h*h, wide(parts["lora_unet_single_transformer_blocks_0_proj_mlp.diff"]))
	add("input_blocks.1.0.in_layers.2.weight", 0, product("lora_unet_down_blocks_0_resnets_0_conv1", 1))
	add("norm.weight", 0, wide(parts["lora_unet_norm.w_norm"]))
	last := product("lora_unet_norm_out_linear", 1) // diffusers' halves: scale and shift
	add("final_layer.adaLN_modulation.1.weight", 0, last[h*h:])
	add("final_layer.adaLN_modulation.1.weight", h*h, last[:h*h])
	last = wide(parts["lora_unet_norm_out_linear.diff_b"])
	add("final_layer.adaLN_modulation.1.bias", 0, last[h:])
	add("final_layer.adaLN_modulation.1.bias", h, last[:h])
	add("out.weight", 0, product("lora_unet_out", 1))
	w := want["model.diffusion_model.out.weight"]
	for j := range 2 * h {
		var sum float64
		for i := range h {
			sum += w[i*2*h+j] * w[i*2*h+j]
		}
		for i := range h {
			w[i*2*h+j] *= float64(parts["lora_unet_out.dora_scale"].data[j]) / math.Sqrt(sum)
		}
	}

	stored, err := arch.Open(filepath.Join(dir, "base.safetensors"), arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	m, err := stored.Flat()
	if err != nil {
		t.Fatal(err)
	}
	check := func(path string) {
		t.Helper()
		a, err := adapter.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		ds, err := NewDeltas(m, []Weighted{{a, 1}})
		if err != nil {
			t.Fatal(err)
		}
		sum, err := Apply(m, ds)
		if err != nil {
			t.Fatal(err)
		}
		if len(ds) != 8 {
			t.Errorf("%s changes %d tensors, want 8", path, len(ds))
		}
		for _, v := range sum.Views {
			rows, cols := v.Rows.Dims()
			got := make([]float32, rows*cols)
			if err := v.Rows.ReadRows(got, 0); err != nil {
				t.Fatal(err)
			}
			worst := 0.0
			for i, x := range got {
				worst = max(worst, math.Abs(float64(x)-want[v.Name][i]))
			}
			if worst > 1e-6 {
				t.Errorf("%s: %s is off by %g", filepath.Base(path), v.Name, worst)
			}
		}
	}
	check(filepath.Join(dir, "lora.safetensors"))

	a, err := adapter.Open(filepath.Join(dir, "lora.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(dir, "again.safetensors")
	if err := adapter.WriteKohya(again, a, adapter.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	check(again)
	for name, write := range map[string]func(string, *adapter.Adapter, adapter.WriteOptions) error{"peft": adapter.WritePEFT, "mlx": adapter.WriteMLX, "x.gguf": adapter.WriteGGUF} {
		if err := a.Resolve(m); err != nil {
			t.Fatal(err)
		}
		if err := write(filepath.Join(dir, name), a, adapter.WriteOptions{}); err == nil {
			t.Errorf("%s takes what it cannot hold", name)
		}
	}
	// Resolved, with rows in the base's order, the same file comes of it; in diffusers' form
	// the last layer has the base's name and the order that goes with it.
	resolved := filepath.Join(dir, "resolved.safetensors")
	if err := adapter.WriteKohya(resolved, a, adapter.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	check(resolved)
	a.Pairs = slices.DeleteFunc(a.Pairs, func(p *adapter.Pair) bool { return !strings.Contains(p.Module, "norm_out") })
	dotted := filepath.Join(dir, "dotted.safetensors")
	if err := adapter.WriteDiffusers(dotted, a, adapter.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := adapter.Open(dotted)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Resolve(m); err != nil {
		t.Fatal(err)
	}
	for i, p := range b.Pairs {
		if p.Module != "diffusion_model.final_layer.adaLN_modulation.1" || !slices.Equal(p.B.Data, a.Pairs[i].B.Data) {
			t.Errorf("%s: other rows", p.Module)
		}
	}
}

// Parts that do not belong together are refused, by name.
func TestPartsThatDoNotFit(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for i, parts := range []map[string]array{
		{"lora_unet_a.lora_down.weight": randomArray(r, 2, 4)},
		{"lora_unet_a.lora_down.weight": randomArray(r, 2, 4), "lora_unet_a.lora_up.weight": randomArray(r, 4, 3)},
		{"lora_unet_a.lora_down.weight": randomArray(r, 2, 4), "lora_unet_a.lora_up.weight": randomArray(r, 4, 2), "lora_unet_a.diff": randomArray(r, 4, 4)},
		{"lora_unet_a.lora_down.weight": randomArray(r, 2, 4), "lora_unet_a.lora_up.weight": randomArray(r, 4, 2), "lora_unet_a.hada_t1": randomArray(r, 4, 4, 1, 1)},
		{"lora_unet_a.lora_down.weight": randomArray(r, 2, 4), "lora_unet_a.lora_up.weight": randomArray(r, 4, 2), "lora_unet_a.alpha": randomArray(r, 2)},
		{"lora_unet_a.lora_down.weight": randomArray(r, 2, 4), "lora_unet_a.lora_up.weight": randomArray(r, 4, 2), "lora_unet_a.dora_scale": randomArray(r, 3, 1)},
		{"lora_unet_a.hada_w1_a": randomArray(r, 4, 2), "lora_unet_a.hada_w1_b": randomArray(r, 2, 4), "lora_unet_a.hada_w2_a": randomArray(r, 4, 2)},
		{"lora_unet_a.hada_w1_a": randomArray(r, 4, 2), "lora_unet_a.hada_w1_b": randomArray(r, 2, 4), "lora_unet_a.hada_w2_a": randomArray(r, 5, 2), "lora_unet_a.hada_w2_b": randomArray(r, 2, 4)},
		{"lora_unet_a.lokr_w1": randomArray(r, 2, 2)},
		{"lora_unet_a.lokr_w1": randomArray(r, 2, 2), "lora_unet_a.lokr_w2_a": randomArray(r, 2, 2), "lora_unet_a.lokr_w2_b": randomArray(r, 3, 2)},
		{"lora_unet_a.a1.weight": randomArray(r, 4, 2), "lora_unet_a.a2.weight": randomArray(r, 2, 4), "lora_unet_a.b1.weight": randomArray(r, 4, 2)},
		{"lora_unet_a.oft_blocks": randomArray(r, 2, 2, 2)},
		{"lora_unet_a.lora_down.weight": randomArray(r, 2, 4), "lora_unet_a.nonsense": randomArray(r, 2)},
		{"lora_unet_a.alpha": randomArray(r), "lora_unet_b.lora_down.weight": randomArray(r, 2, 4), "lora_unet_b.lora_up.weight": randomArray(r, 4, 2)},
	} {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.safetensors", i))
		writeArrays(t, path, parts)
		a, err := adapter.Open(path)
		if err == nil {
			t.Errorf("case %d: %d pairs, no error", i, len(a.Pairs))
		} else {
			t.Log(err)
		}
	}
}

// TestFloat8Keep: in floats of 8 bits, too, a change far below a step is there on average,
// and a weight whose factor stands in another tensor is not touched.
func TestFloat8Keep(t *testing.T) {
	t.Parallel()
	const rows, cols = 64, 512
	for _, typ := range []format.Type{format.F8_E4M3, format.F8_E5M2} {
		f, _ := quant.Float8Of(typ)
		raw := make([]byte, rows*cols)
		delta := make([]float32, rows*cols)
		for i := range raw {
			raw[i] = f.Codes[40+i*7%160] // not the largest
			delta[i] = 0.01 * f.Values[raw[i]]
		}
		enc, err := openKeep(&target{name: "x", typ: typ, rows: rows, cols: cols, seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		whole := make([]byte, len(raw))
		if err := enc(whole, raw, delta, 0); err != nil {
			t.Fatal(err)
		}
		var rd, dd float64
		for i, d := range delta {
			r := float64(f.Values[whole[i]]) - float64(f.Values[raw[i]])
			rd += r * float64(d)
			dd += float64(d) * float64(d)
		}
		if gain := rd / dd; math.Abs(gain-1) > 0.1 {
			t.Errorf("%v: gain %.3f", typ, gain)
		}
		part := make([]byte, cols)
		if err := enc(part, raw[5*cols:6*cols], delta[5*cols:6*cols], 5); err != nil || !slices.Equal(part, whole[5*cols:6*cols]) {
			t.Errorf("%v: a row by itself is merged otherwise: %v", typ, err)
		}
		// Sums anywhere, by a search among the levels.
		d := rng.New(7, typ.String())
		for c := range 256 {
			w := f.Values[c]
			if w-w != 0 {
				continue
			}
			for j := range cols {
				x := 2*d.Uniform(uint64(j)) - 1
				raw[j] = uint8(c)
				switch j % 7 {
				case 0:
					delta[j] = f.Levels[int(d.Uint64(uint64(c*cols+j))%uint64(len(f.Levels)))] - w // a level itself
				case 1:
					delta[j] = x * 0x1p-20
				case 2:
					delta[j] = x * 1e5 // beyond the levels
				case 3:
					delta[j] = x * math.SmallestNonzeroFloat32 * 100
				case 4:
					delta[j] = 0
				default:
					delta[j] = x * max(w, -w, 0x1p-12)
				}
			}
			if err := enc(part, raw[:cols], delta[:cols], int64(c)); err != nil {
				t.Fatal(err)
			}
			dice := rng.New(1, "keep", "x")
			for j, got := range part {
				want := raw[j]
				if delta[j] != 0 {
					want = f.Codes[quant.RoundLevel(f.Levels, 0, float64(w)+float64(delta[j]), dice.Float64(uint64(c*cols+j)))]
				}
				if got != want {
					t.Fatalf("%v: %v and a change of %v make %v, want %v", typ, w, delta[j], f.Values[got], f.Values[want])
				}
			}
		}
		delta[3] = float32(math.NaN())
		if err := enc(whole, raw, delta, 0); err == nil {
			t.Errorf("%v: a change that is not a number was merged", typ)
		}
	}
	r := rand.New(rand.NewPCG(5, 6))
	dir := t.TempDir()
	writeArrays(t, filepath.Join(dir, "base.safetensors"), map[string]array{"a.b.weight": randomArray(r, 8, 8), "a.b.scale_weight": randomArray(r, 1)})
	writeArrays(t, filepath.Join(dir, "lora.safetensors"), map[string]array{"lora_unet_a_b.lora_down.weight": randomArray(r, 2, 8), "lora_unet_a_b.lora_up.weight": randomArray(r, 8, 2)})
	m, err := arch.Open(filepath.Join(dir, "base.safetensors"), arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	a, err := adapter.Open(filepath.Join(dir, "lora.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewDeltas(m, []Weighted{{a, 1}}); format.ExitStatus(err) != 4 {
		t.Error(err)
	}
}
