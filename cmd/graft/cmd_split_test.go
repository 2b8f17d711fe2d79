package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/fixtures"
)

// command runs a command line in this process and returns its standard output.
func command(t *testing.T, args ...string) string {
	t.Helper()
	var out, words bytes.Buffer
	root := newRoot(&app{out: &out, err: &words})
	root.SetArgs(args)
	if err := root.ExecuteContext(context.Background()); err != nil {
		t.Fatalf("graft %v: %v\n%s", args, err, words.String())
	}
	return out.String()
}

// TestSplitBytes compares with what llama-gguf-split (Aug 2026) makes of the same
// file: the SHA-256 of all shards one after another.
func TestSplitBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := fixtures.Write(dir, fixtures.Model); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(dir, fixtures.Model)
	for _, c := range []struct {
		name   string
		args   []string
		shards int
		sha256 string
	}{
		{"tensors", []string{"--max-tensors", "10"}, 4, "d9bef0612a9a086fe6e93f1bb6f2b4296220ac62b530b627df6991f7a2258775"},
		{"size", []string{"--max-size", "1M", "--no-tensor-first-split"}, 4, "bb9d883a9c2c7dc4a6052722ece486fa0d26f28b1dfc0b531edc170ca5343bc0"},
		{"one", nil, 1, "546e1302ea535e7ddb28d18ae97e117cd4a9dc76c5e79ae9c2ef24fd9b0c0dc9"},
	} {
		var doc struct{ Shards []struct{ Path string } }
		out := command(t, append([]string{"split", model, "-o", filepath.Join(dir, c.name), "--json"}, c.args...)...)
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		for _, s := range doc.Shards {
			b, err := os.ReadFile(s.Path)
			if err != nil {
				t.Fatal(err)
			}
			h.Write(b)
		}
		if got := hex.EncodeToString(h.Sum(nil)); len(doc.Shards) != c.shards || got != c.sha256 {
			t.Errorf("%s: %d shards, %s; llama-gguf-split makes %d, %s", c.name, len(doc.Shards), got, c.shards, c.sha256)
		}
	}
}

func TestParseShardSize(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{"1M": 1e6, "2G": 2e9, "1MiB": 1 << 20, "500MB": 500e6, "4096": 4096} {
		if n, err := parseShardSize(s); err != nil || n != want {
			t.Errorf("%s is %d, %v", s, n, err)
		}
	}
	for _, s := range []string{"", "0M", "-1G", "M", "2.5Q"} {
		if n, err := parseShardSize(s); err == nil {
			t.Errorf("%q is %d", s, n)
		}
	}
}
