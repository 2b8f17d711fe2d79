package adapter

import (
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/safetensors"
)

// WriteKohya writes a as one safetensors file in the form of kohya's scripts and LyCORIS:
// names with underscores for dots, an alpha beside each pair. Convolutions, full
// differences, norms, biases and DoRA of either axis can stand in it. a must be resolved,
// unless it came from such a file.
func WriteKohya(path string, a *Adapter, opt WriteOptions) error {
	return a.writeOne(path, opt, kohyaName, map[string]string{"A": ".lora_down.weight", "B": ".lora_up.weight"})
}

// WriteDiffusers writes a as one safetensors file with dotted names and lora_A and lora_B,
// as diffusers and ComfyUI read it. Names come from the base, which a must be resolved
// against, unless the source has dotted names itself.
func WriteDiffusers(path string, a *Adapter, opt WriteOptions) error {
	return a.writeOne(path, opt, a.dottedName, map[string]string{"A": ".lora_A.weight", "B": ".lora_B.weight"})
}

// kohyaName is the flattened name of a pair's module.
func kohyaName(p *Pair) (name string, base bool, err error) {
	if !strings.Contains(p.Module, ".") && plainName(p.Module) != p.Module {
		return p.Module, false, nil // it is one
	}
	for _, part := range []struct{ dotted, prefix string }{
		{"text_encoder_2.", "lora_te2_"}, {"text_encoder.", "lora_te1_"},
		{"transformer.", "lora_unet_"}, {"unet.", "lora_unet_"}, {"diffusion_model.", "lora_unet_"}, {"model.diffusion_model.", "lora_unet_"},
	} {
		if rest, ok := strings.CutPrefix(p.Module, part.dotted); ok {
			return part.prefix + strings.ReplaceAll(rest, ".", "_"), false, nil
		}
	}
	if p.Module == "" {
		return "", false, errUnresolved
	}
	return "lora_te_" + strings.ReplaceAll(p.Module, ".", "_"), false, nil
}

// dottedName is the name of a pair's module: its own, or as the base has it.
func (a *Adapter) dottedName(p *Pair) (name string, base bool, err error) {
	if strings.Contains(p.Module, ".") {
		return p.Module, false, nil
	}
	if p.Target == "" {
		return "", false, errUnresolved
	}
	if p.part {
		return "", false, format.Unsupported("%s is a part of the tensor %s: its name is not told by the base", p.Module, p.Target)
	}
	name = strings.TrimSuffix(strings.TrimSuffix(p.Target, ".weight"), ".bias")
	if rest, ok := strings.CutPrefix(name, "model.diffusion_model."); ok {
		name = "diffusion_model." + rest
	}
	return name, true, nil
}

// writeOne writes all pairs into one file. nameOf also says whether a name is the base's.
func (a *Adapter) writeOne(path string, opt WriteOptions, nameOf func(*Pair) (string, bool, error), endings map[string]string) error {
	if !a.resolved && a.Format != "kohya" && a.Format != "diffusers" {
		return errUnresolved
	}
	if err := a.noTokens("a file of pairs"); err != nil {
		return err
	}
	if len(a.Pairs) == 0 {
		return errEmpty
	}
	if err := a.everywhere("one file of pairs"); err != nil {
		return err
	}
	plan := &format.Plan{}
	put := func(name string, typ format.Type, shape []int64, m Matrix) error {
		return output(plan, name, typ, shape, m)
	}
	pairs := slices.Clone(a.Pairs)
	slices.SortStableFunc(pairs, func(x, y *Pair) int { return strings.Compare(x.Module, y.Module) })
	for _, p := range pairs {
		if p.onBase != nil {
			return p.complete()
		}
		if p.Expert >= 0 {
			return format.Unsupported("%s: one file of pairs cannot hold an adapter of single experts", name(p))
		}
		key, base, err := nameOf(p)
		if err != nil {
			return err
		}
		if !base {
			p = p.asNamed()
		}
		b, magnitude := a.hf(p)
		if p.Vector {
			ending := ".w_norm"
			if p.suffix != "" || strings.HasSuffix(p.Target, "bias") {
				ending = ".diff_b"
			}
			v := product(b, p.A)
			for i := range v.Data {
				v.Data[i] *= p.Scale
			}
			if at := a.toHF[p.Target]; at != nil {
				v = v.transposed().ordered(at).transposed()
			}
			if err := put(key+ending, opt.Type, []int64{int64(v.Cols)}, v); err != nil {
				return err
			}
			continue
		}
		down, up := dims(p.A), dims(b)
		if len(p.Kernel) > 0 {
			down = append([]int64{int64(p.A.Rows), int64(p.A.Cols / size(p.Kernel))}, p.Kernel...)
			for range p.Kernel {
				up = append(up, 1)
			}
		}
		// A row of a convolution's kernel is shorter than the matrix's: it is given as it stands.
		if err := put(key+endings["A"], opt.Type, down, reshape(p.A, down)); err != nil {
			return err
		}
		if err := put(key+endings["B"], opt.Type, up, reshape(b, up)); err != nil {
			return err
		}
		alpha := Matrix{Rows: 1, Cols: 1, Data: []float32{float32(p.Alpha())}}
		if err := put(key+".alpha", format.F32, []int64{}, alpha); err != nil {
			return err
		}
		if magnitude != nil {
			m := Matrix{Rows: len(magnitude), Cols: 1, Data: magnitude}
			if p.Columns {
				m = Matrix{Rows: 1, Cols: len(magnitude), Data: magnitude}
			}
			if err := put(key+".dora_scale", opt.Type, dims(m), m); err != nil {
				return err
			}
		}
	}
	metadata := opt.extra(a)
	metadata["format"] = "pt"
	w, err := safetensors.Create(path, plan, metadata, safetensors.WriteOptions{Force: opt.Force, MetadataKeys: []string{"format"}})
	if err != nil {
		return err
	}
	return carry(plan, w)
}

// reshape sees m's numbers as a tensor of that shape, whose last dimension makes the rows.
func reshape(m Matrix, shape []int64) Matrix {
	cols := int(shape[len(shape)-1])
	return Matrix{Rows: len(m.Data) / cols, Cols: cols, Data: m.Data}
}

// WriteMLX writes a as an adapter folder of mlx-lm: transposed matrices and one scale, into
// which what differs of each pair's is folded (into B); smaller ranks are filled up with
// zeros, since one rank holds for all. a must be resolved, unless it came from PEFT or MLX.
func WriteMLX(dir string, a *Adapter, opt WriteOptions) error {
	if !a.resolved && (a.native || a.Format != "peft" && a.Format != "mlx") {
		return errUnresolved
	}
	if err := a.noTokens("an MLX folder"); err != nil {
		return err
	}
	if len(a.Pairs) == 0 {
		return errEmpty
	}
	if err := a.everywhere("an MLX folder"); err != nil {
		return err
	}
	pairs := slices.Clone(a.Pairs)
	slices.SortStableFunc(pairs, func(x, y *Pair) int { return strings.Compare(x.Module, y.Module) })
	var scales []float32
	rank, layers, dora := 0, 0, 0
	for _, p := range pairs {
		if err := onlyLoRA(p, "an MLX folder"); err != nil {
			return err
		}
		if p.Expert >= 0 || p.embedding {
			return format.Unsupported("an MLX folder written by graft cannot hold %s: an embedding, or a single expert", name(p))
		}
		scales, rank = append(scales, p.Scale), max(rank, p.Rank)
		if n, ok := layerOf(p.Module); ok {
			layers = max(layers, n+1)
		}
		if p.Magnitude != nil {
			dora++
		}
	}
	if dora != 0 && dora != len(pairs) {
		return format.Unsupported("MLX has DoRA for all modules or for none; here %d of %d have it", dora, len(pairs))
	}
	scale := common(scales)
	if scale == 0 {
		scale = 1
	}
	plan := &format.Plan{}
	keys := map[string]bool{}
	for _, p := range pairs {
		b, magnitude := a.hf(p)
		at, bt := p.A.transposed().widened(rank), b.transposed()
		if f := p.Scale / scale; f != 1 {
			for i := range bt.Data {
				bt.Data[i] *= f
			}
		}
		for bt.Rows < rank {
			bt.Data = append(bt.Data, make([]float32, bt.Cols)...)
			bt.Rows++
		}
		if err := output(plan, p.Module+".lora_a", opt.Type, dims(at), at); err != nil {
			return err
		}
		if err := output(plan, p.Module+".lora_b", opt.Type, dims(bt), bt); err != nil {
			return err
		}
		if magnitude != nil {
			m := Matrix{Rows: 1, Cols: len(magnitude), Data: magnitude}
			if err := output(plan, p.Module+".m", opt.Type, []int64{int64(m.Cols)}, m); err != nil {
				return err
			}
		}
		keys[inLayer(p.Module)] = true
	}
	kind := "lora"
	if dora > 0 {
		kind = "dora"
	}
	config, err := mlxConfig(kind, layers, rank, scale, opt.Dropout, keys)
	if err != nil {
		return err
	}
	return writeFolder(dir, mlxWeightsName, plan, opt.extra(a), config, opt)
}

// widened is m with columns of zeros up to cols.
func (m Matrix) widened(cols int) Matrix {
	if m.Cols >= cols {
		return m
	}
	w := Matrix{Rows: m.Rows, Cols: cols, Data: make([]float32, m.Rows*cols)}
	for i := range m.Rows {
		copy(w.Row(i), m.Row(i))
	}
	return w
}
