package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/graft-lora/graft/fixtures"
)

// commands measures whole commands, file to file, as child processes: seconds, peak
// resident memory, and the part of it that is the process's own (not pages of
// mapped files, which the system may drop).
func commands(r *report, path string) error {
	dir, err := os.MkdirTemp("", "graft-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	graft, err := buildGraft(dir)
	if err != nil {
		return err
	}
	paths, err := fixtures.Write(dir, fixtures.Model, fixtures.Train)
	if err != nil {
		return err
	}
	if path == "" {
		path = paths[0]
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	lesson := in("lesson")
	f16, same, q4 := in("f16.gguf"), in("merged.gguf"), in("q4.gguf")
	for _, c := range []struct {
		name string
		args []string
	}{
		{"train, 2 steps of 4 x 512 tokens", []string{"train", "--base", path, "--data", paths[1], "-o", lesson, "--context", "512", "--pack", "--steps", "2", "--accumulate", "4", "--held-out-part", "0"}},
		{"quantize to F16", []string{"quantize", path, "-o", f16, "--type", "F16", "--allow-requantize"}},
		{"quantize to Q4_K_M", []string{"quantize", f16, "-o", q4, "--type", "Q4_K_M"}},
		{"merge into the same types, keep", []string{"merge", path, filepath.Join(lesson, "adapter.gguf"), "-o", same, "--no-check"}},
		{"convert to a Hugging Face folder", []string{"convert", f16, "-o", in("hf")}},
		{"diff", []string{"diff", "--values", path, path}},
	} {
		u, err := measureCommand(graft, append([]string{"--quiet"}, c.args...))
		if err != nil {
			return fmt.Errorf("graft %s: %w", strings.Join(c.args, " "), err)
		}
		r.add(figure{Group: "commands, " + filepath.Base(path), Name: c.name, Value: u.seconds, Unit: "s"})
		r.add(figure{Group: "commands, " + filepath.Base(path), Name: c.name + ": peak resident", Value: float64(u.resident) / 1e6, Unit: "MB"})
		r.add(figure{Group: "commands, " + filepath.Base(path), Name: c.name + ": its own", Value: float64(u.own) / 1e6, Unit: "MB"})
	}
	return nil
}

type usage struct {
	seconds       float64
	processor     float64 // seconds of all threads
	resident, own int64   // bytes
}

// buildGraft builds the command into dir and returns its path.
func buildGraft(dir string) (string, error) {
	graft := filepath.Join(dir, "graft")
	if out, err := exec.Command("go", "build", "-o", graft, "./cmd/graft").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building graft: %v\n%s", err, out)
	}
	return graft, nil
}

func measureCommand(name string, args []string) (usage, error) {
	cmd := exec.Command(name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return usage{}, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var u usage
	for {
		select {
		case err := <-done:
			u.seconds = time.Since(begin).Seconds()
			if err != nil {
				return u, fmt.Errorf("%w: %s", err, stderr.String())
			}
			u.processor = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
			return u, nil
		case <-time.After(2 * time.Millisecond):
			u.resident = max(u.resident, statusField(cmd.Process.Pid, "VmHWM:"))
			u.own = max(u.own, statusField(cmd.Process.Pid, "RssAnon:"))
		}
	}
}

// statusField reads a field of /proc/PID/status, in bytes; 0 where there is none.
func statusField(pid int, field string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, field); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n * 1024
		}
	}
	return 0
}
