package adapter_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/internal/testutil"
)

// TestHostileConfig changes every value of adapter_config.json, and cuts the file:
// opening may fail, but does not panic.
func TestHostileConfig(t *testing.T) {
	for _, name := range []string{"peft-patterns", "mlx"} {
		source := testutil.Shared(t, "oracle", "adapters", name)
		m := openBase(t, "oracle", "adapters", "base")
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
		path := filepath.Join(dir, "adapter_config.json")
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		opened := 0
		try := func(b []byte) {
			if err := os.WriteFile(path, b, 0o666); err != nil {
				t.Fatal(err)
			}
			if a, err := adapter.Open(dir); err == nil && a.Resolve(m) == nil {
				opened++
			}
		}
		var doc map[string]any
		if err := json.Unmarshal(good, &doc); err != nil {
			t.Fatal(err)
		}
		var change func(v map[string]any)
		change = func(v map[string]any) {
			for _, k := range slices.Sorted(maps.Keys(v)) {
				old := v[k]
				for _, o := range []any{nil, -1, 0, 1e300, "x(", []any{nil}, map[string]any{"(": 1}, map[string]any{"q": nil}} {
					v[k] = o
					b, err := json.Marshal(doc)
					if err != nil {
						t.Fatal(err)
					}
					try(b)
				}
				v[k] = old
				if inner, ok := old.(map[string]any); ok {
					change(inner)
				}
			}
		}
		change(doc)
		if opened == 0 {
			t.Errorf("%s: no changed configuration opened; the test changes nothing of use", name)
		}
		for n := range good {
			try(good[:n])
		}
	}
}
