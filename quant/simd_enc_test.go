package quant

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
)

// hostileRows are kinds of values that a search could take another way in: each
// fills x and gives its name.
var hostileRows = []struct {
	name string
	fill func(r *rand.Rand, x []float32)
}{
	{"normal", func(r *rand.Rand, x []float32) { each(x, func(int) float32 { return float32(r.NormFloat64() * 0.02) }) }},
	{"zeros", func(r *rand.Rand, x []float32) { clear(x) }},
	{"zeros of both signs", func(r *rand.Rand, x []float32) {
		each(x, func(int) float32 { return math.Float32frombits(r.Uint32() & 0x80000000) })
	}},
	{"constant", func(r *rand.Rand, x []float32) {
		c := float32(r.NormFloat64())
		each(x, func(int) float32 { return c })
	}},
	{"two values", func(r *rand.Rand, x []float32) { each(x, func(int) float32 { return float32(r.IntN(2)) - 0.5 }) }},
	{"positive", func(r *rand.Rand, x []float32) { each(x, func(int) float32 { return 1 + r.Float32() }) }},
	{"negative", func(r *rand.Rand, x []float32) { each(x, func(int) float32 { return -1 - r.Float32() }) }},
	{"ties", func(r *rand.Rand, x []float32) { each(x, func(int) float32 { return float32(r.IntN(63)-31) / 2 }) }},
	{"near ties", func(r *rand.Rand, x []float32) {
		each(x, func(int) float32 {
			return math.Float32frombits(math.Float32bits(float32(r.IntN(255)-127)/2) + uint32(r.IntN(3)) - 1 + uint32(r.IntN(2)))
		})
		for i, v := range x {
			if v != v || abs32(v) > 200 {
				x[i] = 0.5
			}
		}
	}},
	{"subnormal", func(r *rand.Rand, x []float32) {
		each(x, func(int) float32 { return math.Float32frombits(r.Uint32() & 0x800fffff) })
	}},
	{"all magnitudes", func(r *rand.Rand, x []float32) {
		each(x, func(int) float32 {
			return math.Float32frombits(r.Uint32()&0x807fffff | uint32(r.IntN(140))<<23)
		})
	}},
	{"small", func(r *rand.Rand, x []float32) {
		each(x, func(int) float32 { return float32(r.NormFloat64() * 1e-15) })
	}},
	{"one outlier", func(r *rand.Rand, x []float32) {
		each(x, func(int) float32 { return float32(r.NormFloat64() * 1e-6) })
		x[r.IntN(len(x))] = 1000
	}},
	{"large", func(r *rand.Rand, x []float32) { each(x, func(int) float32 { return float32(r.NormFloat64() * 1e4) }) }},
	{"too large", func(r *rand.Rand, x []float32) { each(x, func(int) float32 { return float32(r.NormFloat64() * 1e20) }) }},
	{"zero groups", func(r *rand.Rand, x []float32) {
		each(x, func(i int) float32 { return float32(r.NormFloat64()) * float32(i/16%3%2) })
	}},
}

func each(x []float32, f func(i int) float32) {
	for i := range x {
		x[i] = f(i)
	}
}

// TestEncodeTiers encodes rows of every kind in every tier: the same bytes, or the
// same error, as in Go. It switches the tier of the process, so it cannot run beside
// other tests.
func TestEncodeTiers(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.typ.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(c.typ), 2))
			block := c.typ.BlockSize()
			rounds := 1
			if _, slow := map[format.Type]bool{format.IQ1_S: true, format.IQ1_M: true, format.IQ2_S: true, format.IQ2_XS: true, format.IQ2_XXS: true, format.IQ3_S: true, format.IQ3_XXS: true}[c.typ]; !slow {
				rounds = 3
			}
			for round := range rounds {
				for _, kind := range hostileRows {
					cols := max(block, 32) * (1 + r.IntN(3))
					x := make([]float32, cols*(1+r.IntN(7)))
					kind.fill(r, x)
					weights := make([]float32, cols)
					each(weights, func(int) float32 { return float32(r.ExpFloat64()) })
					if round == 1 {
						each(weights, func(i int) float32 { return float32(i / 16 % 2) })
					}
					for _, w := range [][]float32{nil, weights} {
						if w == nil && c.needsWeights {
							continue
						}
						var want []byte
						var wantErr string
						for _, tier := range cpu.Tiers() {
							restore := cpu.Force(tier)
							got := make([]byte, len(x)/block*c.typ.BlockBytes())
							err := fmt.Sprint(c.encodeRows(got, x, cols, w))
							restore()
							if tier == cpu.Generic {
								want, wantErr = got, err
								continue
							}
							if err != wantErr {
								t.Fatalf("%v: %s, importance %v: %s, in Go %s", tier, kind.name, w != nil, err, wantErr)
							}
							if err == "<nil>" && !bytes.Equal(got, want) {
								t.Fatalf("%v: %s, %d values in rows of %d, importance %v: %v", tier, kind.name, len(x), cols, w != nil, sameBytes(got, want, c.typ.BlockBytes()))
							}
						}
					}
				}
			}
		})
	}
}
