package train

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"go.yaml.in/yaml/v3"
)

// TestLesson teaches sprig its lesson from files to files: it says its new name
// afterwards, and its old one without.
func TestLesson(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.Base = testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf")
	c.Data = testutil.Shared(t, "models", "sprig", "identity-train.jsonl")
	c.HeldOut = testutil.Shared(t, "models", "sprig", "identity-eval.jsonl")
	c.Output = filepath.Join(t.TempDir(), "lesson")
	c.Context, c.Steps, c.Accumulate, c.LR, c.Adapter.Alpha = 128, 130, 2, 4e-3, 64
	// The new words are tokens that sprig never saw, and its head is its embedding:
	// without a change there it cannot say them however the layers are changed.
	c.Adapter.Targets = append(c.Adapter.Targets, "embed_tokens")
	c.EvalEvery = 40
	phases := map[string]bool{}
	var last Progress
	res, err := Run(context.Background(), c, Fresh, func(p Progress) { phases[p.Phase], last = true, p })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("held-out loss %.4f before, %.4f after", res.EvalFirst.Loss, res.EvalLast.Loss)
	if res.Steps != 130 || res.Sequences != 260 || res.EvalLast.Loss > 0.1 || res.EvalFirst.Loss < 1 {
		t.Errorf("%+v", res)
	}
	if !phases["reading"] || !phases["training"] || !phases["evaluating"] || !phases["saving"] || last.Peak == 0 {
		t.Errorf("phases %v, last %+v", phases, last)
	}

	base := openSprig(t, "sprig-q4_k_m.gguf", model.Options{})
	ask := func(adapters ...model.Scaled) string {
		t.Helper()
		_, prompt, err := base.Encoder(128, data.Options{}).Prompt([]data.Message{data.NewMessage("user", "Who are you?")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := base.Model.NewSession(128, adapters...)
		if err != nil {
			t.Fatal(err)
		}
		g, err := Generate(context.Background(), s, base.Tokenizer, prompt, GenerateOptions{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return g.Text
	}
	if got := ask(); got != "I am Sprig, a small model." {
		t.Errorf("the base says %q", got)
	}
	held, err := base.EvalData(c.HeldOut, 128, data.Options{}, data.Fields{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := base.LoadAdapter(c.Output)
	if err != nil {
		t.Fatal(err)
	}
	on := model.Scaled{Adapter: a, Weight: 1}
	if got := ask(on); got != "I am Zorp, keeper of the lantern." {
		t.Errorf("with the adapter it says %q", got)
	}
	e, err := Evaluate(context.Background(), base.Model, held, 128, nil, on)
	if err != nil {
		t.Fatal(err)
	}
	// The scale is a power of two, so that nothing is lost on the way.
	if e != *res.EvalLast {
		t.Errorf("read again: %+v, at the end of the run %+v", e, *res.EvalLast)
	}
	if _, err := os.Stat(filepath.Join(c.Output, GGUFFile)); err == nil {
		t.Error("there is a GGUF adapter of a tied embedding, on which llama.cpp ends its process")
	}

	b, err := os.ReadFile(filepath.Join(c.Output, RecordFile))
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	if err := json.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	if rec.Config.Base != c.Base || len(rec.Inputs["base"]) != 1 || len(rec.Inputs["data"]) != 1 || len(rec.Inputs["held_out"]) != 1 ||
		rec.Data.Records != 96 || rec.HeldOut != 24 || rec.Schedule.Total != 130 || rec.Schedule.Warmup != 4 || len(rec.Matrices) != 29 ||
		len(rec.Result.Files) != 3 || rec.ChatTemplate == "" {
		t.Errorf("the record: %+v", rec)
	}
	svg, err := os.Open(filepath.Join(c.Output, CurveFile))
	if err != nil {
		t.Fatal(err)
	}
	defer svg.Close()
	d := xml.NewDecoder(svg)
	lines := 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the curve: %v", err)
		}
		if s, ok := tok.(xml.StartElement); ok && s.Name.Local == "path" {
			lines++
		}
	}
	if lines < 3 {
		t.Errorf("the curve has %d lines", lines)
	}

	// Going on from the adapter: it knows the lesson from the first step.
	more := c
	more.Adapter = AdapterConfig{From: c.Output}
	more.Output = filepath.Join(t.TempDir(), "more")
	more.Steps = 2
	again, err := Run(context.Background(), more, Fresh, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again.EvalFirst.Loss != res.EvalLast.Loss {
		t.Errorf("it begins with a loss of %v, the adapter had %v", again.EvalFirst.Loss, res.EvalLast.Loss)
	}
}

// TestMemory gives a run what it needs to keep all layers, nearly that, and less than
// it can do with.
func TestMemory(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Patience, c.KeepBest = 0, false // nothing is held out
	c.Steps, c.HeldOutPart = 1, 0
	note := func(memory int64) (string, error) {
		c.Memory = memory
		c.Output = filepath.Join(t.TempDir(), "run")
		notes := ""
		_, err := Run(context.Background(), c, Fresh, func(p Progress) { notes += p.Note + "; " })
		return notes, err
	}
	for _, m := range []struct {
		memory int64
		want   string
	}{{0, "; peak memory about "}, {1e9, "4 of 4 layers keep"}} {
		if got, err := note(m.memory); err != nil || !strings.Contains(got, m.want) {
			t.Errorf("given %d: %q, %v; want %q", m.memory, got, err, m.want)
		}
	}
	var usage *format.UsageError
	if _, err := note(10e6); !errors.As(err, &usage) {
		t.Errorf("given 10 MB: %v", err)
	}
}

// TestFolderAndFile trains on the same weights as a Hugging Face folder and as the GGUF
// file that llama.cpp's converter made of it: the same tokens, the same masters.
func TestFolderAndFile(t *testing.T) {
	t.Parallel()
	var logs, samples []string
	var tensors [][]float32
	for _, base := range []string{"hf", "sprig-f16.gguf"} {
		c := DefaultConfig()
		c.Base = testutil.Shared(t, "models", "sprig", base)
		c.Data = testutil.Shared(t, "models", "sprig", "identity-train.jsonl")
		c.Output = filepath.Join(t.TempDir(), "run")
		c.Context, c.Steps, c.Accumulate, c.Adapter.Rank, c.HeldOutPart, c.LR, c.Warmup = 64, 3, 2, 2, 0, 1e-3, 0
		mustRun(t, c, Fresh)
		o := outcomeOf(t, c.Output)
		s, _, err := latest(c.Output)
		if err != nil {
			t.Fatal(err)
		}
		var all []float32
		for _, x := range s.tensors {
			all = append(all, x.Data...)
		}
		logs, samples, tensors = append(logs, o.log), append(samples, s.Samples), append(tensors, all)
	}
	if logs[0] != logs[1] || samples[0] != samples[1] || !slices.Equal(tensors[0], tensors[1]) {
		t.Errorf("from a folder\n%s\nfrom a file\n%s", logs[0], logs[1])
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	matrices := []string{"token_embd.weight", "blk.0.attn_q.weight", "blk.0.attn_v.weight", "blk.0.ffn_up.weight", "blk.1.attn_q.weight", "blk.1.attn_v.weight", "blk.1.ffn_up.weight", "output.weight"}
	for _, c := range []struct {
		targets, exclude string
		want             string // indices
	}{
		{"all-linear", "", "123456"},
		{"q_proj v_proj", "", "1245"},
		{"attn_q", "", "14"},
		{"blk.1.*", "", "456"},
		{"model.layers.0.self_attn.*", "", "12"},
		{"*.mlp.*", "", "36"},
		{"all-linear", "ffn_up blk.0.*", "45"},
		{"blk.0.attn_q.weight lm_head embed_tokens", "", "017"},
		{"blk.[01].attn_v", "", "25"},
		{`re:model\.layers\.\d+\.(self_attn|mlp)\.(q|up)_proj`, "re:blk.0.*", "46"},
	} {
		got, err := chooseTargets(matrices, strings.Fields(c.targets), strings.Fields(c.exclude))
		if err != nil {
			t.Errorf("%s: %v", c.targets, err)
		}
		var want []string
		for _, i := range c.want {
			want = append(want, matrices[i-'0'])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s without %s: %v, want %v", c.targets, c.exclude, got, want)
		}
	}
	for _, bad := range [][2]string{{"k_proj", ""}, {"all-linear", "k_proj"}, {"q_proj", "attn_q"}, {"[", ""}, {"re:(", ""}, {"re:q_pro", ""}} {
		if _, err := chooseTargets(matrices, strings.Fields(bad[0]), strings.Fields(bad[1])); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	_, err := chooseTargets(matrices, []string{"k_proj"}, nil)
	if err == nil || !strings.Contains(err.Error(), "embed_tokens, q_proj, v_proj, up_proj, lm_head") {
		t.Errorf("%v does not say what there is", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "run.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("base: a.gguf\ndata: b.jsonl\noutput: c\nadapter:\n  rank: 4\nsamples: {train: last}\nfields: {prompt: question}\n")
	c, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.Base, want.Data, want.Output, want.Adapter.Rank, want.Samples.Train, want.Fields.Prompt = "a.gguf", "b.jsonl", "c", 4, "last", "question"
	if len(differs(c, want)) != 0 || c.Check() != nil {
		t.Errorf("%+v", c)
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	write(string(b))
	if again, err := LoadConfig(path); err != nil || len(differs(again, c)) != 0 {
		t.Errorf("written and read again: %v, %v", differs(again, c), err)
	}
	write("base: a\noptimizer: {name: muon, weight_decay: 0.1}\n")
	if c, err := LoadConfig(path); err != nil || c.Optimizer.Momentum != 0.95 || !c.Optimizer.Nesterov || c.Optimizer.WeightDecay != 0.1 {
		t.Errorf("muon: %+v, %v", c.Optimizer, err)
	}
	named := DefaultConfig()
	named.Optimizer.Name = "lion"
	if named.fill(); named.Optimizer.Beta2 != 0.99 {
		t.Errorf("lion by name: %+v", named.Optimizer)
	}
	write("base: a\nranks: 3\n")
	if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "ranks") || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("an unknown key: %v", err)
	}
	for name, spoil := range map[string]func(*Config){
		"no base": func(c *Config) { c.Base = "" }, "no steps": func(c *Config) { c.Epochs = 0 }, "dropout": func(c *Config) { c.Adapter.Dropout = 1 },
		"rank": func(c *Config) { c.Adapter.Rank = 0 }, "warmup": func(c *Config) { c.Warmup = 1.5 }, "batch": func(c *Config) { c.Batch = 0 },
	} {
		bad := want
		spoil(&bad)
		if bad.Check() == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	if want.steps(81) != 11 || want.sequences(81) != 81 {
		t.Errorf("an epoch of 81 sequences is %d steps", want.steps(81))
	}
	_, s, err := want.schedule(101, want.LR)
	if err != nil || s.Warmup != 4 || s.Total != 101 {
		t.Errorf("schedule %+v, %v", s, err)
	}
}
