package quant

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/kernel"
)

// encodedMatrix is a matrix of a block type, as the products see it.
type encodedMatrix struct {
	data              []byte
	out, in, rowBytes int
	decode            func(dst []float32, src []byte)
}

func (w *encodedMatrix) Dims() (rows, cols int) { return w.out, w.in }

func (w *encodedMatrix) DecodeRows(dst []float32, row int) {
	o := row * w.rowBytes
	w.decode(dst, w.data[o:o+len(dst)/w.in*w.rowBytes])
}

// BenchmarkProducts measures what decoding adds to a product: the same shape in
// several types, forward and backward, with 512 rows and with one. It reports the
// best time, that of decoding alone, and the share of the core's peak, which is
// measured in turn with the product.
func BenchmarkProducts(b *testing.B) {
	const out, in = 1536, 768
	for _, typ := range []format.Type{format.F32, format.Q8_0, format.Q4_1, format.Q4_K, format.Q6_K} {
		codec, err := format.CodecOf(typ)
		if err != nil {
			b.Fatal(err)
		}
		r := rand.New(rand.NewPCG(1, 2))
		w := &encodedMatrix{out: out, in: in, rowBytes: in / typ.BlockSize() * typ.BlockBytes(), decode: codec.Decode}
		w.data = make([]byte, out*w.rowBytes)
		for i := range w.data {
			w.data[i] = byte(r.Uint32()) & 0x3f // finite scales
		}
		for _, rows := range []int{512, 1} {
			for _, name := range []string{"forward", "backward"} {
				b.Run(fmt.Sprintf("%v/%dx%dx%d/%s", typ, rows, out, in, name), func(b *testing.B) {
					x, y := kernel.NewMat(rows, in), kernel.NewMat(rows, out)
					for _, m := range []kernel.Mat{x, y} {
						for i := range m.Data {
							m.Data[i] = r.Float32()
						}
					}
					some := make([]float32, 16*in)
					product, decode, peak := time.Hour, time.Hour, 0.0
					for b.Loop() {
						peak = max(peak, kernel.MeasurePeak(cpu.Current()))
						start := time.Now()
						if name == "forward" {
							kernel.MulNT(nil, y, x, w, false)
						} else {
							kernel.MulNN(nil, x, y, w, false)
						}
						product = min(product, time.Since(start))
						start = time.Now()
						for i := 0; i < out; i += 16 {
							w.DecodeRows(some, i)
						}
						decode = min(decode, time.Since(start))
					}
					b.ReportMetric(0, "ns/op") // it would be that of all
					b.ReportMetric(float64(product)/1e3, "µs")
					b.ReportMetric(float64(decode)/1e3, "decode-µs")
					b.ReportMetric(200*float64(rows*out*in)/float64(product)/peak, "%peak")
				})
			}
		}
	}
}
