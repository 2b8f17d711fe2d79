package train

import (
	"context"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/optim"
)

// TestDivision makes the same steps divided into passes in every way: one sequence at
// a time, all at once, packed into one, with dropout and noise. Sequences have ragged
// lengths and few trained tokens; the adapter must come out byte for byte the same, with
// every kind of it whose gradients have parts of their own.
func TestDivision(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		name, base string // base of the zoo, "" is Sprig
		set        func(c *AdapterConfig)
	}{
		{"lora", "", func(*AdapterConfig) {}},
		{"embedding", "", func(c *AdapterConfig) { c.Targets = []string{"all-linear", "embed_tokens"} }},
		{"embedding, dora", "qwen2", func(c *AdapterConfig) { c.Targets, c.DoRA = []string{"all-linear", "embed_tokens"}, true }},
		{"head, dora", "llama", func(c *AdapterConfig) { c.Targets, c.DoRA = ends, true }},
		{"tokens", "", func(c *AdapterConfig) { c.TrainTokens = []string{"#7", "#10", "#38", "#41"} }},
		{"experts", "mixtral", func(c *AdapterConfig) { c.Targets = mixed }},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			testDivision(t, k.base, k.set)
		})
	}
}

func testDivision(t *testing.T, zoo string, set func(c *AdapterConfig)) {
	var samples []data.Sample
	for i, n := range []int{5, 17, 9, 30, 4, 12} {
		s := data.Sample{IDs: make([]int32, n), Train: make([]bool, n)}
		for j := range s.IDs {
			s.IDs[j], s.Train[j] = int32((31*i+7*j)%90+3), j > 0 && (i+j)%3 != 0
		}
		samples = append(samples, s)
	}
	make := func(samples []data.Sample, batch, context int) (masters [][]float32, losses []float64) {
		t.Helper()
		path := testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf")
		if zoo != "" {
			path = testutil.Shared(t, "oracle", "zoo", zoo, "f32.gguf")
		}
		base, err := OpenBase(path, model.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { base.Close() })
		c := DefaultConfig()
		c.Batch, c.Context, c.Adapter.Rank, c.NEFTune = batch, context, 2, 5
		set(&c.Adapter)
		if !c.Adapter.DoRA || zoo == "llama" {
			c.Adapter.Dropout = 0.1
		}
		ids, err := base.trainedTokens(&c.Adapter)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := base.tokenRows(ids)
		if err != nil {
			t.Fatal(err)
		}
		l, err := newLoRA(background, base.Model, &c.Adapter, 1, nil, rows)
		if err != nil {
			t.Fatal(err)
		}
		opt, err := optim.New(c.Optimizer, l.params)
		if err != nil {
			t.Fatal(err)
		}
		for step := range 3 {
			r, err := l.step(background, base.Model, opt, supervised(), samples, &c, step, 1e-3)
			if err != nil {
				t.Fatal(err)
			}
			losses = append(losses, r.loss)
		}
		for _, p := range l.params {
			masters = append(masters, p.Value)
		}
		return masters, losses
	}
	want, losses := make(samples, 1, 1)
	packed := data.Sample{}
	for _, s := range samples {
		packed.Docs = append(packed.Docs, len(packed.IDs))
		packed.IDs, packed.Train = append(packed.IDs, s.IDs...), append(packed.Train, s.Train...)
	}
	for _, c := range []struct {
		name           string
		samples        []data.Sample
		batch, context int
	}{{"some at once", samples, 1, 30}, {"all at once", samples, 6, 30}, {"packed", []data.Sample{packed}, 1, 100}} {
		got, l := make(c.samples, c.batch, c.context)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: another adapter", c.name)
		}
		for i := range l {
			if math.Abs(l[i]-losses[i]) > 1e-12 { // float64 sums in another grouping
				t.Errorf("%s: losses %v, want %v", c.name, l, losses)
				break
			}
		}
	}
}

var background = context.Background()

func TestPasses(t *testing.T) {
	t.Parallel()
	var samples []data.Sample
	for _, n := range []int{3, 4, 5, 20, 1, 1} {
		samples = append(samples, data.Sample{IDs: make([]int32, n)})
	}
	var got []int
	for _, g := range passes(samples, 8) {
		got = append(got, len(g))
	}
	if !slices.Equal(got, []int{2, 1, 1, 2}) {
		t.Errorf("groups of %v", got)
	}
}

// TestTargetsOfSample counts what batches are made of.
func TestTargetsOfSample(t *testing.T) {
	t.Parallel()
	all := []bool{true, true, false, true, true}
	for _, s := range []data.Sample{
		{}, {IDs: []int32{1}, Train: []bool{true}},
		{IDs: []int32{1, 2, 3, 4, 5}, Train: all},
		{IDs: []int32{1, 2, 3, 4, 5}, Train: all, Docs: []int{0, 3}},
		{IDs: []int32{1, 2, 3, 4, 5}, Train: all, Docs: []int{0, 2, 4}},
	} {
		want := 0
		for _, x := range batchOf([]data.Sample{s}).Targets {
			if x >= 0 {
				want++
			}
		}
		if got := targets(s); got != want {
			t.Errorf("%v: %d targets, want %d", s, got, want)
		}
	}
}

// TestNextSamples takes the samples of steps over the borders of epochs.
func TestNextSamples(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.Batch, c.Accumulate, c.Epochs = 1, 3, 2
	r := &runner{cfg: c, epoch: -1}
	for i := range 5 {
		r.train = append(r.train, data.Sample{Lines: []int{i}})
	}
	r.parts, r.perEpoch = []data.Part{{Samples: 5, Weight: 1}}, 5
	var seen []int
	for range c.steps(5) {
		got := r.next()
		r.state.Sequences += len(got)
		for _, s := range got {
			seen = append(seen, s.Lines[0])
		}
	}
	if len(seen) != 10 {
		t.Fatalf("two epochs of five are %v", seen)
	}
	for _, epoch := range [][]int{seen[:5], seen[5:]} {
		e := slices.Clone(epoch)
		slices.Sort(e)
		if !slices.Equal(e, []int{0, 1, 2, 3, 4}) {
			t.Errorf("an epoch has %v", epoch)
		}
	}
	if slices.Equal(seen[:5], seen[5:]) {
		t.Error("both epochs have one order")
	}
}

// TestInterruptedStep leaves no trace of a step that the context ends.
func TestInterruptedStep(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Output = filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, c, Fresh, nil); err == nil {
		t.Fatal("a run without time succeeds")
	}
	s, _, err := latest(c.Output)
	if err != nil || s.Step != 0 || !s.EvalDue {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestRatio makes one step of LoRA+: AdamW's first step is the rate, whatever the
// gradient, so that B, which begins at zero, moves by the ratio times the rate.
func TestRatio(t *testing.T) {
	t.Parallel()
	base := openSprig(t, "sprig-q4_k_m.gguf", model.Options{Threads: 1})
	c := DefaultConfig()
	c.Adapter.Targets, c.Context = []string{"v_proj"}, 16
	l, err := newLoRA(background, base.Model, &c.Adapter, 1, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.setRatio(16)
	opt, err := optim.New(c.Optimizer, l.params)
	if err != nil {
		t.Fatal(err)
	}
	s := data.Sample{IDs: []int32{1, 2, 3, 4, 5}, Train: []bool{false, true, true, true, true}}
	if _, err := l.step(background, base.Model, opt, supervised(), []data.Sample{s}, &c, 0, 1e-4); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.params {
		if p.Rate != 16 {
			continue
		}
		for i, v := range p.Value {
			// Where the gradient is as small as ε, the step is smaller.
			if math.Abs(float64(p.Grad[i])) > 1e-5 && math.Abs(math.Abs(float64(v))/16e-4-1) > 2e-3 {
				t.Fatalf("%s[%d] moved by %v with gradient %v", p.Name, i, v, p.Grad[i])
			}
		}
	}
}

// supervised is the plain loss.
func supervised() *preferences {
	return &preferences{Objective: supervisedObjective()}
}
