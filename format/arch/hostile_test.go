package arch_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/testutil"
)

// odd are values that no field of a configuration expects everywhere.
var odd = []any{nil, -1, 0, 1e300, "x", []any{nil, -7}, map[string]any{}, 2147483647}

// mutations calls f with v after one value in it was replaced, for each value and
// replacement. Vocabularies and lists are touched at their beginning only.
func mutations(v any, f func()) {
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		if len(keys) > 100 {
			keys = keys[:4]
		}
		for _, k := range keys {
			x := v[k]
			for _, o := range odd {
				v[k] = o
				f()
			}
			delete(v, k)
			f()
			v[k] = x
			mutations(x, f)
		}
	case []any:
		for i, x := range v[:min(len(v), 2)] {
			for _, o := range odd {
				v[i] = o
				f()
			}
			v[i] = x
			mutations(x, f)
		}
	}
}

// TestHostileFolder changes every value of the small files of folders: opening may
// fail, but it neither panics nor takes memory for sizes that are only claimed.
func TestHostileFolder(t *testing.T) {
	for name, files := range map[string][]string{
		"llama3-rope": {"config.json", "tokenizer.json", "tokenizer_config.json"},
		"gemma3":      {"config.json", "tokenizer_config.json"},
		"phi3":        {"config.json"}, "qwen3moe": {"config.json"}, "smollm3": {"config.json"}, "granite": {"config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := testutil.Shared(t, "oracle", "zoo", name, "hf")
			dir := t.TempDir()
			entries, err := os.ReadDir(source)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				b, err := os.ReadFile(filepath.Join(source, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, e.Name()), b, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			for _, file := range files {
				hostileFile(t, dir, file, arch.Options{NoVocab: len(files) == 1})
			}
		})
	}
}

func hostileFile(t *testing.T, dir, file string, opt arch.Options) {
	path := filepath.Join(dir, file)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(good, &doc); err != nil {
		t.Fatal(err)
	}
	opened, tried := 0, 0
	try := func(b []byte) {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		tried++
		m, err := arch.Open(dir, opt)
		if err != nil {
			return
		}
		opened++
		m.SlidingLayers()
		m.RopeLayers()
		m.AttentionScale()
		if _, err := m.HF(); err != nil {
			t.Logf("%s: %v", file, err)
		}
		m.Close()
	}
	mutations(doc, func() {
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		try(b)
	})
	for n := range min(len(good), 50) {
		try(good[:n])
	}
	if opened == 0 || opened == tried {
		t.Errorf("%s: %d of %d changed files opened; the test changes nothing of use", file, opened, tried)
	}
	if err := os.WriteFile(path, good, 0o666); err != nil {
		t.Fatal(err)
	}
}
