package quant

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/graft-lora/graft/format"
)

// TestGridAgreesWithDecoder checks, over random blocks, that codes, steps and
// minimums give exactly the values that the type's decoder gives, and that packing
// the codes again gives the block back.
func TestGridAgreesWithDecoder(t *testing.T) {
	t.Parallel()
	for typ, g := range grids {
		t.Run(typ.String(), func(t *testing.T) {
			t.Parallel()
			codec, err := format.CodecOf(typ)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, uint64(typ)))
			const blocks = 50
			src := make([]byte, blocks*g.Bytes)
			for i := range src {
				src[i] = byte(r.Uint32())
			}
			n := blocks * g.Block
			codes, step, min := make([]uint8, n), make([]float32, n/g.Sub), make([]float32, n/g.Sub)
			g.Unpack(codes, step, min, src)
			want := make([]float32, n)
			codec.Decode(want, src)
			for i, w := range want {
				got := float32(step[i/g.Sub]*g.Levels[codes[i]]) + min[i/g.Sub]
				if got != w && (got == got || w == w) {
					t.Fatalf("element %d: grid gives %v, decoder %v", i, got, w)
				}
			}
			dst := bytes.Clone(src)
			g.Pack(dst, codes)
			if !bytes.Equal(dst, src) {
				t.Fatal("packing the codes again changed the block")
			}
			// Packing other codes over the block must carry them whole.
			for i := range codes {
				codes[i] = uint8(r.IntN(len(g.Levels)))
			}
			g.Pack(dst, codes)
			again := make([]uint8, n)
			g.Unpack(again, step, min, dst)
			if !bytes.Equal(again, codes) {
				t.Fatal("codes do not come back")
			}
		})
	}
}
