package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/graft-lora/graft/fixtures"
	"github.com/graft-lora/graft/internal/testutil"
)

// buildGraft makes the real binary, since a killed process must be nothing else.
func buildGraft(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "graft")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/graft")
	cmd.Dir = testutil.Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// writers are commands that write a file or folder of some size, by the name of
// their output.
func writers(dir string) map[string][]string {
	in := func(name string) string { return filepath.Join(dir, name) }
	return map[string][]string{
		"f16.gguf":    {"quantize", in(fixtures.Model), "--type", "F16", "--allow-requantize"},
		"merged.gguf": {"merge", in(fixtures.Model), in("adapter.gguf"), "--no-check"},
		"hf":          {"convert", in(fixtures.Model), "--type", "f32"},
		"edited.gguf": {"edit", in(fixtures.Model), "--set", "general.name=other"},
		"small":       {"resize", in("adapter.gguf"), "--rank", "1", "--base", in(fixtures.Model)},
	}
}

// setUp makes a folder with the model and an adapter of it.
func setUp(t *testing.T, bin string) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := fixtures.Write(dir, fixtures.Model, fixtures.Train); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-q", "train", "--base", fixtures.Model, "--data", fixtures.Train, "-o", "run", "--context", "64", "--batch", "8",
		"--accumulate", "1", "--steps", "2", "--held-out-part", "0")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Rename(filepath.Join(dir, "run", "adapter.gguf"), filepath.Join(dir, "adapter.gguf")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// digestTree lists what is under path, with contents; "" if nothing is.
func digestTree(t *testing.T, path string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(path, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err == nil {
			fmt.Fprintf(&b, "%s %d %x\n", strings.TrimPrefix(p, path), len(data), sha256.Sum256(data))
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return b.String()
}

// TestKilledCommandsLeaveNothingHalf kills each writing command at many moments:
// whatever has its final name then is what an undisturbed run writes.
func TestKilledCommandsLeaveNothingHalf(t *testing.T) {
	if testing.Short() {
		t.Skip("runs commands for some seconds")
	}
	t.Parallel()
	bin := buildGraft(t)
	dir := setUp(t, bin)
	for name, args := range writers(dir) {
		whole := filepath.Join(dir, "whole-"+name)
		begin := time.Now()
		if out, err := exec.Command(bin, append(args, "-q", "-o", whole)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		took := time.Since(begin)
		want := digestTree(t, whole)
		finished := 0
		for i := range 8 {
			out := filepath.Join(dir, fmt.Sprintf("killed-%d-%s", i, name))
			cmd := exec.Command(bin, append(args, "-q", "-o", out)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(took * time.Duration(i+1) / 8)
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			cmd.Wait() // how it ended is the test's doing
			switch got := digestTree(t, out); got {
			case "":
			case want:
				finished++
			default:
				t.Errorf("%s, killed at %d/8 of its time, left\n%s\nwant nothing or\n%s", name, i+1, got, want)
			}
		}
		t.Logf("%s: %d of 8 finished", name, finished)
	}
}

// TestFullDisk runs each writing command where there is no room for its output.
func TestFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("runs commands for some seconds")
	}
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	t.Parallel()
	bin := buildGraft(t)
	dir := setUp(t, bin)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=200k"); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	for name, args := range writers(dir) {
		out, err := exec.Command(bin, append(args, "-q", "-o", filepath.Join(disk, name))...).CombinedOutput()
		if name == "small" { // fits
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			continue
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "no space left") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		left, err := filepath.Glob(filepath.Join(disk, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range left {
			if filepath.Base(l) != "small" {
				t.Errorf("%s left %s", name, l)
			}
		}
	}
}
