package train

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/train/model"
)

// kinds are the settings of each kind of adapter, over those of a short run.
var kinds = []struct {
	name string
	base string // of the zoo; "" is Sprig
	set  func(c *Config)
}{
	{"dora", "", func(c *Config) { c.Adapter.DoRA, c.LRRatio = true, 4 }},
	{"pissa", "", func(c *Config) { c.Adapter.Init = "pissa" }},
	{"eva", "", func(c *Config) { c.Adapter.Init, c.Adapter.EVARho = "eva", 2 }},
	{"patterns", "", func(c *Config) {
		c.Adapter.RankPattern = map[string]int{"q_proj": 2, "blk.1.ffn_down": 6, `model\.layers\.0\.mlp\.up_proj`: 3}
		c.Adapter.AlphaPattern = map[string]float64{"attn_*": 5}
		c.Adapter.Layers = "0-1"
	}},
	{"embedding", "", func(c *Config) {
		c.Adapter.Targets, c.Adapter.Exclude = []string{"all-linear", "embed_tokens"}, []string{"ffn_up"}
	}},
	{"invocation", "", func(c *Config) { c.Adapter.Invocation = " It is" }},
	{"qa-lora", "", func(c *Config) { c.Adapter.QALoRA, c.Adapter.Layers = true, "0-1" }},
	{"lora, dropout, neftune", "llama", func(c *Config) { c.Adapter.Dropout, c.NEFTune = 0.2, 5 }},
	{"rslora", "llama", func(c *Config) { c.Adapter.RSLoRA = true }},
	{"lora-plus", "llama", func(c *Config) { c.LRRatio = 8 }},
	{"head", "llama", func(c *Config) { c.Adapter.Targets = ends }},
	{"head, dora", "llama", func(c *Config) { c.Adapter.Targets, c.Adapter.DoRA, c.Adapter.Dropout = ends, true, 0.1 }},
	{"embedding, dora", "qwen2", func(c *Config) { c.Adapter.Targets, c.Adapter.DoRA = []string{"all-linear", "embed_tokens"}, true }},
	{"head, pissa", "llama", func(c *Config) { c.Adapter.Targets, c.Adapter.Init = ends, "pissa" }},
	{"head, eva", "llama", func(c *Config) { c.Adapter.Targets, c.Adapter.Init, c.Adapter.EVARho = ends, "eva", 2 }},
	{"experts, router loss", "mixtral", func(c *Config) { c.Adapter.Targets, c.RouterLoss, c.Adapter.Dropout = mixed, 0.1, 0.2 }},
	{"experts, dora", "qwen3moe", func(c *Config) { c.Adapter.Targets, c.Adapter.DoRA = mixed, true }},
	{"experts, pissa", "qwen3moe", func(c *Config) { c.Adapter.Targets, c.Adapter.Init = mixed, "pissa" }},
	{"experts, eva", "mixtral", func(c *Config) { c.Adapter.Targets, c.Adapter.Init, c.Adapter.EVARho = mixed, "eva", 2 }},
	{"tokens", "", func(c *Config) {
		c.Adapter.NewTokens, c.Adapter.TrainTokens = []string{" It is", "<|never|>"}, []string{"<|im_end|>", "#7"}
	}},
	{"tokens, merge-aware", "", func(c *Config) {
		c.Adapter.NewTokens, c.Adapter.TrainTokens, c.Adapter.MergeAware, c.LR = []string{" It is"}, []string{"#7"}, true, 1e-2
	}},
	{"tokens alone", "llama", func(c *Config) {
		c.Adapter.Targets, c.Adapter.NewTokens, c.Adapter.NewTokenInit = []string{NoTargets}, []string{" It is"}, "words"
	}},
}

var ends, mixed = []string{"all-linear", "embed_tokens", "lm_head"}, []string{"all-linear", "experts"}

// kindRun is a short run on Sprig or a model of the zoo.
func kindRun(t *testing.T, base string, set func(c *Config)) Config {
	c := smallRun(t)
	if base != "" {
		c.Base, c.LR = testutil.Shared(t, "oracle", "zoo", base, "f32.gguf"), 1e-2
	}
	c.Steps, c.EvalEvery, c.SaveEvery, c.NEFTune, c.KeepBest, c.Patience = 6, 3, 2, 0, false, 0
	c.Adapter.Dropout = 0
	set(&c)
	c.Output = filepath.Join(t.TempDir(), "run")
	return c
}

// TestKinds trains each kind of adapter: whole, stopped at each step and gone on in
// other threads and memory, and in other kernels, it is the same bytes; read again it
// has the loss that it had; and it can be trained further.
func TestKinds(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			c := kindRun(t, k.base, k.set)
			result := mustRun(t, c, Fresh)
			if !(result.EvalLast.Loss < result.EvalFirst.Loss) {
				t.Errorf("the loss was %v and is %v", result.EvalFirst.Loss, result.EvalLast.Loss)
			}
			want := outcomeOf(t, c.Output)

			again := c
			again.Output = filepath.Join(t.TempDir(), "run")
			for at := range 20 {
				ctx, cancel := context.WithCancel(context.Background())
				again.Threads, again.KeepLayers = 1+at%3, at%2
				mode, steps := Resume, 0
				if at == 0 {
					mode = Fresh
				}
				_, err := Run(ctx, again, mode, func(p Progress) {
					if p.Phase == "training" && p.Note == "" {
						if steps++; steps == 2 {
							cancel()
						}
					}
				})
				cancel()
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
			outcomeOf(t, again.Output).mustBe(t, want, "stopped and resumed")

			pure := c
			pure.Output = filepath.Join(t.TempDir(), "run")
			if _, err := begin(&pure, Fresh, nil); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childRun+"="+pure.Output, "GRAFT_KERNEL=avx2")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			outcomeOf(t, pure.Output).mustBe(t, want, "in avx2")

			further := kindRun(t, k.base, func(*Config) {})
			further.Adapter.From, further.Steps, further.Adapter.MergeAware = c.Output, 2, c.Adapter.MergeAware
			if r := mustRun(t, further, Fresh); math.Abs(r.EvalFirst.Loss-result.EvalLast.Loss) > 2e-6*result.EvalLast.Loss {
				t.Errorf("the adapter had a loss of %v, read again it has %v", result.EvalLast.Loss, r.EvalFirst.Loss)
			}
			if got := readAdapter(t, further.Output); !slices.Equal(got.Invocation, readAdapter(t, c.Output).Invocation) || k.name == "invocation" && len(got.Invocation) == 0 {
				t.Errorf("trained further, the invocation is %v", got.Invocation)
			}
		})
	}
}

func readAdapter(t *testing.T, path string) *adapter.Adapter {
	t.Helper()
	a, err := adapter.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestPatterns looks at the ranks and scales of the adapter's file.
func TestPatterns(t *testing.T) {
	t.Parallel()
	c := kindRun(t, "", kinds[3].set)
	c.Steps = 1
	mustRun(t, c, Fresh)
	for _, p := range readAdapter(t, c.Output).Pairs {
		rank, alpha := 4, 32.
		switch {
		case strings.HasSuffix(p.Module, "q_proj"):
			rank = 2
		case p.Module == "model.layers.1.mlp.down_proj":
			rank = 6
		case p.Module == "model.layers.0.mlp.up_proj":
			rank = 3
		}
		if strings.Contains(p.Module, "self_attn") {
			alpha = 5
		}
		if p.Rank != rank || math.Abs(p.Alpha()-alpha) > 1e-6 {
			t.Errorf("%s has rank %d and alpha %v", p.Module, p.Rank, p.Alpha())
		}
		if !strings.Contains(p.Module, "layers.0.") && !strings.Contains(p.Module, "layers.1.") {
			t.Errorf("%s is in none of the layers asked for", p.Module)
		}
	}
	for what, set := range map[string]func(c *AdapterConfig){
		"a layer too many": func(a *AdapterConfig) { a.Layers = "0-99" }, "no range": func(a *AdapterConfig) { a.Layers = "x" },
		"no matrix": func(a *AdapterConfig) { a.RankPattern = map[string]int{"x_proj": 3} },
		"two":       func(a *AdapterConfig) { a.RankPattern = map[string]int{"q_proj": 3, "attn_*": 2} },
		"rank zero": func(a *AdapterConfig) { a.RankPattern = map[string]int{"q_proj": 0} },
	} {
		c := kindRun(t, "", func(c *Config) { set(&c.Adapter) })
		if _, err := Run(context.Background(), c, Fresh, nil); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// TestPiSSA wants A₀ and B₀ to be the matrix's leading part, and the file's change to be
// nothing before the first step.
func TestPiSSA(t *testing.T) {
	t.Parallel()
	base, err := OpenBase(testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf"), model.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	c := DefaultConfig().Adapter
	c.Init, c.Targets, c.Rank, c.Float32 = "pissa", []string{"blk.0.attn_q"}, 8, true
	l, err := newLoRA(context.Background(), base.Model, &c, 1, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	name := l.names[0]
	p := l.adapter.Pairs[name]
	v := base.Source.View(name)
	rows, cols := v.Rows.Dims()
	w := kernel.NewMat(int(rows), int(cols))
	if err := v.Rows.ReadRows(w.Data, 0); err != nil {
		t.Fatal(err)
	}
	// What is left of W is orthogonal to what was taken, and smaller in every direction.
	rest, taken := kernel.NewMat(w.Rows, w.Cols), kernel.NewMat(w.Rows, w.Cols)
	kernel.GemmNN(nil, taken, p.B, p.A, false)
	kernel.Scale(taken.Data, p.Scale, taken.Data)
	kernel.Sub(rest.Data, w.Data, taken.Data)
	total, kept, left := dot64(w.Data, w.Data), dot64(taken.Data, taken.Data), dot64(rest.Data, rest.Data)
	if e := math.Abs(total-kept-left) / total; e > 1e-5 {
		t.Errorf("the parts' squares sum to the whole's but for %.2g", e)
	}
	f := principal(w.Rows, w.Cols, 1, rng.New(1, "rest"), func(x kernel.Mat) kernel.Mat {
		y := kernel.NewMat(x.Rows, rest.Rows)
		kernel.GemmNT(nil, y, x, rest, false)
		return y
	}, func(y kernel.Mat) kernel.Mat {
		x := kernel.NewMat(y.Rows, rest.Cols)
		kernel.GemmNN(nil, x, y, rest, false)
		return x
	})
	least := dot64(p.A.Row(7), p.A.Row(7)) * float64(p.Scale) // σ/s of the last direction, times s
	if f.sigma[0] > 1.02*least {
		t.Errorf("a direction of %v is left, where one of %v was taken", f.sigma[0], least)
	}
	a, err := l.file("x", base)
	if err != nil {
		t.Fatal(err)
	}
	b := a.Pairs[0].B
	kernel.GemmNN(nil, taken, matOf(b), matOf(a.Pairs[0].A), false)
	if a.Pairs[0].Rank != 16 || dot64(taken.Data, taken.Data) > 1e-10*kept {
		t.Errorf("before training the file has rank %d and a change of %v", a.Pairs[0].Rank, dot64(taken.Data, taken.Data))
	}
}

// TestPEFTDoRA runs PEFT's DoRA adapter beside the model that PEFT merged it into.
func TestPEFTDoRA(t *testing.T) {
	t.Parallel()
	dir := testutil.Shared(t, "oracle", "adapters", "base")
	open := func(path string) (*arch.Model, *model.Model) {
		src, err := arch.Open(path, arch.Options{NoVocab: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { src.Close() })
		m, err := model.New(src, model.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return src, m
	}
	merged := t.TempDir()
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(merged, "config.json"), config, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	overlay(t, filepath.Join(merged, "model.safetensors"), filepath.Join(dir, "model.safetensors"), testutil.Shared(t, "oracle", "adapters", "peft-dora", "merged.safetensors"))
	src, m := open(dir)
	_, w := open(merged)
	a := readAdapter(t, testutil.Shared(t, "oracle", "adapters", "peft-dora"))
	if err := a.Resolve(src); err != nil {
		t.Fatal(err)
	}
	ad, err := ModelAdapter(a)
	if err != nil {
		t.Fatal(err)
	}
	logits := func(m *model.Model, with ...model.Scaled) (all []float32) {
		err := m.Logits(&model.Batch{IDs: []int32{1, 5, 9, 2, 7, 7, 3}}, func(_ int, x kernel.Mat) error {
			all = append(all, x.Data[:x.Rows*x.Cols]...)
			return nil
		}, with...)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	got, want, plain := logits(m, model.Scaled{Adapter: ad, Weight: 1}), logits(w), logits(m)
	e, d := distanceOf(got, want), distanceOf(plain, want)
	t.Logf("the logits differ by %.2g of their size, without the adapter by %.2g", e, d)
	if e > 1e-5 || d < 1e-3 {
		t.Errorf("the logits differ by %.2g, without the adapter by %.2g", e, d)
	}
}

// overlay writes the float32 tensors of a file, those in another in their place.
func overlay(t *testing.T, to, from, other string) {
	t.Helper()
	open := func(path string) *safetensors.File {
		f, err := safetensors.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	base, over := open(from), open(other)
	header, body := map[string]any{}, []byte{}
	for _, x := range base.Tensors {
		if y := over.Tensor(x.Name); y != nil {
			x = y
		}
		b := make([]byte, x.Size)
		if _, err := x.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		header[x.Name] = map[string]any{"dtype": "F32", "shape": x.Shape, "data_offsets": []int{len(body), len(body) + len(b)}}
		body = append(body, b...)
	}
	head, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	for len(head)%8 != 0 {
		head = append(head, ' ')
	}
	all := append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...)
	if err := os.WriteFile(to, append(all, body...), 0o666); err != nil {
		t.Fatal(err)
	}
}

// distanceOf is the norm of x - y over that of y.
func distanceOf(x, y []float32) float64 {
	var d, n float64
	for i, v := range y {
		d += (float64(x[i]) - float64(v)) * (float64(x[i]) - float64(v))
		n += float64(v) * float64(v)
	}
	return math.Sqrt(d / n)
}

// TestStackOf fills up experts of other ranks and scales.
func TestStackOf(t *testing.T) {
	t.Parallel()
	pair := func(e, r int, scale float32) *adapter.Pair {
		p := &adapter.Pair{Expert: e, Rank: r, Scale: scale, A: adapter.Matrix{Rows: r, Cols: 3, Data: make([]float32, 3*r)},
			B: adapter.Matrix{Rows: 2, Cols: r, Data: make([]float32, 2*r)}}
		for i := range p.A.Data {
			p.A.Data[i] = float32(i + e)
		}
		for i := range p.B.Data {
			p.B.Data[i] = float32(2*i - e)
		}
		return p
	}
	pairs := []*adapter.Pair{pair(1, 2, 0.5), pair(3, 1, 2)}
	s, err := stackOf(pairs, 4)
	if err != nil {
		t.Fatal(err)
	}
	for e := range 4 {
		got := kernel.NewMat(2, 3)
		kernel.GemmNN(nil, got, s.B.Sub(2*e, 2*e+2, 0, 2), s.A.Sub(2*e, 2*e+2, 0, 3), false)
		want := kernel.NewMat(2, 3)
		for _, p := range pairs {
			if p.Expert == e {
				kernel.GemmNN(nil, want, matOf(p.B), matOf(p.A), false)
				kernel.Scale(want.Data, p.Scale/s.Scale, want.Data)
			}
		}
		if !slices.Equal(got.Data, want.Data) {
			t.Errorf("expert %d is changed by %v, not %v", e, got.Data, want.Data)
		}
	}
	pairs[0].Magnitude = []float32{1, 1}
	var unsupported *format.UnsupportedError
	if _, err := stackOf(pairs, 4); !errors.As(err, &unsupported) {
		t.Errorf("magnitudes of some experts: %v", err)
	}
	if _, err := stackOf(pairs[1:], 2); err == nil {
		t.Error("expert 3 of 2 is taken")
	}
}
