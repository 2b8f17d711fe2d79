package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/testutil"
)

// The vectors of ../shared/quant/ggml: 4 rows of 1024 values encoded by ggml's
// reference (no fused multiply-add), with and without importance, and decoded.
const vectorCols = 1024

type vector struct {
	name    string
	typ     format.Type
	input   []float32
	weights []float32 // nil without importance matrix
	bytes   []byte
	decoded []float32
}

func readFloats(t testing.TB, path string) []float32 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := make([]float32, len(b)/4)
	for i := range f {
		f[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return f
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	dir := testutil.Shared(t, "quant", "ggml")
	weights := readFloats(t, filepath.Join(dir, "imatrix_1024.f32"))
	paths, err := filepath.Glob(filepath.Join(dir, "*.q"))
	if err != nil {
		t.Fatal(err)
	}
	inputs := map[string][]float32{}
	var vs []vector
	for _, p := range paths {
		base := strings.TrimSuffix(filepath.Base(p), ".q")
		part := strings.Split(base, "__")
		typ, err := format.ParseType(part[0])
		if err != nil {
			t.Fatal(err)
		}
		if inputs[part[1]] == nil {
			inputs[part[1]] = readFloats(t, filepath.Join(dir, part[1]+"_4x1024.f32"))
		}
		v := vector{name: base, typ: typ, input: inputs[part[1]]}
		if part[2] == "im" {
			v.weights = weights
		}
		if v.bytes, err = os.ReadFile(p); err != nil {
			t.Fatal(err)
		}
		v.decoded = readFloats(t, strings.TrimSuffix(p, ".q")+".dq.f32")
		vs = append(vs, v)
	}
	if len(vs) < 80 {
		t.Fatalf("only %d vectors in %s", len(vs), dir)
	}
	return vs
}

func TestDecodeVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c, err := format.CodecOf(v.typ)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, len(v.decoded))
			c.Decode(got, v.bytes)
			if err := sameFloats(got, v.decoded); err != nil {
				t.Error(err)
			}
		})
	}
}

func sameFloats(got, want []float32) error {
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			return fmt.Errorf("element %d is %v (%#x), want %v (%#x)", i, got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
	return nil
}

func sameBytes(got, want []byte, block int) error {
	n, first := 0, -1
	for i := range want {
		if got[i] != want[i] {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n == 0 {
		return nil
	}
	b := first / block
	return fmt.Errorf("%d of %d bytes differ, first byte %d of block %d\n got %x\nwant %x", n, len(want), first%block, b,
		got[b*block:(b+1)*block], want[b*block:(b+1)*block])
}
