package model

import (
	"math"
	"testing"

	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/fmath"
	"github.com/graft-lora/graft/internal/rng"
)

// TestRopeScaling checks frequencies against the formulas worked out by hand for a
// head of 8 dimensions and base 10000, where the frequencies are 1, 1/10, 1/100, 1/1000.
func TestRopeScaling(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		keys    map[string]gguf.Value
		extra   map[string][]float32
		context int
		want    [4]float64
		mscale  float64
	}{
		"none":           {want: [4]float64{1, 1e-1, 1e-2, 1e-3}, mscale: 1},
		"linear":         {keys: map[string]gguf.Value{"rope.scaling.type": "linear", "rope.scaling.factor": float32(8)}, want: [4]float64{1. / 8, 1e-1 / 8, 1e-2 / 8, 1e-3 / 8}, mscale: 1},
		"an old linear":  {keys: map[string]gguf.Value{"rope.scale_linear": float32(2)}, want: [4]float64{1. / 2, 1e-1 / 2, 1e-2 / 2, 1e-3 / 2}, mscale: 1},
		"divisors":       {extra: map[string][]float32{"rope_freqs.weight": {1, 2, 4, 8}}, want: [4]float64{1, 1e-1 / 2, 1e-2 / 4, 1e-3 / 8}, mscale: 1},
		"longrope short": {extra: longShort, context: 64, want: [4]float64{1, 1e-1, 1e-2 / 2, 1e-3 / 2}, mscale: 1},
		"longrope long":  {extra: longShort, context: 65, want: [4]float64{1, 1e-1 / 3, 1e-2 / 9, 1e-3 / 27}, mscale: 1},
		// With an original context of 2000π, dimension i turns 1000/10^i times. 32 turns fall at dimension
		// 1.49 and 1 at 3: the ramp goes from 1 to 3, and its middle, dimension 2, has the mean of both frequencies.
		"yarn": {keys: map[string]gguf.Value{"rope.scaling.type": "yarn", "rope.scaling.factor": float32(4), "rope.scaling.original_context_length": uint32(6283)},
			want: [4]float64{1, 1e-1, 1e-2 * (1 + 1./4) / 2, 1e-3 / 4}, mscale: 0.1*math.Log(4) + 1},
		"yarn with a factor of its own": {keys: map[string]gguf.Value{"rope.scaling.type": "yarn", "rope.scaling.factor": float32(4),
			"rope.scaling.original_context_length": uint32(6283), "rope.scaling.yarn_attn_factor": float32(1.5)},
			want: [4]float64{1, 1e-1, 1e-2 * (1 + 1./4) / 2, 1e-3 / 4}, mscale: 1.5},
	} {
		m := newModel(t, tiny{arch: "llama", dim: 8, keys: c.keys, extra: c.extra}.model(), Options{Threads: 1, Context: c.context})
		for i, want := range c.want {
			if got := m.freqs[RopeGlobal][i]; math.Abs(got/want-1) > 1e-6 {
				t.Errorf("%s: frequency %d is %g, want %g", name, i, got, want)
			}
		}
		if got := m.mscale[RopeGlobal]; math.Abs(got-c.mscale) > 1e-6 {
			t.Errorf("%s: cosines are multiplied by %g, want %g", name, got, c.mscale)
		}
	}
}

var longShort = map[string][]float32{"rope_factors_long.weight": {1, 3, 9, 27}, "rope_factors_short.weight": {1, 1, 2, 2}}

// TestSincos compares with the library's, which is right to the last bit or so.
// Less than 2.3e-16 is seen.
func TestSincos(t *testing.T) {
	t.Parallel()
	s := rng.New(1, "angles")
	for i := range uint64(200000) {
		x := s.Float64(i) * math.Exp2(float64(i%21))
		if i < 1000 {
			x = float64(i) * math.Pi / 4
		}
		sin, cos := fmath.Sincos(x)
		wantSin, wantCos := math.Sincos(x)
		if math.Abs(sin-wantSin) > 5e-16 || math.Abs(cos-wantCos) > 5e-16 {
			t.Fatalf("at %v: %v, %v; want %v, %v", x, sin, cos, wantSin, wantCos)
		}
	}
}
