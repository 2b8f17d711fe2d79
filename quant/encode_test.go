package quant

import (
	"bytes"
	"math"
	"testing"

	"github.com/graft-lora/graft/format"
)

func TestEncodeVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c, err := format.EncoderOf(v.typ)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(v.bytes))
			if err := c.Encode(got, v.input, vectorCols, v.weights); err != nil {
				t.Fatal(err)
			}
			if err := sameBytes(got, v.bytes, v.typ.BlockBytes()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLargestFloats checks that floats near the largest get the codes of the Go form, where
// the highest levels of a block are infinite.
func TestLargestFloats(t *testing.T) {
	t.Parallel()
	x := make([]float32, 32)
	for _, v := range []float32{math.MaxFloat32, 0x1p127, 0x1.8p127, 0x1p126, 0x1.8p125, 0x1p124} {
		for i := range x {
			x[i] = v * (float32(i-16) / 16)
		}
		want, got := make([]byte, mxfp4Bytes), make([]byte, mxfp4Bytes)
		encodeMXFP4(want, x, nil)
		c, err := format.EncoderOf(format.MXFP4)
		if err == nil {
			err = c.Encode(got, x, 32, nil)
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%g: %x, %v; want %x", v, got, err, want)
		}
	}
}
