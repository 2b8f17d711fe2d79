package quant

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/testutil"
)

func openBnB(t *testing.T, name string) *safetensors.File {
	t.Helper()
	f, err := safetensors.Open(testutil.Shared(t, "oracle/bnb", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// stored gives the rows of a plain tensor.
func stored(t *testing.T, x *format.Tensor) format.RowReader {
	t.Helper()
	rows, err := format.StoredRows(x)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func allRows(t *testing.T, r format.RowReader) []float32 {
	t.Helper()
	rows, cols := r.Dims()
	v := make([]float32, rows*cols)
	if err := r.ReadRows(v, 0); err != nil {
		t.Fatal(err)
	}
	return v
}

// sameBits compares values bit by bit, so that minus zero is not zero.
func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// TestBnB4 quantizes each recorded matrix and compares codes and scales, byte for
// byte, and the values that both the recorded tensors and our own decode to.
func TestBnB4(t *testing.T) {
	t.Parallel()
	inputs := openBnB(t, "inputs.safetensors")
	for _, c := range []struct {
		file   string
		nibble *nibble
		opt    HoldOptions
	}{
		{"nf4", nf4, HoldOptions{}},
		{"nf4_dq", nf4, HoldOptions{Nested: true}},
		{"nf4_bs32", nf4, HoldOptions{Block: 32}},
		{"nf4_bs128_dq", nf4, HoldOptions{Block: 128, Nested: true}},
		{"fp4", fp4, HoldOptions{}},
		{"fp4_dq", fp4, HoldOptions{Nested: true}},
		{"fp4_bs256", fp4, HoldOptions{Block: 256}},
		{"nf4_storage_bf16", nf4, HoldOptions{}},
		{"nf4_storage_f32", nf4, HoldOptions{}},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			f := openBnB(t, c.file+".safetensors")
			seen := 0
			for _, w := range f.Tensors {
				name, ok := strings.CutSuffix(w.Name, ".weight")
				if !ok {
					continue
				}
				seen++
				t.Run(name, func(t *testing.T) { checkBnB4(t, f, w, inputs.Tensor(name), c.file, c.nibble, c.opt) })
			}
			if seen == 0 {
				t.Error("no matrix was found")
			}
		})
	}
}

func checkBnB4(t *testing.T, f *safetensors.File, w, input *format.Tensor, file string, n *nibble, opt HoldOptions) {
	p, err := OpenBnB(w, f.Tensor)
	if err != nil {
		t.Fatal(err)
	}
	recorded := p.Rows.(*nibbleRows)
	ours, err := quantize4(stored(t, input), n, opt, &recorded.absmax.offset)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours.codes, recorded.codes) {
		t.Error("the codes differ")
	}
	if !bytes.Equal(ours.absmax.plain, recorded.absmax.plain) {
		t.Error("the scales differ")
	}
	if !bytes.Equal(ours.absmax.codes, recorded.absmax.codes) || !bytes.Equal(ours.absmax.outer, recorded.absmax.outer) {
		t.Error("the quantized scales differ")
	}
	if opt.Nested {
		sameBits(t, "table of scales", ours.absmax.table[:], recorded.absmax.table[:])
	}
	if !strings.Contains(file, "storage") {
		recorded.round = format.F32
		want := allRows(t, stored(t, openBnB(t, file+".dequant.safetensors").Tensor(input.Name)))
		sameBits(t, "decoded recording", allRows(t, recorded), want)
		sameBits(t, "decoded", allRows(t, ours), want)
	}
	checkParts(t, recorded)
}

// checkParts reads rows one by one and in pairs, which begin inside blocks and
// inside bytes, and compares with all of them at once.
func checkParts(t *testing.T, r format.RowReader) {
	t.Helper()
	rows, cols := r.Dims()
	want := allRows(t, r)
	for _, k := range []int64{1, 2} {
		for row := int64(0); row+k <= rows; row++ {
			got := make([]float32, k*cols)
			if err := r.ReadRows(got, row); err != nil {
				t.Fatal(err)
			}
			sameBits(t, "part", got, want[row*cols:(row+k)*cols])
		}
	}
	if err := r.ReadRows(make([]float32, cols), rows); err == nil {
		t.Error("a row after the last was read")
	}
}

// TestBnBMean: the mean of the scales is summed in another order than torch's, so
// the offset may differ in its last bits: measured, one unit of the last place for one matrix, none for the others.
func TestBnBMean(t *testing.T) {
	t.Parallel()
	inputs := openBnB(t, "inputs.safetensors")
	f := openBnB(t, "nf4_dq.safetensors")
	for _, x := range inputs.Tensors {
		state := f.Tensor(x.Name + ".weight.quant_state.bitsandbytes__nf4")
		if state == nil {
			continue
		}
		var s quantState
		if err := json.Unmarshal(state.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		held, _, err := HoldNF4(stored(t, x), HoldOptions{Nested: true})
		if err != nil {
			t.Fatal(err)
		}
		got, want := held.(*nibbleRows).absmax.offset, float32(*s.NestedOffset)
		if d := int32(math.Float32bits(got)) - int32(math.Float32bits(want)); d < -1 || d > 1 {
			t.Errorf("%s: %v, want %v", x.Name, got, want)
		}
	}
}

func TestBnB8(t *testing.T) {
	t.Parallel()
	inputs := openBnB(t, "inputs.safetensors")
	f := openBnB(t, "int8.safetensors")
	decoded := openBnB(t, "int8.dequant.safetensors")
	for _, x := range decoded.Tensors {
		t.Run(x.Name, func(t *testing.T) {
			t.Parallel()
			w := f.Tensor(x.Name + ".weight")
			p, err := OpenBnB(w, f.Tensor)
			if err != nil {
				t.Fatal(err)
			}
			recorded := p.Rows.(*int8Rows)
			ours, err := quantize8(stored(t, inputs.Tensor(x.Name)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(ours.scales, recorded.scales) {
				t.Error("the scales differ")
			}
			if !bytes.Equal(ours.codes, recorded.codes) {
				t.Error("the codes differ")
			}
			sameBits(t, "decoded", allRows(t, recorded), allRows(t, stored(t, x)))
			checkParts(t, recorded)
		})
	}
}

// TestBnBModels opens the projections of the two saved models. The 4-bit ones are
// recorded in bfloat16, which is what they are rounded to.
func TestBnBModels(t *testing.T) {
	t.Parallel()
	for model, typ := range map[string]format.Type{"llama-nf4-dq": format.NF4, "llama-int8": format.INT8} {
		f := openBnB(t, model+"/model.safetensors")
		for _, x := range openBnB(t, model+".dequant.safetensors").Tensors {
			p, err := OpenBnB(f.Tensor(x.Name), f.Tensor)
			if err != nil {
				t.Fatal(err)
			}
			if p.Type != typ || p.Shape[0] != x.Shape[0] || p.Shape[1] != x.Shape[1] {
				t.Errorf("%s: %v %v", x.Name, p.Type, p.Shape)
			}
			sameBits(t, x.Name, allRows(t, p.Rows), allRows(t, stored(t, x)))
		}
		norm := f.Tensor("model.norm.weight")
		if p, err := OpenBnB(norm, f.Tensor); p != nil || err != nil {
			t.Errorf("a norm was taken for a quantized matrix: %v, %v", p, err)
		}
	}
}

// fakeRows are rows of one float32 each 32 bits of which are a function of the position.
type fakeRows struct {
	rows, cols int64
	bad        int64 // index of an element that is not finite, -1 for none
}

func (r fakeRows) Dims() (int64, int64) { return r.rows, r.cols }

func (r fakeRows) ReadRows(dst []float32, row int64) error {
	for i := range dst {
		at := row*r.cols + int64(i)
		dst[i] = float32(math.Sin(float64(at)*1.7)) * float32(1+at%13)
		if at == r.bad {
			dst[i] = float32(math.Inf(1))
		}
	}
	return nil
}

// TestHoldChunks holds matrices that are quantized in several reads, with rows that
// are no whole blocks, and compares with one call for all of it.
func TestHoldChunks(t *testing.T) {
	t.Parallel()
	for _, src := range []fakeRows{{700, 801, -1}, {3, 100000, -1}, {4096, 129, -1}, {1, 1, -1}, {5, 0, -1}, {0, 7, -1}} {
		all := make([]float32, src.rows*src.cols)
		if err := src.ReadRows(all, 0); err != nil {
			t.Fatal(err)
		}
		held, size, err := HoldFP4(src, HoldOptions{Block: 128})
		if err != nil {
			t.Fatal(err)
		}
		m := held.(*nibbleRows)
		codes := make([]byte, (len(all)+1)/2)
		absmax := make([]float32, (len(all)+127)/128)
		if err := fp4.quantize(codes, absmax, all, 128); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(codes, m.codes) || !bytes.Equal(putFloats(absmax), m.absmax.plain) {
			t.Errorf("%v: codes or scales differ", src)
		}
		if want := int64(len(codes) + 4*len(absmax)); size != want {
			t.Errorf("%v: %d bytes, want %d", src, size, want)
		}
	}
	for _, hold := range []func(format.RowReader) error{
		func(r format.RowReader) error { _, _, err := HoldNF4(r, HoldOptions{}); return err },
		func(r format.RowReader) error { _, _, err := HoldINT8(r); return err },
	} {
		if hold(fakeRows{700, 801, 400000}) == nil {
			t.Error("an infinity was quantized")
		}
	}
	if _, _, err := HoldNF4(fakeRows{2, 2, -1}, HoldOptions{Block: 48}); err == nil {
		t.Error("blocks of 48 elements were accepted")
	}
}

// TestBnBBroken changes a group of tensors in ways that must be errors.
func TestBnBBroken(t *testing.T) {
	t.Parallel()
	f := openBnB(t, "nf4_dq.safetensors")
	const name = "gauss_bf16.weight"
	weight := f.Tensor(name)
	state := string(f.Tensor(name + ".quant_state.bitsandbytes__nf4").Bytes())
	text := func(s string) *format.Tensor {
		return &format.Tensor{Name: "state", Type: format.U8, Shape: []int64{int64(len(s))}, Source: strings.NewReader(s), Size: int64(len(s))}
	}
	with := func(suffix string, x *format.Tensor) func(string) *format.Tensor {
		return func(n string) *format.Tensor {
			if n == name+suffix {
				return x
			}
			return f.Tensor(n)
		}
	}
	const stateName = ".quant_state.bitsandbytes__nf4"
	for what, find := range map[string]func(string) *format.Tensor{
		"no absmax":        with(".absmax", nil),
		"no quant_map":     with(".quant_map", nil),
		"no nested map":    with(".nested_quant_map", nil),
		"no nested absmax": with(".nested_absmax", nil),
		"plain absmax":     with(".absmax", f.Tensor(name+".nested_absmax")),
		"no JSON":          with(stateName, text("{")),
		"type":             with(stateName, text(strings.Replace(state, "nf4", "fp4", 1))),
		"block":            with(stateName, text(strings.Replace(state, `"blocksize": 64`, `"blocksize": 0`, 1))),
		"nested block":     with(stateName, text(strings.Replace(state, `256`, `0`, 1))),
		"dtype":            with(stateName, text(strings.Replace(state, "bfloat16", "float8", 1))),
		"shape":            with(stateName, text(strings.Replace(state, "[48, 64]", "[48, 65]", 1))),
		"huge shape":       with(stateName, text(strings.Replace(state, "[48, 64]", "[4611686018427387904, 4]", 1))),
		"negative shape":   with(stateName, text(strings.Replace(state, "[48, 64]", "[-48, -64]", 1))),
		"vector":           with(stateName, text(strings.Replace(state, "[48, 64]", "[3072]", 1))),
		"other table": with(".quant_map", &format.Tensor{Name: "map", Type: format.F32, Shape: []int64{16}, Size: 64,
			Source: bytes.NewReader(binary.LittleEndian.AppendUint64(make([]byte, 56), 1))}),
	} {
		if p, err := OpenBnB(weight, find); err == nil {
			t.Errorf("%s: accepted as %v %v", what, p.Type, p.Shape)
		}
	}
	if _, err := OpenBnB(weight, f.Tensor); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	g := openBnB(t, "int8.safetensors")
	weight = g.Tensor(name)
	for what, x := range map[string]struct {
		name string
		x    *format.Tensor
	}{
		"arranged for a GPU": {"gauss_bf16.weight_format", text("\x02")},
		"a long format":      {"gauss_bf16.weight_format", text("xx")},
		"scales of another":  {"gauss_bf16.SCB", g.Tensor("odd_1x65_f32.SCB")},
		"scales of bytes":    {"gauss_bf16.SCB", text(strings.Repeat("x", 48))},
	} {
		p, err := OpenBnB(weight, func(n string) *format.Tensor {
			if n == x.name {
				return x.x
			}
			return g.Tensor(n)
		})
		if err == nil {
			t.Errorf("%s: accepted as %v %v", what, p.Type, p.Shape)
		}
	}
}
