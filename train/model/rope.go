package model

import (
	"math"

	"github.com/graft-lora/graft/internal/fmath"
	"github.com/graft-lora/graft/internal/kernel"
)

// angles are the cosines and sines of one kind of rope: position p has those from
// p·half on.
type angles struct {
	cos, sin []float32
	known    int // positions
}

// growAngles makes the tables reach position n-1.
func (m *Model) growAngles(n int) {
	for kind := range m.work.angles {
		a := &m.work.angles[kind]
		freqs := m.freqs[kind]
		for ; a.known < n; a.known++ {
			for _, f := range freqs {
				sin, cos := fmath.Sincos(float64(a.known) * f)
				a.cos = append(a.cos, float32(cos*m.mscale[kind]))
				a.sin = append(a.sin, float32(sin*m.mscale[kind]))
			}
		}
	}
}

// frequencies makes the frequency of each rotated pair of dimensions.
func (ld *loader) frequencies() {
	m := ld.m
	m.freqs[RopeGlobal], m.mscale[RopeGlobal] = ld.ropeOf(m.Global)
	m.freqs[RopeLocal], m.mscale[RopeLocal] = ld.ropeOf(m.Local)
}

// ropeOf gives the frequencies of r and what cosines and sines are multiplied by.
// The formulas are those of transformers' modeling_rope_utils, which llama.cpp
// shares: linear divides all by the factor; yarn (Peng et al. 2023, section 3) blends the two
// along a ramp between the dimensions that turn BetaFast and BetaSlow times in the original context;
// llama 3 and longrope bring a divisor for each dimension.
func (ld *loader) ropeOf(r Rope) (freqs []float64, mscale float64) {
	m, s := ld.m, r.Scaling
	half := m.RopeDim / 2
	freqs, mscale = make([]float64, half), 1
	for i := range freqs {
		freqs[i] = fmath.Pow(r.Base, -float64(2*i)/float64(m.RopeDim))
	}
	divide := func(name string) {
		if d := ld.vector(name, half); d != nil {
			for i := range freqs {
				if !(d[i] > 0) {
					ld.bad(name, "divisor %v", d[i])
					return
				}
				freqs[i] /= float64(d[i])
			}
		}
	}
	switch {
	case s.LongShortTable:
		used, other := "rope_factors_short.weight", "rope_factors_long.weight"
		if m.opt.Context > s.Original {
			used, other = other, used
		}
		divide(used)
		ld.used[other] = true
	case s.Type == "longrope":
		ld.bad("rope_factors_long.weight", "the tensor is missing")
	case s.Type == "linear":
		for i := range freqs {
			freqs[i] /= s.Factor
		}
	case s.Type == "yarn":
		lo, hi := yarnRamp(s, m.RopeDim, r.Base)
		for i := range freqs {
			ramp := min(max((float64(i)-lo)/max(hi-lo, 1e-3), 0), 1)
			keep := float64((1 - ramp) * s.ExtFactor)
			freqs[i] = float64(freqs[i]/s.Factor*(1-keep)) + float64(freqs[i]*keep)
		}
		mscale = s.MScale
	}
	if s.FreqDivisors {
		divide("rope_freqs.weight")
	}
	if s.AttnFactor != 0 {
		mscale *= s.AttnFactor
	}
	// The libraries that models are trained with hold frequencies as float32. It also
	// hides how a machine's logarithms are rounded.
	for i, f := range freqs {
		freqs[i] = float64(float32(f))
	}
	if math.IsNaN(mscale) || math.IsInf(mscale, 0) {
		ld.bad(ld.src.Arch+".rope.scaling.factor", "%v", s.Factor)
	}
	return freqs, mscale
}

// yarnRamp gives the dimensions between which frequencies are blended.
func yarnRamp(s RopeScaling, dim int, base float64) (lo, hi float64) {
	at := func(turns float64) float64 {
		return float64(dim) * fmath.Log(float64(s.Original)/(turns*2*math.Pi)) / (2 * fmath.Log(base))
	}
	return max(math.Floor(at(s.BetaFast)), 0), min(math.Ceil(at(s.BetaSlow)), float64(dim-1))
}

// rotate turns the heads of one token's queries or keys by its position's angles,
// or back again when inverse is set.
func (m *Model) rotate(x []float32, headDim int, kind RopeKind, pos int, inverse bool) {
	half := m.RopeDim / 2
	a := &m.work.angles[kind]
	cos, sin := a.cos[pos*half:(pos+1)*half], a.sin[pos*half:(pos+1)*half]
	turn := kernel.Rope
	if inverse {
		turn = kernel.RopeBackward
	}
	for h := 0; h < len(x); h += headDim {
		turn(x[h:h+headDim], cos, sin, m.NeoX)
	}
}
