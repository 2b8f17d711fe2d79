package arch

import (
	"fmt"
	"math"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/fmath"
)

// ropeTensors emits the tensors that hold the frequencies of scaled rope, and the
// key that goes with longrope.
func (b *builder) ropeTensors() error {
	r := b.h.globalRope()
	if b.h.table.modelType == "phi3" {
		return b.longRope()
	}
	if strings.ToLower(r.str("rope_type")) == "llama3" {
		if b.h.table.Rope != Norm {
			return format.Unsupported("rope_type llama3 in %s", b.h.table.modelType)
		}
		b.vector("rope_freqs.weight", llama3Factors(r, b.h.headDim()), "computed from rope_scaling llama3")
	}
	return nil
}

func (b *builder) vector(name string, v []float32, why string) {
	b.seen[name] = "config.json"
	b.views = append(b.views, &format.View{Name: name, Type: format.F32, Shape: []int64{int64(len(v))}, Rows: vector(v), Why: why})
}

// llama3Factors gives, for each of dim/2 frequencies, what it is divided by: 1 for
// short waves, the factor for long ones, and a blend between. All steps are in
// float32, as the reference converter does them.
func llama3Factors(r *hparams, dim int64) []float32 {
	get := func(key string, def float64) float32 {
		if f, ok := r.float(key); ok {
			return float32(f)
		}
		return float32(def)
	}
	return llama3Table(get("rope_theta", 10000), get("factor", 8), get("low_freq_factor", 1), get("high_freq_factor", 4),
		get("original_max_position_embeddings", 8192), dim)
}

func llama3Table(base, factor, low, high, orig float32, dim int64) []float32 {
	lowLen, highLen := orig/low, orig/high
	out := make([]float32, dim/2)
	for i := range out {
		exp := float32(2*i) / float32(dim)
		freq := 1 / float32(fmath.Pow(float64(base), float64(exp)))
		wave := float32(2*math.Pi) / freq
		switch {
		case wave < highLen:
			out[i] = 1
		case wave > lowLen:
			out[i] = factor
		default:
			smooth := float32(float32(orig/wave)-low) / float32(high-low)
			out[i] = 1 / (float32(float32(1-smooth)/factor) + smooth)
		}
	}
	return out
}

// longRope emits the factors of Phi-3's long context.
func (b *builder) longRope() error {
	r := &hparams{v: b.h.rope}
	long, short := r.floats("long_factor"), r.floats("short_factor")
	if len(long) == 0 {
		return nil
	}
	dims := phi3RopeDims(b.h)
	if len(long) != len(short) || int64(len(long)) != dims/2 {
		return &format.CorruptError{Path: b.dir, Offset: -1, Field: "rope_scaling", Err: fmt.Errorf("%d long and %d short factors for %d dimensions", len(long), len(short), dims)}
	}
	n, _ := b.h.float("max_position_embeddings")
	orig, _ := r.float("original_max_position_embeddings")
	if orig <= 1 {
		return &format.CorruptError{Path: b.dir, Offset: -1, Field: "original_max_position_embeddings", Err: fmt.Errorf("%g", orig)}
	}
	attn := 1.0
	if scale := n / orig; scale > 1 {
		switch t := strings.ToLower(r.str("rope_type")); t {
		case "su", "longrope":
			attn = math.Sqrt(1 + fmath.Log(scale)/fmath.Log(orig))
		case "yarn":
			attn = float64(0.1*fmath.Log(scale)) + 1
		default:
			return format.Unsupported("rope_type %q with long and short factors", t)
		}
	}
	b.w.f32("rope.scaling.attn_factor", attn)
	b.vector("rope_factors_long.weight", toFloat32(long), "long_factor of rope_scaling")
	b.vector("rope_factors_short.weight", toFloat32(short), "short_factor of rope_scaling")
	return nil
}

func toFloat32(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, f := range v {
		out[i] = float32(f)
	}
	return out
}
