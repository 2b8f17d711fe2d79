package quant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
)

// TestDecodeTiers decodes random bytes (every scale, NaN and infinite ones too) in
// every tier, at odd offsets and with words around the output that must stay. It
// switches the tier of the process, so it cannot run beside other tests.
func TestDecodeTiers(t *testing.T) {
	const guard = 19
	mark := math.Float32frombits(0xdeadbeef)
	for _, c := range codecs {
		t.Run(c.typ.String(), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(c.typ), 1))
			decode, err := format.CodecOf(c.typ)
			if err != nil {
				t.Fatal(err)
			}
			size, block := c.typ.BlockBytes(), c.typ.BlockSize()
			for round := range 300 {
				n := round % 40
				src := make([]byte, n*size+round%3)[round%3:]
				for i := range src {
					src[i] = byte(rng.Uint32())
				}
				run := func(f func([]float32, []byte)) []float32 {
					buf := make([]float32, n*block+2*guard)
					for i := range buf {
						buf[i] = mark
					}
					f(buf[guard:guard+n*block], src)
					return buf
				}
				restore := cpu.Force(cpu.Generic)
				want := run(c.decode)
				restore()
				for _, tier := range cpu.Tiers() {
					restore := cpu.Force(tier)
					got := run(decode.Decode)
					restore()
					for i, v := range want {
						if g := got[i]; math.Float32bits(g) != math.Float32bits(v) && (g == g || v == v) {
							t.Fatalf("%v: element %d of %d: %v, in Go %v", tier, i-guard, n*block, g, v)
						}
					}
				}
			}
		})
	}
}

// TestBitsandbytesTiers does the same for matrices of bitsandbytes, whose rows need
// not be whole blocks, nor even.
func TestBitsandbytesTiers(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for round := range 200 {
		rows, cols := 1+rng.Int64N(5), 1+rng.Int64N(700)
		if round%2 == 0 {
			cols = cols&^63 + 64
		}
		count := rows * cols
		codes := make([]byte, count)
		for i := range codes {
			codes[i] = byte(rng.Uint32())
		}
		scales := make([]float32, count)
		for i := range scales {
			scales[i] = float32(rng.NormFloat64())
		}
		n := &nibbleRows{rows: rows, cols: cols, block: 32 << rng.IntN(3), codes: codes[:(count+1)/2]}
		n.table = &[]*nibble{nf4, fp4}[round&1].table
		n.round = []format.Type{format.F32, format.F16, format.BF16}[round%3]
		n.absmax.plain = putFloats(scales)
		first := rng.Int64N(rows)
		for name, m := range map[string]format.RowReader{
			"nibbles": n,
			"int8":    &int8Rows{rows: rows, cols: cols, codes: codes, scales: putFloats(scales[:rows])},
		} {
			read := func(tier cpu.Tier) []float32 {
				defer cpu.Force(tier)()
				dst := make([]float32, (rows-first)*cols)
				if err := m.ReadRows(dst, first); err != nil {
					t.Fatal(err)
				}
				return dst
			}
			want := read(cpu.Generic)
			for _, tier := range cpu.Tiers()[1:] {
				for i, v := range read(tier) {
					if math.Float32bits(v) != math.Float32bits(want[i]) {
						t.Fatalf("%v: %s of %dx%d, from row %d: element %d is %v, in Go %v", tier, name, rows, cols, first, i, v, want[i])
					}
				}
			}
		}
	}
}

// TestDecodeShort: a destination that is too short panics in every tier and is not
// written past.
func TestDecodeShort(t *testing.T) {
	for _, tier := range cpu.Tiers() {
		restore := cpu.Force(tier)
		for _, typ := range []format.Type{format.F16, format.Q4_0, format.Q6_K} {
			c, err := format.CodecOf(typ)
			if err != nil {
				t.Fatal(err)
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%v: %v: no panic", tier, typ)
					}
				}()
				n := 32 * typ.BlockSize()
				dst := make([]float32, 2*n)[: n-1 : n-1]
				c.Decode(dst, make([]byte, 32*typ.BlockBytes()))
			}()
		}
		restore()
	}
}

// BenchmarkDecode gives the bytes of float32 made, from and into the level 2 cache;
// copy is what the core does there when it only moves them.
func BenchmarkDecode(b *testing.B) {
	const elements = 1 << 15
	dst, from := make([]float32, elements), make([]float32, elements)
	b.Run("copy", func(b *testing.B) {
		b.SetBytes(4 * elements)
		for b.Loop() {
			copy(dst, from)
		}
	})
	rng := rand.New(rand.NewPCG(1, 1))
	codes := make([]byte, elements)
	for i := range codes {
		codes[i] = byte(rng.Uint32())
	}
	held := &nibbleRows{rows: 32, cols: elements / 32, block: 64, table: &nf4Table, round: format.F32, codes: codes[:elements/2]}
	held.absmax.plain = putFloats(make([]float32, elements/64))
	eight := &int8Rows{rows: 32, cols: elements / 32, codes: codes, scales: putFloats(make([]float32, 32))}
	for _, tier := range cpu.Tiers() {
		for name, m := range map[string]format.RowReader{"nf4": held, "int8": eight} {
			b.Run(fmt.Sprintf("%s/%v", name, tier), func(b *testing.B) {
				defer cpu.Force(tier)()
				b.SetBytes(4 * elements)
				for b.Loop() {
					if err := m.ReadRows(dst, 0); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	for _, c := range codecs {
		decode, err := format.CodecOf(c.typ)
		if err != nil {
			b.Fatal(err)
		}
		src := make([]byte, elements/c.typ.BlockSize()*c.typ.BlockBytes())
		for i := range src {
			src[i] = byte(rng.Uint32()) & 0x3f // no scale that is not finite
		}
		for _, tier := range cpu.Tiers() {
			b.Run(fmt.Sprintf("%v/%v", c.typ, tier), func(b *testing.B) {
				defer cpu.Force(tier)()
				b.SetBytes(4 * elements)
				for b.Loop() {
					decode.Decode(dst, src)
				}
			})
		}
	}
}
