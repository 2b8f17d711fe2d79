package quant

import (
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
