package merge

import (
	"context"
	"math"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/quant"
)

// TestNestHoldsTheBase takes blocks of every code with factors from the largest to the
// smallest normal numbers that the division leaves normal, and compares every value's
// bits with the base's. Blocks with subnormal factors are smaller than Q6_K can hold.
func TestNestHoldsTheBase(t *testing.T) {
	t.Parallel()
	for typ, ns := range nestings {
		for _, by := range ns {
			g, _ := quant.GridOf(typ)
			s := rng.New(5, typ.String())
			const rows = 64
			raw := make([]byte, rows*g.Bytes)
			for i := range raw {
				raw[i] = byte(s.Uint64(uint64(i)))
			}
			frame := g.NewFrame(rows)
			g.UnpackFrame(frame, raw)
			for b := range frame.D {
				frame.D[b] = float32(math.Ldexp(1+float64(b)/64, b/3-13))
				if b%2 == 1 {
					frame.D[b] = -frame.D[b]
				}
				if b >= 56 {
					frame.D[b] = float32(b-55) * 0x1p-24 // subnormal
				}
				if g.HasMin {
					frame.M[b] = float32(max(0, 56-b)) / 128
				}
			}
			g.PackFrame(raw, frame)
			codec, err := format.CodecOf(typ)
			if err != nil {
				t.Fatal(err)
			}
			v := &format.View{Name: "w", Type: typ, Shape: []int64{rows, int64(g.Block)},
				Rows: &stored{typ: typ, codec: codec, cols: int64(g.Block), bytes: raw}}
			w, err := nestInto(v, by)
			if err != nil {
				t.Fatal(err)
			}
			if w.Type != by.to {
				t.Fatalf("%v went into %v", typ, w.Type)
			}
			fine, err := format.CodecOf(w.Type)
			if err != nil {
				t.Fatal(err)
			}
			rowBytes, _ := w.Type.RowBytes(int64(g.Block))
			out := make([]byte, rows*rowBytes)
			if err := w.Rows.(format.RawReader).ReadRaw(out, 0); err != nil {
				t.Fatal(err)
			}
			want, got := make([]float32, rows*g.Block), make([]float32, rows*g.Block)
			codec.Decode(want, raw)
			fine.Decode(got, out)
			for i := range want {
				b := i / g.Block
				if b < 56 && math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("%v in %v, block %d: %g is %g", typ, w.Type, b, want[i], got[i])
				}
				// Of these nothing is larger than 8*1024 times 2^-24; Q6_K holds none of them.
				if d := math.Abs(float64(got[i] - want[i])); d > 0x1p-14 {
					t.Fatalf("%v in %v, subnormal block %d: %g is %g", typ, w.Type, b, want[i], got[i])
				}
			}
		}
	}
}

// TestPromote promotes the one of two tensors that loses more, and no more than there
// is room for.
func TestPromote(t *testing.T) {
	t.Parallel()
	small, _, _ := fitCase(t, format.Q4_0, 0.003)
	large, _, _ := fitCase(t, format.Q4_0, 0.1)
	ds := Deltas{"a": large.delta, "b": small.delta}
	var views []*format.View
	for _, c := range []struct {
		name string
		t    *target
	}{{"a", large}, {"b", small}} {
		views = append(views, &format.View{Name: c.name, Type: format.Q4_0, Shape: []int64{fitTestRows, fitTestCols}, Rows: c.t.raw.(*stored)})
	}
	base := arch.NewModel("base", &gguf.Meta{}, views)
	for _, c := range []struct {
		want  Promotion
		types [2]format.Type
	}{
		{Promotion{MaxError: 1, MaxGrowth: 1}, [2]format.Type{format.Q4_0, format.Q4_0}},
		{Promotion{MaxError: 0.2, MaxGrowth: 1}, [2]format.Type{format.Q4_0, format.Q5_0}},
		{Promotion{MaxError: 0, MaxGrowth: 0.12}, [2]format.Type{format.Q4_0, format.Q5_0}},
		{Promotion{MaxError: 0, MaxGrowth: 0.25}, [2]format.Type{format.Q5_0, format.Q5_0}},
		{Promotion{MaxError: 0, MaxGrowth: 0.1}, [2]format.Type{format.Q4_0, format.Q4_0}},
	} {
		plan, report, err := Promote(context.Background(), base, ds, Options{Moments: correlated()}, c.want, format.RunOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]format.Type{plan.Outputs[0].Type, plan.Outputs[1].Type}; got != c.types {
			t.Errorf("%+v: types %v, want %v", c.want, got, c.types)
		}
		if err := format.Run(context.Background(), plan, nowhere{}, format.RunOptions{}); err != nil {
			t.Fatal(err)
		}
		report.Finish()
		if plan.Outputs[1].Type == format.Q5_0 && report.Tensors[1].ErrorOnInputs > 0.24 {
			t.Errorf("%+v: the promoted tensor has the error %g", c.want, report.Tensors[1].ErrorOnInputs)
		}
	}
}
