package merge

import (
	"fmt"
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/quant"
)

func init() {
	register(&Method{Name: "exact", open: openExact,
		Help: "of adapters from train --qa-lora: the change goes into the minimums, no code moves; exact up to a minimum's own rounding"})
}

// exacter adds to the minimums of sub-blocks the one number by which a change that is
// constant over each of them differs from none (QA-LoRA, arXiv 2309.14717). Codes and
// scales stay. What is not exact is what a minimum can hold:
//
//   - in Q4_1 and Q5_1 it is a float16 of its own: the nearest is taken;
//   - in Q2_K, Q4_K and Q5_K it is an integer of 4 or 6 bits under a float16 that eight or sixteen
//     share, and one more of it is often ten times what is wanted. Rounding to nearest
//     would drop most of that, so one of the two neighbours is taken at random with the
//     probabilities that make the expected value exact, as method keep does with codes:
//     with fewer and smaller errors than that.
type exacter struct {
	g    *quant.Grid
	cols int
	dice rng.Stream
}

func openExact(t *target) (encoder, error) {
	if !t.typ.Quantized() {
		return openRequantize(t)
	}
	g, ok := quant.GridOf(t.typ)
	if !ok || !g.HasMin {
		return nil, format.Unsupported("method exact adds to minimums, and %v has none; use fit, keep or a --type with minimums", t.typ)
	}
	if t.delta.matrix != nil {
		return nil, format.Unsupported("method exact into a tensor whose rows in the file are not those of its matrix; use fit or keep")
	}
	for _, term := range t.delta.Terms {
		if term.Magnitude != nil {
			return nil, format.Usagef("method exact cannot merge a DoRA adapter, whose change is not constant over groups of inputs; use fit or keep")
		}
		for r := range term.A.Rows {
			if !constantOver(term.A.Row(r), g.Sub) {
				return nil, format.Usagef("method exact is for adapters of train --qa-lora: this one's change is not constant over the %d weights that share a minimum in %v; use fit or keep", g.Sub, t.typ)
			}
		}
	}
	e := &exacter{g: g, cols: t.cols, dice: rng.New(t.seed, "exact", t.name)}
	return e.encode, nil
}

func constantOver(x []float32, group int) bool {
	for i, v := range x {
		if v != x[i-i%group] {
			return false
		}
	}
	return true
}

func (e *exacter) encode(dst, raw []byte, delta []float32, row int64) error {
	g := e.g
	copy(dst, raw)
	f := g.NewFrame(len(delta) / g.Block)
	g.UnpackFrame(f, raw)
	per := g.Block / g.Sub
	wanted := make([]float64, per) // of the minimums, with the sign that integers give them
	for b := range f.M {
		for s := range wanted {
			d := delta[b*g.Block+s*g.Sub]
			if d-d != 0 {
				return fmt.Errorf("rows from %d: the change is not a number", row)
			}
			if f.Min == nil {
				m := kernel.F16Value(kernel.F16Bits(f.M[b] + d))
				if math.IsInf(float64(m), 0) {
					return fmt.Errorf("rows from %d: a minimum of %g is beyond float16", row, f.M[b]+d)
				}
				f.M[b] = m
				continue
			}
			wanted[s] = float64(f.M[b])*float64(f.Min[b*per+s]) - float64(d) // exact: two float32
		}
		if f.Min != nil {
			e.integers(&f.M[b], f.Min[b*per:(b+1)*per], wanted, uint64(row)*uint64(e.cols/g.Sub)+uint64(b*per))
		}
	}
	g.PackFrame(dst, f)
	return nil
}

// integers rounds the minimums wanted of a super-block. One of them usually has the largest
// integer there is: if it is to grow, their factor does.
func (e *exacter) integers(factor *float32, min []int16, wanted []float64, at uint64) {
	hi := float64(e.g.Coding().MinHi)
	largest := 0.0
	for _, w := range wanted {
		largest = math.Max(largest, w/hi)
	}
	if was := float64(*factor); largest > was && was >= 0 {
		bits := kernel.F16Bits(float32(largest))
		if float64(kernel.F16Value(bits)) < largest {
			bits++ // the next float16, of a positive number
		}
		*factor = kernel.F16Value(bits)
	}
	unit := float64(*factor)
	if unit == 0 || math.IsInf(unit, 0) {
		return
	}
	for s, w := range wanted {
		y := math.Max(0, math.Min(hi, w/unit))
		lo := math.Floor(y)
		if e.dice.Float64(at+uint64(s)) < y-lo {
			lo++
		}
		min[s] = int16(lo)
	}
}
