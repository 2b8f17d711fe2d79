package quant

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/graft-lora/graft/format"
)

// TestGroupsAgreeWithDecoder checks, over random blocks, that groups and steps give what the
// decoder gives, but for the shift of IQ1, that packing them again gives the block back, that
// another factor multiplies all, and that other groups come back.
func TestGroupsAgreeWithDecoder(t *testing.T) {
	t.Parallel()
	for typ, g := range groups() {
		codec, err := format.CodecOf(typ)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(1, uint64(typ)))
		const blocks = 20
		src := make([]byte, blocks*g.Bytes)
		for i := range src {
			src[i] = byte(r.Uint32())
		}
		for b := range blocks {
			g.SetFactor(src[b*g.Bytes:(b+1)*g.Bytes], 0.5)
		}
		n := blocks * g.Block
		codes, step, want := make([]Group, n/8), make([]float32, n/g.Sub), make([]float32, n)
		g.Unpack(codes, step, src)
		codec.Decode(want, src)
		for i, w := range want {
			c := codes[i/8]
			v := g.Values[c.Points[i%8/g.Cell]][i%g.Cell]
			v = signed(v, c.Signs, i%8)
			if typ == format.IQ1_S || typ == format.IQ1_M {
				if up, down := step[i/g.Sub]*(v+iq1Shift), step[i/g.Sub]*(v-iq1Shift); w != up && w != down {
					t.Fatalf("%v, element %d: %v, decoder %v", typ, i, up, w)
				}
			} else if got := step[i/g.Sub] * v; got != w {
				t.Fatalf("%v, element %d: %v, decoder %v", typ, i, got, w)
			}
		}
		dst := bytes.Clone(src)
		g.Pack(dst, codes)
		if !bytes.Equal(dst, src) {
			t.Errorf("%v: packing the groups again changed the blocks", typ)
		}
		for i := range codes {
			c := &codes[i]
			for h := range 8 / g.Cell {
				c.Points[h] = g.Near[c.Points[h]][r.IntN(groupNear)]
			}
			if g.Signs != NoSigns {
				c.Signs ^= 0x11
			}
		}
		g.Pack(dst, codes)
		again := make([]Group, len(codes))
		g.Unpack(again, step, dst)
		for i := range again {
			if again[i] != codes[i] {
				t.Fatalf("%v: group %d does not come back", typ, i)
			}
		}
		g.SetFactor(dst[:g.Bytes], 0.25)
		if g.Factor(dst) != 0.25 || g.Factor(src) != 0.5 {
			t.Errorf("%v: the factor is %v", typ, g.Factor(dst))
		}
		codec.Decode(want[:g.Block], src[:g.Bytes])
		g.SetFactor(src[:g.Bytes], 0.25)
		half := make([]float32, g.Block)
		codec.Decode(half, src[:g.Bytes])
		for i, v := range half {
			if v != want[i]/2 {
				t.Fatalf("%v: with half the factor %v became %v", typ, want[i], v)
			}
		}
	}
}
