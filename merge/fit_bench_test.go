package merge

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/kernel"
)

// BenchmarkFit merges a matrix of 384 x 1536 weights, with one thread.
func BenchmarkFit(b *testing.B) {
	const rows, cols = 384, 1536
	for _, typ := range []format.Type{format.Q4_0, format.Q4_1, format.Q4_K, format.Q6_K} {
		for _, rank := range []int{16, 64} {
			b.Run(fmt.Sprintf("%v/rank%d", typ, rank), func(b *testing.B) {
				codec, err := format.EncoderOf(typ)
				if err != nil {
					b.Fatal(err)
				}
				s := &stored{typ: typ, codec: codec, cols: cols}
				s.bytes = make([]byte, s.rowBytes()*rows)
				if err := codec.Encode(s.bytes, normal("base", rows*cols, 0.02), cols, nil); err != nil {
					b.Fatal(err)
				}
				m := fixedMoments{rest: make([]float32, cols), z: kernel.NewMat(cols, rank)}
				copy(m.z.Data, normal("z", cols*rank, 1/math.Sqrt(float64(rank))))
				for i := range m.rest {
					m.rest[i] = 0.5
				}
				d, err := NewDelta(rows, cols, []Term{{Scale: 1,
					A: kernel.Mat{Data: normal("a", 8*cols, 0.01), Rows: 8, Cols: cols, Stride: cols},
					B: kernel.Mat{Data: normal("b", 8*rows, 0.003), Rows: rows, Cols: 8, Stride: 8}}})
				if err != nil {
					b.Fatal(err)
				}
				v := &format.View{Name: "blk.0.attn_q.weight", Type: typ, Shape: []int64{rows, cols}, Rows: s}
				base := arch.NewModel("base", &gguf.Meta{}, []*format.View{v})
				b.SetBytes(rows * cols) // weights
				for b.Loop() {
					plan, _, err := NewPlan(base, Deltas{v.Name: d}, Options{Method: "fit", Moments: m})
					if err != nil {
						b.Fatal(err)
					}
					if err := format.Run(context.Background(), plan, nowhere{}, format.RunOptions{Threads: 1}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
