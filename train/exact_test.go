package train

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
)

// TestTiers makes a short run with everything in it in a process for every kernel tier
// that there is here: the same log, adapter, masters and moments.
func TestTiers(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Context, c.Steps, c.Batch, c.Accumulate, c.EvalLimit, c.Threads = 24, 2, 1, 2, 1, 2
	c.EvalEvery, c.SaveEvery, c.Warmup = 1, 1, 0
	c.Samples.Untrained = "drop"
	var want outcome
	for i, tier := range cpu.Tiers() {
		c := c
		c.Output = filepath.Join(t.TempDir(), "run")
		if _, err := begin(&c, Fresh, nil); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childRun+"="+c.Output, "GRAFT_KERNEL="+tier.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", tier, err, out)
		}
		got := outcomeOf(t, c.Output)
		if i == 0 {
			want = got
		}
		got.mustBe(t, want, tier.String())
	}
}

// TestEveryDamage flips a bit of a checkpoint, and cuts it off, in many places: it is
// always recognised, and the checkpoint before it is taken.
func TestEveryDamage(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Adapter.Targets, c.Steps, c.SaveEvery, c.HeldOutPart, c.KeepBest, c.Patience = []string{"v_proj"}, 2, 1, 0, false, 0
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	list, err := checkpoints(c.Output)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	whole, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), whole...)
	try := func(what string, at int, b []byte) {
		t.Helper()
		if err := os.WriteFile(list[0], b, 0o666); err != nil {
			t.Fatal(err)
		}
		var corrupt *format.CorruptError
		if _, err := readCheckpoint(list[0]); !errors.As(err, &corrupt) {
			t.Errorf("%s at %d of %d: %v", what, at, len(whole), err)
		}
	}
	for at := 0; at < len(whole); at += 1 + len(whole)/60 {
		damaged[at] ^= 1 << (at % 8)
		try("a bit flipped", at, damaged)
		damaged[at] = whole[at]
		try("cut off", at, whole[:at])
	}
	try("its last byte lost", len(whole)-1, whole[:len(whole)-1])
	try("a byte more", len(whole), append(whole, 0))
	s, passed, err := latest(c.Output)
	if err != nil || s.Step != 1 || len(passed) != 1 || passed[0] != list[0] {
		t.Errorf("taken: step %d, %v; passed over %v", s.Step, err, passed)
	}
}
