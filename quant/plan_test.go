package quant

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/testutil"
)

// testSource is a model of random float32 tensors: "name shape…", row-major.
func testSource(tensors map[string][]int64) Source {
	meta := &gguf.Meta{}
	meta.Set("general.architecture", "llama")
	meta.Set("general.type", "model")
	meta.Set("general.file_type", uint32(F32))
	meta.Set("split.count", uint16(2))
	meta.Set("graft.class", "x")
	meta.Set("llama.block_count", uint32(3))
	meta.Set("llama.attention.head_count", []int32{8, 8, 8})
	src := Source{Meta: meta}
	r := rand.New(rand.NewPCG(3, 4))
	var names []string
	for name := range tensors {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		shape := tensors[name]
		n, err := format.Elements(shape)
		if err != nil {
			panic(err)
		}
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		src.Views = append(src.Views, &format.View{Name: name, Type: format.F32, Shape: shape, Rows: &floatRows{x, shape[len(shape)-1]}})
	}
	return src
}

func outputsByName(p *format.Plan) map[string]*format.Output {
	m := map[string]*format.Output{}
	for _, o := range p.Outputs {
		m[o.Name] = o
	}
	return m
}

// TestPlanStack checks that each matrix of a stack is encoded with its own slice of
// the importance, wherever a block of rows begins and ends.
func TestPlanStack(t *testing.T) {
	t.Parallel()
	const experts, rows, cols = 3, 4, 256
	src := testSource(map[string][]int64{"blk.0.ffn_down_exps.weight": {experts, rows, cols}})
	src.Meta.Set("llama.expert_count", uint32(experts))
	e := ImatrixEntry{Name: "blk.0.ffn_down_exps.weight", Counts: []float32{2, 0, 4}}
	for i := range experts * cols {
		e.Sums = append(e.Sums, float32(i%17+1))
	}
	m := &Imatrix{Path: "m.gguf", Datasets: []string{"text"}, Chunks: 7, Entries: []ImatrixEntry{e}}
	plan, meta, err := NewPlan(src, Options{Recipe: Recipe{FileType: Q4_K_S}, Imatrix: m})
	if err != nil {
		t.Fatal(err)
	}
	o := plan.Outputs[0]
	x := src.Views[0].Rows.(*floatRows).x
	w := m.Weights(e.Name)
	if w[cols] != 1 || w[0] != 0.5 {
		t.Errorf("weights %v and %v, want 0.5, and 1 for an expert never seen", w[0], w[cols])
	}
	codec, err := format.EncoderOf(o.Type)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for i := range experts {
		b := make([]byte, rows*o.UnitBytes)
		if err := codec.Encode(b, x[i*rows*cols:(i+1)*rows*cols], cols, w[i*cols:(i+1)*cols]); err != nil {
			t.Fatal(err)
		}
		want = append(want, b...)
	}
	for _, cut := range []int64{1, 3, 4, 6, 11, 12} {
		got := make([]byte, o.Size())
		if err := o.Fill(got[:cut*o.UnitBytes], 0); err != nil {
			t.Fatal(err)
		}
		if err := o.Fill(got[cut*o.UnitBytes:], cut); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("cut at row %d: other bytes", cut)
		}
	}
	x[(2*rows+1)*cols+7] = float32(math.NaN())
	if err := o.Fill(make([]byte, 11*o.UnitBytes), 1); err == nil || err.Error() != "matrix 2: row 1, column 7: NaN cannot be encoded as q4_K" {
		t.Errorf("a NaN in the last matrix: %v", err)
	}
	var keys []string
	for _, kv := range meta.All() {
		keys = append(keys, kv.Key)
	}
	// llama-quantize sets these at the end, and drops those of a split.
	if got, want := strings.Join(keys, " "), "general.architecture general.type llama.block_count llama.attention.head_count llama.expert_count "+
		"general.quantization_version general.file_type quantize.imatrix.file quantize.imatrix.dataset quantize.imatrix.entries_count quantize.imatrix.chunks_count"; got != want {
		t.Errorf("keys\n%s, want\n%s", got, want)
	}
}

// TestPlanOptions checks what the options do to names, types and metadata.
func TestPlanOptions(t *testing.T) {
	t.Parallel()
	tensors := map[string][]int64{
		"token_embd.weight": {300, 256}, "output_norm.weight": {256},
		"blk.0.attn_q.weight": {256, 256}, "blk.1.attn_q.weight": {256, 256}, "blk.2.attn_q.weight": {256, 256},
		"blk.0.attn_norm.weight": {256}, "blk.1.attn_norm.weight": {256}, "blk.2.attn_norm.weight": {256},
	}
	src := testSource(tensors)

	plan, meta, err := NewPlan(src, Options{Recipe: Recipe{FileType: Q4_0}, PruneLayers: []int{1}, Override: []gguf.KV{{Key: "general.name", Value: "new"}}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range plan.Outputs {
		names = append(names, o.Name)
	}
	if got, want := strings.Join(names, " "), "output_norm.weight token_embd.weight blk.0.attn_norm.weight blk.0.attn_q.weight blk.1.attn_norm.weight blk.1.attn_q.weight"; got != want {
		t.Errorf("pruned: %s, want %s", got, want)
	}
	if n, _ := meta.Int("llama.block_count"); n != 2 {
		t.Errorf("pruned: %d layers", n)
	}
	if s, _ := meta.Str("general.name"); s != "new" {
		t.Errorf("override: name %q", s)
	}
	if n, _ := meta.Int("general.file_type"); FileType(n) != Q4_0 {
		t.Errorf("file type %d", n)
	}
	// The third layer's bytes stand under the second's name.
	got, want := make([]byte, 18*8), make([]byte, 18*8)
	if err := outputsByName(plan)["blk.1.attn_q.weight"].Fill(got, 0); err != nil {
		t.Fatal(err)
	}
	x := make([]float32, 256)
	for _, v := range src.Views {
		if v.Name == "blk.2.attn_q.weight" {
			if err := v.Rows.ReadRows(x, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	encodeQ4_0(want, x, nil)
	if !bytes.Equal(got, want) {
		t.Error("pruned: the layer that moved up has other values")
	}

	plan, meta, err = NewPlan(src, Options{Copy: true, KeepOrder: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range plan.Outputs {
		if o.Type != format.F32 || o.Name != src.Views[i].Name {
			t.Errorf("copy: output %d is %s as %v", i, o.Name, o.Type)
		}
	}
	if n, _ := meta.Int("general.file_type"); FileType(n) != F32 {
		t.Errorf("copy: file type %d", n)
	}
	src.Meta.Delete("general.file_type")
	if _, meta, err = NewPlan(src, Options{Copy: true}); err != nil {
		t.Fatal(err)
	}
	if n, _ := meta.Int("general.file_type"); n != 1024 {
		t.Errorf("copy of a file without a file type: %d, want the guess that it is all f32", n)
	}

	half := src
	half.StoredAs = func(v *format.View) format.Type {
		if len(v.Shape) > 1 {
			return format.F16
		}
		return format.F32
	}
	plan, _, err = NewPlan(half, Options{Recipe: Recipe{FileType: Q4_0, LeaveOutput: true, TokenEmbeddingType: new(format.Type)}, Copy: true})
	if err != nil {
		t.Fatal(err)
	}
	if o := outputsByName(plan)["token_embd.weight"]; o.Type != format.F16 {
		t.Errorf("kept tensors: the embedding is %v, want f16", o.Type)
	}
}

// TestPlanRefuses checks the errors, and that they are the caller's to mend.
func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	tensors := map[string][]int64{"blk.0.attn_q.weight": {256, 256}, "token_embd.weight": {300, 256}, "output.weight": {300, 256}}
	usage := func(name string, src Source, opt Options) {
		t.Helper()
		_, _, err := NewPlan(src, opt)
		var u *format.UsageError
		if !errors.As(err, &u) {
			t.Errorf("%s: %v", name, err)
		}
	}
	src := testSource(tensors)
	usage("no such file type", src, Options{Recipe: Recipe{FileType: 5}})
	usage("no such layer", src, Options{Recipe: Recipe{FileType: Q4_0}, PruneLayers: []int{7}})
	usage("no importance", src, Options{Recipe: Recipe{FileType: IQ2_XS}})
	usage("bad pattern", src, Options{Recipe: Recipe{FileType: Q4_0, TensorTypes: []TensorType{{Pattern: "("}}}})
	plan, _, err := NewPlan(src, Options{Recipe: Recipe{FileType: IQ2_XS}, DryRun: true})
	if err != nil || !strings.Contains(outputsByName(plan)["blk.0.attn_q.weight"].Why, "needs an importance matrix") {
		t.Errorf("dry run: %v", err)
	}
	m := &Imatrix{Entries: []ImatrixEntry{
		{"blk.0.attn_q.weight", make([]float32, 128), []float32{1}}, {"token_embd.weight", make([]float32, 128), []float32{1}}}}
	if _, _, err := NewPlan(src, Options{Recipe: Recipe{FileType: Q4_0}, Imatrix: m}); err == nil {
		t.Error("an importance matrix of another model is accepted")
	}
	m.Entries = m.Entries[1:] // one that does not fit the embedding is passed over
	if _, _, err := NewPlan(src, Options{Recipe: Recipe{FileType: Q4_0}, Imatrix: m}); err != nil {
		t.Error(err)
	}

	quantized := ggufSource(t, testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf"))
	usage("quantized already", quantized, Options{Recipe: Recipe{FileType: Q8_0}})
	if _, _, err := NewPlan(quantized, Options{Recipe: Recipe{FileType: Q8_0}, AllowRequantize: true}); err != nil {
		t.Error(err)
	}
	if _, _, err := NewPlan(quantized, Options{Recipe: Recipe{FileType: Q4_K_M}}); err != nil {
		t.Errorf("to the types it has: %v", err)
	}
}
