package quant

import (
	"math/rand/v2"
	"testing"

	"github.com/graft-lora/graft/format"
)

// benchRows are normal values, and importance for their columns.
func benchRows(rows, cols int) (x, weights []float32) {
	r := rand.New(rand.NewPCG(1, 2))
	x, weights = make([]float32, rows*cols), make([]float32, cols)
	for i := range x {
		x[i] = float32(r.NormFloat64() * 0.02)
	}
	for i := range weights {
		weights[i] = float32(r.ExpFloat64())
	}
	return x, weights
}

// BenchmarkEncode counts bytes of float32 input.
func BenchmarkEncode(b *testing.B) {
	x, weights := benchRows(16, 1024)
	for _, c := range codecs {
		if c.encode == nil {
			continue
		}
		dst := make([]byte, len(x)/c.typ.BlockSize()*c.typ.BlockBytes())
		codec, err := format.EncoderOf(c.typ)
		if err != nil {
			b.Fatal(err)
		}
		run := func(name string, w []float32) {
			b.Run(c.typ.String()+name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(4 * len(x)))
				for b.Loop() {
					if err := codec.Encode(dst, x, 1024, w); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		if !c.needsWeights {
			run("", nil)
		}
		run("/imatrix", weights)
	}
}
