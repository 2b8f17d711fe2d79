package train

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// TestComputeBF16 makes a run in bf16: it does not depend on threads and on what is kept,
// its losses are near those of float32, it goes on only in bf16, and auto, to go on, is what
// the run was begun with.
func TestComputeBF16(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	if !kernel.BF16.Available() {
		t.Skip(kernel.BF16.Lacks())
	}
	run := func(change func(c *Config)) (Config, outcome) {
		c := c
		change(&c)
		c.Output = filepath.Join(t.TempDir(), "run")
		mustRun(t, c, Fresh)
		return c, outcomeOf(t, c.Output)
	}
	first, want := run(func(c *Config) { c.Compute = "bf16" })
	_, other := run(func(c *Config) { c.Compute, c.Threads, c.KeepLayers = "bf16", 3, -1 })
	other.mustBe(t, want, "on three threads, with activations kept")

	exact, _ := run(func(*Config) {})
	was, err := ReadLog(filepath.Join(exact.Output, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	is, err := ReadLog(filepath.Join(first.Output, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	same := true
	for i := range was {
		if math.Abs(is[i].Loss-was[i].Loss) > 0.01*was[i].Loss {
			t.Errorf("line %d: a loss of %v in bf16, %v in float32", i, is[i].Loss, was[i].Loss)
		}
		same = same && is[i].Loss == was[i].Loss
	}
	if same {
		t.Error("bf16 has the losses of float32 to the last bit")
	}

	if err := os.Remove(filepath.Join(first.Output, RecordFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), exact.at(first.Output), Resume, nil); err == nil || !strings.Contains(err.Error(), "compute") {
		t.Errorf("resumed in float32: %v", err)
	}
	auto := c.at(first.Output)
	auto.Compute = AutoCompute
	mustRun(t, auto, Resume)
	outcomeOf(t, first.Output).mustBe(t, want, "resumed with auto")
	b, err := os.ReadFile(filepath.Join(first.Output, RecordFile))
	if err != nil || !strings.Contains(string(b), `"compute": "bf16"`) {
		t.Errorf("the record does not say bf16: %v", err)
	}
}

func (c Config) at(dir string) Config {
	c.Output = dir
	return c
}

// TestComputeChoice wants auto to say what it took and how fast that is, and a name that
// is none to be refused.
func TestComputeChoice(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.Compute, c.Threads = AutoCompute, 1
	var note string
	c.chooseCompute(Fresh, func(p Progress) { note = p.Note })
	if how, err := c.compute(); err != nil || !how.Available() || c.Compute == AutoCompute || !strings.HasPrefix(note, "products in "+c.Compute+": ") {
		t.Errorf("auto became %q: %v, %q", c.Compute, err, note)
	}
	c.Base, c.Data, c.Output, c.Compute = "a", "b", "c", "fp8"
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), `"fp8"`) {
		t.Errorf("fp8: %v", err)
	}
	if kernel.BF16.Available() {
		return
	}
	c = smallRun(t)
	c.Compute, c.Output = "bf16", filepath.Join(t.TempDir(), "run")
	var lacks *format.UnsupportedError
	if _, err := Run(context.Background(), c, Fresh, nil); !errors.As(err, &lacks) {
		t.Errorf("bf16 where there is none: %v", err)
	}
}
