package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/testutil"
	_ "github.com/graft-lora/graft/quant"
)

// openModel opens a file or folder; one that cannot be opened ends the test.
func openModel(t testing.TB, path string) *arch.Model {
	t.Helper()
	src, err := arch.Open(path, arch.Options{NoVocab: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

func newModel(t testing.TB, src *arch.Model, opt Options) *Model {
	t.Helper()
	m, err := New(src, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// ggufAdapter reads an adapter file.
func ggufAdapter(t testing.TB, path string) *Adapter {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	alpha, _ := f.Meta.Float("adapter.lora.alpha")
	a := NewAdapter()
	for _, x := range f.Tensors {
		name, isA := strings.CutSuffix(x.Name, ".lora_a")
		if !isA {
			continue
		}
		p := &Pair{A: matrixOf(t, x), B: matrixOf(t, f.Tensor(name+".lora_b"))}
		p.Scale = float32(alpha / float64(p.Rank()))
		a.Pairs[name] = p
	}
	return a
}

func matrixOf(t testing.TB, s *format.Tensor) kernel.Mat {
	t.Helper()
	rows, err := format.StoredRows(s)
	if err != nil {
		t.Fatal(err)
	}
	x := kernel.NewMat(int(s.Rows()), int(s.Cols()))
	if err := rows.ReadRows(x.Data, 0); err != nil {
		t.Fatal(err)
	}
	return x
}

// oracle is what another implementation recorded.
type oracle struct {
	t testing.TB
	f *safetensors.File
}

func openOracle(t testing.TB, path string) oracle {
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return oracle{t, f}
}

func (o oracle) bytes(name string) []byte {
	o.t.Helper()
	x := o.f.Tensor(name)
	if x == nil {
		o.t.Fatalf("the oracle has no %s", name)
	}
	b := make([]byte, x.Size)
	if _, err := x.ReadAt(b, 0); err != nil {
		o.t.Fatal(err)
	}
	return b
}

func (o oracle) floats(name string) []float32 {
	o.t.Helper()
	b := o.bytes(name)
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

func (o oracle) ids(name string) []int32 {
	o.t.Helper()
	b := o.bytes(name)
	x := make([]int32, len(b)/8)
	for i := range x {
		x[i] = int32(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return x
}

// relative is the norm of got-want over that of want.
func relative(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var d, n float64
	for i := range want {
		e := float64(got[i]) - float64(want[i])
		d += e * e
		n += float64(want[i]) * float64(want[i])
	}
	return math.Sqrt(d / max(n, 1e-60))
}

// zoo is the architectures of the shared oracle and what is different about some.
var zoo = []struct {
	name     string
	permuted bool               // rows of q and k are interleaved in GGUF
	meta     func(m *gguf.Meta) // what GGUF cannot say of this model
}{
	{name: "llama", permuted: true},
	{name: "qwen2"},
	{name: "qwen3"},
	{name: "gemma3"},
	{name: "gemma2", meta: func(m *gguf.Meta) { m.Set("graft.attention.scale", float32(1/math.Sqrt(24))) }},
	{name: "mistral", permuted: true},
	{name: "llama3-rope", permuted: true},
	{name: "phi3"},
	{name: "smollm3", permuted: true},
	{name: "olmo2"},
	{name: "granite", permuted: true},
	{name: "mixtral", permuted: true},
	{name: "qwen3moe"},
}

// zooBatch is the batch that the oracle recorded.
func zooBatch(o oracle) *Batch {
	ids := o.ids("ids")
	rows := int(o.f.Tensor("ids").Shape[0])
	lens := make([]int, rows)
	for i := range lens {
		lens[i] = len(ids) / rows
	}
	return &Batch{IDs: ids, Lens: lens, Targets: ShiftLabels(o.ids("labels"), lens)}
}

// TestZoo compares hidden states, logits, losses and every gradient with what
// transformers and PEFT recorded.
func TestZoo(t *testing.T) {
	testutil.Shared(t, "oracle", "zoo")
	for _, z := range zoo {
		t.Run(z.name, func(t *testing.T) {
			t.Parallel()
			dir := testutil.Shared(t, "oracle", "zoo", z.name)
			for _, source := range []string{"f32.gguf", "hf"} {
				src := openModel(t, filepath.Join(dir, source))
				if z.meta != nil && source != "hf" {
					z.meta(src.Meta)
				}
				compareZoo(t, newModel(t, src, Options{Threads: 1}), dir, source, z.permuted)
			}
		})
	}
}

// zooTolerance is a tenth of what the project asks for; at most 2e-6 is seen (gemma3).
const zooTolerance = 1e-5

func compareZoo(t *testing.T, m *Model, dir, source string, permuted bool) {
	o := openOracle(t, filepath.Join(dir, "oracle.safetensors"))
	b := zooBatch(o)
	worst := map[string]float64{}
	check := func(group, name string, got, want []float32) {
		t.Helper()
		r := relative(got, want)
		worst[group] = max(worst[group], r)
		if !(r < zooTolerance) {
			t.Errorf("%s: relative error %.2g", name, r)
		}
	}
	logits := func(adapters ...Scaled) []float32 {
		var all []float32
		if err := m.Logits(b, func(_ int, x kernel.Mat) error { all = append(all, x.Data...); return nil }, adapters...); err != nil {
			t.Fatal(err)
		}
		return all
	}
	m.OnHidden = func(i int, x kernel.Mat) {
		name := fmt.Sprintf("hidden.%d", i)
		check("hidden", name, x.Data, o.floats(name))
	}
	check("logits", "logits", logits(), o.floats("logits"))
	m.OnHidden = nil
	loss, err := m.Loss(b)
	if err != nil {
		t.Fatal(err)
	}
	check("loss", "loss", []float32{float32(loss.Mean())}, o.floats("loss"))

	a := ggufAdapter(t, filepath.Join(dir, "adapter.gguf"))
	check("logits", "adapter.logits", logits(Scaled{a, 1}), o.floats("adapter.logits"))
	g := NewGrads(a)
	loss, err = m.LossAndGrad(b, a, g)
	if err != nil {
		t.Fatal(err)
	}
	check("loss", "adapter.loss", []float32{float32(loss.Mean())}, o.floats("adapter.loss"))
	n := 0
	for _, x := range o.f.Tensors {
		peft, ok := strings.CutPrefix(x.Name, "grad.base_model.model.model.")
		if !ok {
			continue
		}
		n++
		name, isA := ggufName(t, peft)
		d := g[name]
		if d == nil {
			t.Fatalf("no gradient of %s", name)
		}
		got := d.B
		if isA {
			got = d.A
		} else if permuted && strings.Contains(name, "attn_q") {
			got = halves(got, m.Heads)
		} else if permuted && strings.Contains(name, "attn_k") {
			got = halves(got, m.KVHeads)
		}
		for i := range got.Data {
			got.Data[i] /= float32(loss.Tokens)
		}
		check("gradients", x.Name, got.Data, o.floats(x.Name))
	}
	if n != 2*len(a.Pairs) {
		t.Errorf("%d gradients recorded for %d pairs", n, len(a.Pairs))
	}
	t.Logf("%s/%s: largest relative errors: hidden %.1e, logits %.1e, loss %.1e, gradients %.1e",
		filepath.Base(dir), source, worst["hidden"], worst["logits"], worst["loss"], worst["gradients"])
}

// halves undoes the interleaving of every head's rows that GGUF has for NORM rope.
func halves(x kernel.Mat, heads int) kernel.Mat {
	y := kernel.NewMat(x.Rows, x.Cols)
	dim := x.Rows / heads
	for h := range heads {
		for j := range dim / 2 {
			for s := range 2 {
				copy(y.Row(h*dim+s*dim/2+j), x.Row(h*dim+2*j+s))
			}
		}
	}
	return y
}

var peftName = regexp.MustCompile(`^layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])\.weight$`)

// ggufName is the matrix that a PEFT name means.
func ggufName(t testing.TB, peft string) (name string, isA bool) {
	t.Helper()
	modules := map[string]string{
		"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "qkv_proj": "attn_qkv",
		"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down", "gate_up_proj": "ffn_up",
	}
	p := peftName.FindStringSubmatch(peft)
	if p == nil || modules[p[2]] == "" {
		t.Fatalf("unknown PEFT name %s", peft)
	}
	return "blk." + p[1] + "." + modules[p[2]] + ".weight", p[3] == "A"
}
