package merge

import (
	"testing"

	"github.com/graft-lora/graft/format"
)

// BenchmarkKeepFloat8 moves the values of rows by a change of some hundredths of them, without
// what a merge does besides.
func BenchmarkKeepFloat8(b *testing.B) {
	const rows, cols = 64, 2048
	w, d := randomMat("w", rows, cols), randomMat("d", rows, cols)
	for i := range w.Data {
		w.Data[i] /= 50
		d.Data[i] /= 2000
	}
	for _, typ := range []format.Type{format.F8_E4M3, format.F8_E5M2} {
		b.Run(typ.String(), func(b *testing.B) {
			codec, err := format.EncoderOf(typ)
			if err != nil {
				b.Fatal(err)
			}
			raw, dst := make([]byte, rows*cols), make([]byte, rows*cols)
			if err := codec.Encode(raw, w.Data, cols, nil); err != nil {
				b.Fatal(err)
			}
			keep, err := openKeep(&target{name: "w", typ: typ, rows: rows, cols: cols})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := keep(dst, raw, d.Data, 0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows*cols), "ns/weight")
		})
	}
}
