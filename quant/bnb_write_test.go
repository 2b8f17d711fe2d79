package quant

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/testutil"
)

func openArch(t *testing.T, path string) *arch.Model {
	t.Helper()
	m, err := arch.Open(path, arch.Options{NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestBnBFolders writes the folders that transformers saved from the same model,
// whole and byte for byte, configuration included. The mean of the scales is exact
// here in single precision too, so that double quantization can be compared.
func TestBnBFolders(t *testing.T) {
	t.Parallel()
	base := openArch(t, testutil.Shared(t, "oracle", "bnb", "llama-base"))
	for name, opt := range map[string]BnBOptions{
		"llama-nf4-dq": {Type: format.NF4, Nested: true},
		"llama-int8":   {Type: format.INT8},
	} {
		for _, memory := range []int64{0, 3000} {
			f, err := NewBnBPlan(base, opt)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), name)
			if err := f.Write(context.Background(), dir, false, format.RunOptions{Memory: memory}); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"config.json", "model.safetensors"} {
				got, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				want, err := os.ReadFile(testutil.Shared(t, "oracle", "bnb", name, file))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s/%s has other bytes (%d, want %d)", name, file, len(got), len(want))
				}
			}
		}
	}
}

// TestBnBOutputs makes the tensors of matrices of odd sizes, with and without double
// quantization, in pieces that begin anywhere, and compares with what holding them in
// memory gives, which is compared with recordings.
func TestBnBOutputs(t *testing.T) {
	t.Parallel()
	inputs := openBnB(t, "inputs.safetensors")
	for _, x := range inputs.Tensors {
		for _, opt := range []BnBOptions{{Type: format.NF4}, {Type: format.FP4}, {Type: format.NF4, Nested: true}, {Type: format.INT8}} {
			rows := stored(t, x)
			o := &format.Output{Name: x.Name + ".weight", Type: x.Type, Shape: x.Shape}
			outputs, err := bnbOutputs(o, rows, x.Type, opt)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][]byte{}
			for _, o := range outputs {
				if n, err := format.Elements(o.Shape); err != nil || n*int64(o.Type.BlockBytes()) != o.Size() {
					t.Errorf("%s: shape %v of %v for %d bytes", o.Name, o.Shape, o.Type, o.Size())
				}
				got[strings.TrimPrefix(o.Name, x.Name+".")] = fillInPieces(t, o)
			}
			want := map[string][]byte{}
			if opt.Type == format.INT8 {
				m, err := quantize8(rows)
				if err != nil {
					t.Fatal(err)
				}
				want = map[string][]byte{"weight": m.codes, "SCB": m.scales, "weight_format": {0}}
			} else {
				n, _ := nibbleOf(opt.Type)
				m, err := quantize4(rows, n, HoldOptions{Nested: opt.Nested}, nil)
				if err != nil {
					t.Fatal(err)
				}
				want["weight"], want["weight.absmax"] = m.codes, m.absmax.plain
				if opt.Nested {
					want["weight.absmax"], want["weight.nested_absmax"] = m.absmax.codes, m.absmax.outer
				}
				var state quantState
				text := got["weight.quant_state.bitsandbytes__"+opt.Type.String()]
				if err := json.Unmarshal(text, &state); err != nil || opt.Nested != (state.NestedOffset != nil) {
					t.Errorf("%s: state %s: %v", x.Name, text, err)
				}
				if opt.Nested && float32(*state.NestedOffset) != m.absmax.offset {
					t.Errorf("%s: offset %v, want %v", x.Name, *state.NestedOffset, m.absmax.offset)
				}
			}
			for name, w := range want {
				if !bytes.Equal(got[name], w) {
					t.Errorf("%s as %v, nested %v: %s differs", x.Name, opt.Type, opt.Nested, name)
				}
			}
		}
	}
}

// fillInPieces makes the bytes of an output a few units at a time.
func fillInPieces(t *testing.T, o *format.Output) []byte {
	t.Helper()
	b := make([]byte, o.Size())
	for unit, step := int64(0), int64(1); unit < o.Units; step = step*2 + 1 {
		n := min(step, o.Units-unit)
		if err := o.Fill(b[unit*o.UnitBytes:(unit+n)*o.UnitBytes], unit); err != nil {
			t.Fatalf("%s: %v", o.Name, err)
		}
		unit += n
	}
	return b
}

func TestBnBPlanRefuses(t *testing.T) {
	t.Parallel()
	base := openArch(t, testutil.Shared(t, "oracle", "bnb", "llama-base"))
	var usage *format.UsageError
	for _, opt := range []BnBOptions{{Type: format.Q4_0}, {Type: format.INT8, Nested: true}} {
		if _, err := NewBnBPlan(base, opt); !errors.As(err, &usage) {
			t.Errorf("%+v: %v", opt, err)
		}
	}
	again := openArch(t, testutil.Shared(t, "oracle", "bnb", "llama-int8"))
	if _, err := NewBnBPlan(again, BnBOptions{Type: format.NF4}); !errors.As(err, &usage) || !strings.Contains(err.Error(), "int8") {
		t.Errorf("a quantized folder: %v", err)
	}
	if _, err := NewBnBPlan(again, BnBOptions{Type: format.NF4, AllowRequantize: true}); err != nil {
		t.Error(err)
	}
}

func TestPythonFloat(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]float64{
		"0.1299896240234375": 0.1299896240234375, "2.0": 2, "0.0": 0, "1e-05": 1e-5, "1.5e-07": 1.5e-7, "0.0001": 1e-4,
		"1e+16": 1e16, "-0.5": -0.5, "0.10000000149011612": float64(float32(0.1)), "1234567.0": 1234567, "5e-324": math.SmallestNonzeroFloat64,
	} {
		if got := pythonFloat(f); got != want {
			t.Errorf("%v is written %s, want %s", f, got, want)
		}
	}
}
