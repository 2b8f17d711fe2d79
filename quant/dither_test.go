package quant

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/graft-lora/graft/format"
)

// ditherCase is random weights in a type, and a change of theirs.
func ditherCase(t testing.TB, typ format.Type, rows, cols int, size float64) (g *Grid, raw []byte, delta []float32) {
	t.Helper()
	codec, err := format.EncoderOf(typ)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, uint64(typ)))
	w := make([]float32, rows*cols)
	delta = make([]float32, len(w))
	for i := range w {
		w[i], delta[i] = float32(r.NormFloat64()), float32(size*r.NormFloat64())
	}
	n, err := typ.RowBytes(int64(cols))
	if err != nil {
		t.Fatal(err)
	}
	raw = make([]byte, rows*int(n))
	if err := codec.Encode(raw, w, cols, nil); err != nil {
		t.Fatal(err)
	}
	g, _ = GridOf(typ)
	return g, raw, delta
}

func split(g *Grid, raw []byte) (codes []uint8, step []float32) {
	n := len(raw) / g.Bytes * g.Block
	codes, step = make([]uint8, n), make([]float32, n/g.Sub)
	g.Unpack(codes, step, make([]float32, n/g.Sub), raw)
	return codes, step
}

// TestDitherTypes lists them: no other type has levels one step apart.
func TestDitherTypes(t *testing.T) {
	t.Parallel()
	want := []format.Type{format.Q4_0, format.Q4_1, format.Q5_0, format.Q5_1, format.Q8_0, format.Q2_K, format.Q3_K, format.Q4_K, format.Q5_K, format.Q6_K}
	slices.Sort(want)
	if got := DitherTypes(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, typ := range []format.Type{format.IQ4_NL, format.IQ2_S, format.F16, format.MXFP4} {
		if _, err := NewDither(typ, 0, "t", 256); err == nil {
			t.Errorf("there is a Dither of %v", typ)
		}
	}
}

// TestDither checks in every type that a code is one of the two beside the wanted
// value (or the last one there is), that scales and minimums stay, that the changes
// have the wanted mean, and that the bytes do not depend on how rows are divided.
func TestDither(t *testing.T) {
	t.Parallel()
	for _, typ := range DitherTypes() {
		t.Run(typ.String(), func(t *testing.T) {
			t.Parallel()
			const rows, cols = 64, 512
			g, raw, delta := ditherCase(t, typ, rows, cols, 0.02)
			for i := range 40 { // some far beyond the codes
				delta[i] = float32(i-20) * 10
			}
			d, err := NewDither(typ, 3, "blk.0.attn_q.weight", cols)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(raw))
			if err := d.Merge(got, raw, delta, 0); err != nil {
				t.Fatal(err)
			}
			codes, step := split(g, raw)
			after, stepAfter := split(g, got)
			if !slices.Equal(step, stepAfter) {
				t.Fatal("the steps are others")
			}
			top := float64(len(g.Levels) - 1)
			var moved, wanted, square float64
			for i, c := range codes {
				st := float64(step[i/g.Sub])
				if st == 0 {
					if after[i] != c {
						t.Fatalf("element %d moved where the step is zero", i)
					}
					continue
				}
				y := float64(c) + float64(delta[i])/st
				lo, hi := min(max(math.Floor(y-1e-5), 0), top), min(max(math.Ceil(y+1e-5), 0), top)
				if a := float64(after[i]); a < lo || a > hi {
					t.Fatalf("element %d: code %d became %v for a change to %v", i, c, a, y)
				}
				if c > 0 && float64(c) < top && i >= 40 {
					moved += float64(after[i]) - float64(c)
					wanted += float64(delta[i]) / st
					f := y - math.Floor(y)
					square += f * (1 - f)
				}
			}
			if sigma := math.Abs(moved-wanted) / math.Sqrt(square); sigma > 4 {
				t.Errorf("codes moved by %.1f steps in all, wanted are %.1f: %.1f standard deviations", moved, wanted, sigma)
			}
			n := len(raw) / rows
			for r := range rows {
				row := bytes.Clone(raw[r*n : (r+1)*n])
				if err := d.Merge(row, row, delta[r*cols:(r+1)*cols], int64(r)); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(row, got[r*n:(r+1)*n]) {
					t.Fatalf("row %d by itself has other bytes", r)
				}
			}
			if err := d.Merge(got, raw, make([]float32, len(delta)), 0); err != nil || !bytes.Equal(got, raw) {
				t.Errorf("no change changed bytes (%v)", err)
			}
			delta[cols+300] = float32(math.NaN())
			if err := d.Merge(got, raw, delta, 0); err == nil {
				t.Error("a change that is not a number went through")
			}
		})
	}
}

// TestDitherForever pins the rounding: the adapters that are trained with it are right for
// no other.
func TestDitherForever(t *testing.T) {
	t.Parallel()
	for typ, want := range map[format.Type]string{
		format.Q4_1: "e3677a604f9072f8", format.Q6_K: "f7b5f0720cbcc583",
	} {
		_, raw, delta := ditherCase(t, typ, 8, 256, 0.05)
		d, err := NewDither(typ, 5, "blk.3.ffn_up.weight", 256)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Merge(raw, raw, delta, 16); err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256(raw)
		if got := hex.EncodeToString(h[:8]); got != want {
			t.Errorf("%v: %s, want %s", typ, got, want)
		}
	}
}

func BenchmarkDither(b *testing.B) {
	for _, typ := range DitherTypes() {
		b.Run(typ.String(), func(b *testing.B) {
			const rows, cols = 64, 4096
			_, raw, delta := ditherCase(b, typ, rows, cols, 0.02)
			d, err := NewDither(typ, 5, "blk.3.ffn_up.weight", cols)
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, len(raw))
			b.SetBytes(rows * cols) // a byte stands for a weight
			for b.Loop() {
				if err := d.Merge(dst, raw, delta, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
