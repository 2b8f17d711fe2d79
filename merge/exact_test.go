package merge

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

// TestExact merges a change that is constant over sub-blocks: no code and no scale moves. A
// minimum of its own is the nearest float16 to what is wanted; one of few bits is one of
// the two beside it, and over all of them their mean is what is wanted.
func TestExact(t *testing.T) {
	t.Parallel()
	for _, typ := range []format.Type{format.Q4_1, format.Q5_1, format.Q2_K, format.Q4_K, format.Q5_K} {
		tg, _, _ := fitCase(t, typ, 0.002)
		g, _ := quant.GridOf(typ)
		a := &tg.delta.Terms[0].A
		for r := range a.Rows {
			for i := range a.Cols {
				a.Row(r)[i] = a.Row(r)[i-i%g.Sub]
			}
		}
		encode, err := openExact(tg)
		if err != nil {
			t.Fatal(err)
		}
		raw := tg.raw.(*stored).bytes
		base, delta := make([]float32, tg.rows*int64(tg.cols)), make([]float32, tg.rows*int64(tg.cols))
		tg.codec.Decode(base, raw)
		tg.delta.Change(delta, base, 0)
		merged := make([]byte, len(raw))
		if err := encode(merged, raw, delta, 0); err != nil {
			t.Fatal(err)
		}
		again := make([]byte, len(raw)/2)
		half := tg.rows / 2
		if err := encode(again, raw[len(raw)/2:], delta[len(delta)/2:], half); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, merged[len(raw)/2:]) {
			t.Errorf("%v: the bytes depend on how rows are dealt out", typ)
		}
		codes, codes2 := make([]uint8, len(base)), make([]uint8, len(base))
		subs := len(base) / g.Sub
		step, step2, min, min2 := make([]float32, subs), make([]float32, subs), make([]float32, subs), make([]float32, subs)
		g.Unpack(codes, step, min, raw)
		g.Unpack(codes2, step2, min2, merged)
		if !bytes.Equal(codes, codes2) {
			t.Errorf("%v: codes have moved", typ)
		}
		f := g.NewFrame(len(base) / g.Block)
		g.UnpackFrame(f, raw)
		f2 := g.NewFrame(len(base) / g.Block)
		g.UnpackFrame(f2, merged)
		per := g.Block / g.Sub
		var off, wanted, got float64
		for s := range subs {
			if step[s] != step2[s] {
				t.Fatalf("%v: a scale has moved", typ)
			}
			d, r := float64(delta[s*g.Sub]), float64(min2[s])-float64(min[s])
			if !g.Coding().Integer() {
				if want := kernel.F16Value(kernel.F16Bits(min[s] + delta[s*g.Sub])); min2[s] != want {
					t.Fatalf("%v: minimum %v, want %v", typ, min2[s], want)
				}
			} else if f.Min[s] > 1 && math.Abs(r-d) > float64(f2.M[s/per])*(1+1e-6) {
				t.Fatalf("%v: minimum %d has moved by %v, wanted is %v, a step %v", typ, s, r, d, f2.M[s/per])
			}
			off += math.Abs(r - d)
			wanted += d * d
			got += r * d
		}
		// The mean over seeds.
		const seeds = 60
		for seed := range uint64(seeds - 1) {
			tg.seed = seed + 1
			if encode, err = openExact(tg); err != nil {
				t.Fatal(err)
			}
			if err := encode(merged, raw, delta, 0); err != nil {
				t.Fatal(err)
			}
			g.Unpack(codes2, step2, min2, merged)
			for s := range subs {
				got += float64(delta[s*g.Sub]) * (float64(min2[s]) - float64(min[s]))
			}
		}
		if gain := got / wanted / seeds; math.Abs(gain-1) > 0.05 {
			t.Errorf("%v: gain %v", typ, gain)
		} else {
			t.Logf("%v: gain %.3f, mean error %.2g of a mean change of %.2g", typ, gain, off/float64(subs), math.Sqrt(wanted/float64(subs)))
		}
	}

	var usage *format.UsageError
	tg, _, _ := fitCase(t, format.Q4_1, 0.002)
	if _, err := openExact(tg); !errors.As(err, &usage) {
		t.Errorf("an ordinary adapter: %v", err)
	}
	tg, _, _ = fitCase(t, format.Q6_K, 0.002)
	var unsupported *format.UnsupportedError
	if _, err := openExact(tg); !errors.As(err, &unsupported) {
		t.Errorf("a type without minimums: %v", err)
	}
}
