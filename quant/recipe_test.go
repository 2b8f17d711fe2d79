package quant

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/testutil"
)

// layerTensors builds the weights of a model: "name cols rows [stack]", with "blk.*."
// for every layer from first on.
func layerTensors(first, layers int, lines ...string) (ts []TensorDesc) {
	for _, line := range lines {
		var name string
		var cols, rows, stack int64
		n, err := fmt.Sscan(line, &name, &cols, &rows, &stack)
		if n < 3 {
			panic(err)
		}
		shape := []int64{rows, cols}
		if n == 4 {
			shape = []int64{stack, rows, cols}
		}
		if !strings.Contains(name, "blk.*.") {
			ts = append(ts, TensorDesc{name, format.F16, shape})
			continue
		}
		for i := first; i < layers; i++ {
			ts = append(ts, TensorDesc{strings.Replace(name, "*", fmt.Sprint(i), 1), format.F16, shape})
		}
	}
	return ts
}

func denseModel(arch string, layers, heads, kv, embd, ff, vocab, head int, tied bool) Model {
	lines := []string{
		fmt.Sprint("token_embd.weight ", embd, vocab),
		fmt.Sprint("blk.*.attn_q.weight ", embd, heads*head),
		fmt.Sprint("blk.*.attn_k.weight ", embd, kv*head),
		fmt.Sprint("blk.*.attn_v.weight ", embd, kv*head),
		fmt.Sprint("blk.*.attn_output.weight ", heads*head, embd),
		fmt.Sprint("blk.*.ffn_gate.weight ", embd, ff),
		fmt.Sprint("blk.*.ffn_up.weight ", embd, ff),
		fmt.Sprint("blk.*.ffn_down.weight ", ff, embd),
	}
	if !tied {
		lines = append(lines, fmt.Sprint("output.weight ", embd, vocab))
	}
	m := Model{Arch: arch, Layers: layers, Heads: heads, KVHeads: kv, Tensors: layerTensors(0, layers, lines...)}
	Order(m.Tensors)
	return m
}

// snapshotModels are the models of ../shared/recipes, from their headers and, for
// what the headers leave out, their published configurations.
func snapshotModels() map[string]Model {
	models := map[string]Model{
		"gemma-3-4b-it":               denseModel("gemma3", 34, 8, 4, 2560, 10240, 262144, 256, true),
		"meta-llama-3.1-70b-instruct": denseModel("llama", 80, 64, 8, 8192, 28672, 128256, 128, false),
		"qwen3-0.6b":                  denseModel("qwen3", 28, 16, 8, 1024, 3072, 151936, 128, false),
		"qwen3-14b":                   denseModel("qwen3", 40, 40, 8, 5120, 17408, 151936, 128, false),
		"gpt-oss-120b":                {Arch: "gpt-oss", Layers: 36, Experts: 128, Heads: 64, KVHeads: 8},
		"deepseek-v3.1":               {Arch: "deepseek2", Layers: 61, Experts: 256, Heads: 128, KVHeads: 1},
	}
	m := models["gpt-oss-120b"]
	m.Tensors = layerTensors(0, m.Layers,
		"token_embd.weight 2880 201088", "output.weight 2880 201088",
		"blk.*.attn_q.weight 2880 4096", "blk.*.attn_k.weight 2880 512", "blk.*.attn_v.weight 2880 512",
		"blk.*.attn_output.weight 4096 2880", "blk.*.ffn_gate_inp.weight 2880 128",
		"blk.*.ffn_gate_exps.weight 2880 2880 128", "blk.*.ffn_up_exps.weight 2880 2880 128", "blk.*.ffn_down_exps.weight 2880 2880 128")
	Order(m.Tensors)
	models["gpt-oss-120b"] = m
	m = models["deepseek-v3.1"]
	m.Tensors = layerTensors(0, m.Layers,
		"token_embd.weight 7168 129280", "output.weight 7168 129280",
		"blk.*.attn_q_a.weight 7168 1536", "blk.*.attn_q_b.weight 1536 24576", "blk.*.attn_kv_a_mqa.weight 7168 576",
		"blk.*.attn_k_b.weight 128 512 128", "blk.*.attn_v_b.weight 512 128 128", "blk.*.attn_output.weight 16384 7168")
	m.Tensors = append(m.Tensors, layerTensors(0, 3,
		"blk.*.ffn_gate.weight 7168 18432", "blk.*.ffn_up.weight 7168 18432", "blk.*.ffn_down.weight 18432 7168")...)
	m.Tensors = append(m.Tensors, layerTensors(3, m.Layers,
		"blk.*.ffn_gate_inp.weight 7168 256",
		"blk.*.ffn_gate_shexp.weight 7168 2048", "blk.*.ffn_up_shexp.weight 7168 2048", "blk.*.ffn_down_shexp.weight 2048 7168",
		"blk.*.ffn_gate_exps.weight 7168 2048 256", "blk.*.ffn_up_exps.weight 7168 2048 256", "blk.*.ffn_down_exps.weight 2048 7168 256")...)
	Order(m.Tensors)
	models["deepseek-v3.1"] = m
	return models
}

// TestRecipeSnapshots compares every tensor of six models in every file type with
// llama.cpp's own snapshots, which list the tensors that differ from the default.
func TestRecipeSnapshots(t *testing.T) {
	for name, m := range snapshotModels() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sections := readSchema(t, testutil.Shared(t, "recipes", name+".schema"))
			if len(sections) < 30 {
				t.Fatalf("only %d file types in the snapshot", len(sections))
			}
			known := map[string]bool{}
			for _, d := range m.Tensors {
				known[d.Name] = true
			}
			for _, s := range sections {
				ftype, err := ParseFileType(s.name)
				if err != nil {
					t.Fatal(err)
				}
				choices, err := Recipe{FileType: ftype}.Types(m)
				if err != nil {
					t.Errorf("%s: %v", s.name, err)
					continue
				}
				for _, c := range choices {
					want, listed := s.types[c.Tensor]
					if !listed {
						want = s.def
					}
					if c.Quantize && c.Type.String() != want {
						t.Errorf("%s: %s is %v (%s), want %s", s.name, c.Tensor, c.Type, c.Why, want)
					}
					if !c.Quantize && listed {
						t.Errorf("%s: %s is kept (%s), want %s", s.name, c.Tensor, c.Why, want)
					}
					if c.Why == "" {
						t.Errorf("%s: %s has no reason", s.name, c.Tensor)
					}
				}
				for tensor := range s.types {
					if !known[tensor] {
						t.Errorf("%s: the snapshot has %s, the model of this test does not", s.name, tensor)
					}
				}
			}
		})
	}
}

type schema struct {
	name, def string
	types     map[string]string
}

func readSchema(t *testing.T, path string) (sections []schema) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		switch {
		case len(fields) != 2 || fields[0] == "#":
		case strings.HasPrefix(fields[0], "["):
			sections = append(sections, schema{strings.Trim(fields[0], "[]"), fields[1], map[string]string{}})
		default:
			sections[len(sections)-1].types[fields[0]] = fields[1]
		}
	}
	return sections
}

// TestRecipeOptions checks what the options of llama-quantize mean beside a recipe.
func TestRecipeOptions(t *testing.T) {
	t.Parallel()
	m := denseModel("llama", 8, 8, 8, 512, 1024, 1000, 64, false)
	typ := func(t format.Type) *format.Type { return &t }
	must := func(s string) TensorType {
		o, err := ParseTensorType(s)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	for _, c := range []struct {
		name   string
		recipe Recipe
		want   map[string]format.Type
	}{
		{"plain", Recipe{FileType: Q4_K_M}, map[string]format.Type{
			"output.weight": format.Q6_K, "token_embd.weight": format.Q4_K,
			"blk.0.attn_v.weight": format.Q6_K, "blk.1.attn_v.weight": format.Q4_K, "blk.3.attn_v.weight": format.Q6_K}},
		{"pure", Recipe{FileType: Q4_K_M, Pure: true}, map[string]format.Type{
			"output.weight": format.Q4_K, "blk.0.attn_v.weight": format.Q4_K}},
		{"leave output", Recipe{FileType: Q4_K_M, LeaveOutput: true}, map[string]format.Type{"output.weight": format.F16}},
		{"output type", Recipe{FileType: Q4_K_M, OutputType: typ(format.Q8_0)}, map[string]format.Type{"output.weight": format.Q8_0}},
		{"embedding type", Recipe{FileType: Q4_K_M, TokenEmbeddingType: typ(format.BF16)}, map[string]format.Type{"token_embd.weight": format.BF16}},
		// A tensor taken by a pattern does not count: the layers after it move up by one.
		{"pattern", Recipe{FileType: Q4_K_M, TensorTypes: []TensorType{must(`BLK\.0\.attn_v=q8_0`)}}, map[string]format.Type{
			"blk.0.attn_v.weight": format.Q8_0, "blk.1.attn_v.weight": format.Q6_K, "blk.3.attn_v.weight": format.Q4_K, "blk.4.attn_v.weight": format.Q6_K}},
		{"first pattern wins", Recipe{FileType: Q4_0, Pure: true, TensorTypes: []TensorType{must("ffn=q5_0"), must("ffn_up=q8_0")}}, map[string]format.Type{
			"blk.2.ffn_up.weight": format.Q5_0, "blk.2.attn_q.weight": format.Q4_0}},
		{"patterns do nothing for floats", Recipe{FileType: F16, TensorTypes: []TensorType{must("ffn=q5_0")}}, map[string]format.Type{
			"blk.2.ffn_up.weight": format.F16}},
		{"imatrix", Recipe{FileType: Q4_0, Imatrix: true}, map[string]format.Type{
			"blk.0.ffn_down.weight": format.Q4_1, "blk.1.ffn_down.weight": format.Q4_0}},
	} {
		choices, err := c.recipe.Types(m)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := map[string]format.Type{}
		for _, ch := range choices {
			got[ch.Tensor] = ch.Type
		}
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%s: %s is %v, want %v", c.name, name, got[name], want)
			}
		}
	}
	for _, bad := range []string{"x", "=q4_0", "x=", "x=q9", "x=nf4", "(=q4_0"} {
		if _, err := ParseTensorType(bad); err == nil {
			t.Errorf("tensor type %q is accepted", bad)
		}
	}
	m.Tensors[0].Shape = []int64{16, 48}
	if choices, err := (Recipe{FileType: Q8_0, Pure: true}).Types(m); err != nil || choices[0].Type != format.F16 || !choices[0].Fallback {
		t.Errorf("rows of 48 as q8_0: %v, %v", choices, err)
	}
	if _, err := (Recipe{FileType: Q1_0, Pure: true}).Types(m); err == nil {
		t.Error("rows of 48 are accepted for q1_0")
	}
}

// TestRecipeLayerEmbeddings checks that the embeddings of each layer follow the token
// embedding's type unless a pattern names them.
func TestRecipeLayerEmbeddings(t *testing.T) {
	t.Parallel()
	q8 := format.Q8_0
	m := Model{Arch: "gemma3n", Layers: 2, Tensors: []TensorDesc{{perLayerEmbedding, format.F16, []int64{64, 256}}, {"token_embd.weight", format.F16, []int64{64, 256}}}}
	for pattern, want := range map[string]format.Type{"attn=q4_0": format.Q8_0, "token_embd=q4_0": format.Q4_0} {
		o, err := ParseTensorType(pattern)
		if err != nil {
			t.Fatal(err)
		}
		choices, err := Recipe{FileType: Q4_K_M, TokenEmbeddingType: &q8, TensorTypes: []TensorType{o}}.Types(m)
		if err != nil || choices[0].Type != want || choices[1].Type != format.Q8_0 {
			t.Errorf("%s: %v, %v; want %v and q8_0", pattern, choices, err, want)
		}
	}
}

// TestRecipeOfOneArchitecture checks rules that hold for one architecture only.
func TestRecipeOfOneArchitecture(t *testing.T) {
	t.Parallel()
	for arch, want := range map[string][3]format.Type{"glm5-next": {format.Q8_0, format.F16, format.Q4_K}, "glm4": {format.Q4_K, format.Q4_K, format.Q4_K}} {
		m := Model{Arch: arch, Layers: 1}
		for _, part := range []string{"attn_q_b", "attn_k_b", "ffn_up"} {
			m.Tensors = append(m.Tensors, TensorDesc{"blk.0." + part + ".weight", format.F16, []int64{64, 256}})
		}
		choices, err := Recipe{FileType: Q4_K_S}.Types(m)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range choices {
			if c.Type != want[i] {
				t.Errorf("%s: %s is %v (%s), want %v", arch, c.Tensor, c.Type, c.Why, want[i])
			}
		}
	}
}

// TestFileTypes checks names, aliases and numbers.
func TestFileTypes(t *testing.T) {
	t.Parallel()
	for _, info := range FileTypes() {
		for _, s := range append([]string{info.Name, strings.ToLower(info.Name), fmt.Sprint(uint32(info.ID))}, info.Aliases...) {
			if got, err := ParseFileType(s); err != nil || got != info.ID {
				t.Errorf("%q is %v, %v; want %v", s, got, err, info.ID)
			}
		}
	}
	for _, bad := range []string{"", "4", "Q4_K_X", "-1"} {
		if got, err := ParseFileType(bad); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}
