package quant

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/graft-lora/graft/format"
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

// BenchmarkProducts measures products through matrices of several types, in the shapes of
// a training step of a small model (hidden size 576, feed-forward 1536, 512 tokens),
// forward and backward, on one core and on two, in each arithmetic. It reports the best
// speed, as a share of the peak of these cores together, measured in turn with the product
// since clocks move and cores are shared, and the share of a core's time that decoding
// alone would take.
func BenchmarkProducts(b *testing.B) {
	const rows = 512
	for _, how := range []kernel.Compute{kernel.Float32, kernel.BF16} {
		for _, threads := range []int{1, 2} {
			for _, typ := range []format.Type{format.F32, format.Q8_0, format.Q4_1, format.Q4_K} {
				for _, s := range [][2]int{{1536, 576}, {576, 1536}, {576, 576}} {
					for _, name := range []string{"forward", "backward"} {
						out, in := s[0], s[1]
						if typ == format.Q4_K { // blocks of 256
							out, in = (out+255)/256*256, (in+255)/256*256
						}
						b.Run(fmt.Sprintf("%v/threads=%d/%v/%dx%dx%d/%s", how, threads, typ, rows, out, in, name), func(b *testing.B) {
							if !how.Available() {
								b.Skip(how.Lacks())
							}
							benchProduct(b, how, threads, typ, rows, out, in, name == "backward")
						})
					}
				}
			}
		}
	}
}

func benchProduct(b *testing.B, how kernel.Compute, threads int, typ format.Type, rows, out, in int, backward bool) {
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
	x, y := kernel.NewMat(rows, in), kernel.NewMat(rows, out)
	for _, m := range []kernel.Mat{x, y} {
		for i := range m.Data {
			m.Data[i] = r.Float32()
		}
	}
	p := kernel.NewPool(threads)
	defer p.Close()
	some := make([]float32, 16*in)
	product, decode, peak := time.Hour, time.Hour, 0.0
	for b.Loop() {
		peak = max(peak, how.MeasurePeak(p))
		for range 3 {
			start := time.Now()
			if backward {
				how.MulNN(p, x, y, w, false)
			} else {
				how.MulNTs(p, x, kernel.Term{Y: y, W: w})
			}
			product = min(product, time.Since(start))
		}
		start := time.Now()
		for i := 0; i < out; i += 16 {
			w.DecodeRows(some[:min(16, out-i)*in], i)
		}
		decode = min(decode, time.Since(start))
	}
	speed := 2 * float64(rows*out*in) / float64(product)
	b.ReportMetric(0, "ns/op") // it would be that of all
	b.ReportMetric(speed, "GFLOP/s")
	b.ReportMetric(100*speed/peak, "%peak")
	b.ReportMetric(100*float64(decode)/float64(product)/float64(threads), "%decode")
}
