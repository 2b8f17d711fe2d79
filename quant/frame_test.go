package quant

import (
	"bytes"
	"math"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/rng"
)

// TestFrameRoundTrip takes blocks of any bytes apart and puts them together, and
// makes steps and minimums of the parts as Unpack does.
func TestFrameRoundTrip(t *testing.T) {
	t.Parallel()
	for typ, g := range grids {
		if g.Fixed {
			continue
		}
		s := rng.New(3, typ.String())
		src := make([]byte, 9*g.Bytes)
		for i := range src {
			src[i] = byte(s.Uint64(uint64(i)))
		}
		for b := 0; b < len(src); b += g.Bytes { // factors that are numbers
			for k, at := range [][]byte{first(frameFactors(g, src[b:b+g.Bytes])), second(frameFactors(g, src[b:b+g.Bytes]))} {
				if at != nil && (k == 0 || g.HasMin) {
					putHalf(at, float32(b+k+1)/1024)
				}
			}
		}
		f := g.NewFrame(9)
		g.UnpackFrame(f, src)
		n, subs := 9*g.Block, 9*g.Block/g.Sub
		codes, step, min := make([]uint8, n), make([]float32, subs), make([]float32, subs)
		g.Unpack(codes, step, min, src)
		for i := range step {
			b := i * g.Sub / g.Block
			wantStep, wantMin := f.D[b], float32(0)
			if g.HasMin {
				wantMin = f.M[b]
			}
			if g.Coding().Integer() {
				wantStep = f.D[b] * float32(f.Scale[i])
				if g.HasMin {
					wantMin = -(f.M[b] * float32(f.Min[i]))
				}
			}
			if step[i] != wantStep || math.Abs(float64(min[i]-wantMin)) > 0 {
				t.Fatalf("%v, sub-block %d: step %g and minimum %g, of the frame %g and %g", typ, i, step[i], min[i], wantStep, wantMin)
			}
		}
		dst := make([]byte, len(src))
		g.PackFrame(dst, f)
		g.Pack(dst, codes)
		if typ == format.TQ1_0 { // several bytes say the same
			again := make([]uint8, n)
			g.Unpack(again, step, min, dst)
			if !bytes.Equal(again, codes) {
				t.Errorf("%v: codes do not come back", typ)
			}
			continue
		}
		if !bytes.Equal(dst, src) {
			t.Errorf("%v: frame and codes do not make the block again", typ)
		}
	}
}

func first(a, _ []byte) []byte  { return a }
func second(_, b []byte) []byte { return b }
