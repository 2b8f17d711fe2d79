package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/testutil"
)

// childRun is set in a process that makes a run and nothing else: the run in that folder.
const childRun = "GRAFT_TEST_RUN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childRun); dir != "" {
		c, err := ResumeConfig(dir)
		if err == nil {
			_, err = Run(context.Background(), c, Resume, nil)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// lesson writes a small data set of questions with answers.
func lesson(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for i := range 23 {
		fmt.Fprintf(&b, "{\"prompt\": \"What is %d and %d?\", \"completion\": \" It is %d, I am sure%s.\"}\n", i, i+3, 2*i+3, strings.Repeat(" and sure", i%4))
	}
	path := filepath.Join(t.TempDir(), "lesson.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// smallRun is a run of some steps with everything in it that could go wrong when it
// is interrupted: shuffling over epochs, dropout, evaluation, a schedule, packing.
func smallRun(t *testing.T) Config {
	c := DefaultConfig()
	c.Base = testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf")
	c.Data = lesson(t)
	c.Samples.Chat = "never"
	c.Context = 48
	c.Adapter.Rank, c.Adapter.Dropout = 4, 0.1
	c.Batch, c.Accumulate, c.Steps = 2, 2, 14
	c.LR, c.Warmup = 1e-3, 2
	c.EvalEvery, c.SaveEvery, c.HeldOutPart = 4, 3, 0.2
	c.NEFTune, c.KeepBest, c.Patience = 5, true, 5
	c.Threads = 1
	return c
}

// outcome is what a run leaves that must not depend on how it was made.
type outcome struct {
	log     string // without timing
	adapter map[string]string
	tensors map[string][]float32 // masters and moments, of the last checkpoint
}

func outcomeOf(t *testing.T, dir string) (o outcome) {
	t.Helper()
	lines, err := ReadLog(filepath.Join(dir, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		l.Timing = nil
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		o.log += string(b) + "\n"
	}
	o.adapter = map[string]string{}
	for _, name := range []string{GGUFFile, "adapter_model.safetensors", "adapter_config.json"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if name == GGUFFile && errors.Is(err, fs.ErrNotExist) {
			continue // DoRA, rows of tokens
		}
		if err != nil {
			t.Fatal(err)
		}
		o.adapter[name] = string(b)
	}
	s, damaged, err := latest(dir)
	if err != nil || len(damaged) > 0 {
		t.Fatal(err, damaged)
	}
	o.tensors = map[string][]float32{}
	for _, x := range s.tensors {
		o.tensors[x.Name] = x.Data
	}
	return o
}

func (o outcome) mustBe(t *testing.T, want outcome, how string) {
	t.Helper()
	if o.log != want.log {
		t.Errorf("%s: the log is\n%s\nwant\n%s", how, o.log, want.log)
	}
	if !reflect.DeepEqual(o.adapter, want.adapter) {
		t.Errorf("%s: the adapter's files differ", how)
	}
	if !reflect.DeepEqual(o.tensors, want.tensors) {
		t.Errorf("%s: masters or moments differ", how)
	}
}

func mustRun(t *testing.T, c Config, mode Mode) Result {
	t.Helper()
	r, err := Run(context.Background(), c, mode, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestKilledAndResumed kills a run with SIGKILL again and again, at moments of its own,
// and resumes it: log, adapter, masters and moments are those of a run that was left
// alone, byte for byte. So they are with other numbers of threads, with activations
// kept, with checkpoints at other steps, and when the context ends.
func TestKilledAndResumed(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Output = filepath.Join(t.TempDir(), "run") // the folder gives the adapter its name
	mustRun(t, c, Fresh)
	want := outcomeOf(t, c.Output)
	if n := strings.Count(want.log, "\n"); n != 14+5 {
		t.Fatalf("%d lines in the log", n)
	}

	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		c := c
		c.Output = filepath.Join(t.TempDir(), "run")
		if _, err := begin(&c, Fresh, nil); err != nil {
			t.Fatal(err)
		}
		log := filepath.Join(c.Output, LogFile)
		random := rand.New(rand.NewPCG(1, 2))
		kills := 0
		for try := 0; ; try++ {
			if try > 100 {
				t.Fatal("the run does not end")
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childRun+"="+c.Output)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			// It is killed a little after the log has grown by some lines.
			before := lineCount(log)
			more, wait := random.IntN(6), time.Duration(random.IntN(30))*time.Millisecond
			ended := false
			for !ended {
				select {
				case err := <-done:
					if err != nil {
						t.Fatalf("%v: %s", err, errs.String())
					}
					ended = true
				case <-time.After(2 * time.Millisecond):
					if lineCount(log)-before < more {
						continue
					}
					time.Sleep(wait)
					cmd.Process.Kill()
					var exit *exec.ExitError
					if err := <-done; errors.As(err, &exit) && exit.ExitCode() < 0 {
						kills++
					} else if err == nil {
						ended = true
						break
					}
					before = -100 // leave the select loop
				}
				if before == -100 {
					break
				}
			}
			if ended {
				break
			}
		}
		if kills < 2 {
			t.Errorf("the run was killed %d times only", kills)
		}
		t.Logf("killed %d times", kills)
		outcomeOf(t, c.Output).mustBe(t, want, "killed and resumed")
	})

	for _, tier := range cpu.Tiers() {
		if tier == cpu.Generic || tier == cpu.Best() {
			continue
		}
		t.Run("kernels of "+tier.String(), func(t *testing.T) {
			t.Parallel()
			c := c
			c.Output = filepath.Join(t.TempDir(), "run")
			if _, err := begin(&c, Fresh, nil); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childRun+"="+c.Output, "GRAFT_KERNEL="+tier.String())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			outcomeOf(t, c.Output).mustBe(t, want, "in "+tier.String())
		})
	}

	for name, change := range map[string]func(*Config){
		"two threads":       func(c *Config) { c.Threads = 2 },
		"activations kept":  func(c *Config) { c.KeepLayers = -1 },
		"memory given":      func(c *Config) { c.Memory = 1e9 },
		"small head":        func(c *Config) { c.HeadMemory = 1 },
		"other checkpoints": func(c *Config) { c.SaveEvery = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := c
			change(&c)
			c.Output = filepath.Join(t.TempDir(), "run")
			mustRun(t, c, Fresh)
			outcomeOf(t, c.Output).mustBe(t, want, name)
		})
	}

	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		c := c
		c.Output = filepath.Join(t.TempDir(), "run")
		for at := range 40 { // every point at which something is told
			ctx, cancel := context.WithCancel(context.Background())
			told := 0
			mode := Resume
			if at == 0 {
				mode = Fresh
			}
			_, err := Run(ctx, c, mode, func(Progress) {
				if told++; told == 3+at%9 {
					cancel()
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
		outcomeOf(t, c.Output).mustBe(t, want, "interrupted")
	})
}

func lineCount(path string) int {
	b, _ := os.ReadFile(path)
	return bytes.Count(b, []byte("\n"))
}

// TestDamagedCheckpoint damages the newest checkpoint, and then both.
func TestDamagedCheckpoint(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	want := outcomeOf(t, c.Output)
	list, err := checkpoints(c.Output)
	if err != nil || len(list) != DefaultConfig().KeepCheckpoints {
		t.Fatalf("%v, %v", list, err)
	}
	damage := func(path string, at int) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at < 0 {
			b = b[:len(b)/2]
		} else {
			b[at%len(b)] ^= 1
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	damage(list[0], 1000)
	var notes []string
	if _, err := Run(context.Background(), c, Resume, func(p Progress) {
		if strings.Contains(p.Note, "damaged") {
			notes = append(notes, p.Note)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], list[0]) {
		t.Errorf("notes: %v", notes)
	}
	outcomeOf(t, c.Output).mustBe(t, want, "resumed from the checkpoint before")

	damage(list[0], 0)
	damage(list[1], -1)
	var corrupt *format.CorruptError
	if _, err := Run(context.Background(), c, Resume, nil); !errors.As(err, &corrupt) {
		t.Errorf("both damaged: %v", err)
	}
}

// TestResumeRefuses changes what a run depends on.
func TestResumeRefuses(t *testing.T) {
	t.Parallel()
	c := smallRun(t)
	c.Steps, c.TensorBoard = 3, true
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	list, err := os.ReadDir(c.Output)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if !slices.Contains(append(runFiles, ConfigFile, "checkpoints"), e.Name()) {
			t.Errorf("%s is left behind when the run is replaced", e.Name())
		}
	}
	if _, err := Run(context.Background(), c, Fresh, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second run in the same folder: %v", err)
	}
	other := c
	other.LR, other.Adapter.Rank = 1, 8
	if _, err := Run(context.Background(), other, Resume, nil); err == nil || !strings.Contains(err.Error(), "[adapter.rank lr]") {
		t.Errorf("other settings: %v", err)
	}
	f, err := os.OpenFile(c.Data, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"prompt": "a", "completion": "b"}` + "\n")
	f.Close()
	if _, err := Run(context.Background(), c, Resume, nil); err == nil || !strings.Contains(err.Error(), "the data is not the one") {
		t.Errorf("other data: %v", err)
	}
	mustRun(t, c, Replace)
	c.Output = filepath.Join(t.TempDir(), "nothing")
	if _, err := Run(context.Background(), c, Resume, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing to resume: %v", err)
	}
}
