package quant

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/testutil"
)

// sprigSource opens a GGUF file of sprig.
func sprigSource(t testing.TB, name string) Source {
	t.Helper()
	return ggufSource(t, testutil.Shared(t, "models", "sprig", name))
}

func ggufSource(t testing.TB, path string) Source {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	src := Source{Meta: f.Meta}
	for _, tensor := range f.Tensors {
		rows, err := format.StoredRows(tensor)
		if err != nil {
			t.Fatal(err)
		}
		src.Views = append(src.Views, &format.View{Name: tensor.Name, Type: tensor.Type, Shape: tensor.Shape, Rows: rows, From: []*format.Tensor{tensor}})
	}
	return src
}

// TestWholeFile quantizes sprig to Q4_K_M and compares the file, header and all,
// with the one llama-quantize wrote.
func TestWholeFile(t *testing.T) {
	t.Parallel()
	plan, meta, err := NewPlan(sprigSource(t, "sprig-f16.gguf"), Options{Recipe: Recipe{FileType: Q4_K_M}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "out.gguf")
	w, err := gguf.Create(path, meta, plan, gguf.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := format.Run(context.Background(), plan, w, format.RunOptions{Threads: 2}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		n := 0
		for n < min(len(got), len(want)) && got[n] == want[n] {
			n++
		}
		t.Errorf("the file has %d bytes, want %d; they differ from byte %d on", len(got), len(want), n)
	}
}

// sprigRun is one entry of quantize.json: what llama-quantize made of sprig.
type sprigRun struct {
	Bytes   int64
	Tensors map[string][2]string // type, SHA-256 of the bytes
}

// TestSprig compares every tensor of sprig in every file type, without and with
// importance matrix, with what llama-quantize (no fused multiply-add) made: order,
// type, and SHA-256 of the bytes. Bytes are compared for the embedding and the first
// layer without the small IQ types; with GRAFT_E2E set for all.
func TestSprig(t *testing.T) {
	t.Parallel()
	var runs map[string]sprigRun
	data, err := os.ReadFile(testutil.Shared(t, "models", "sprig", "quantize.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &runs); err != nil {
		t.Fatal(err)
	}
	imatrix, err := ReadImatrix(testutil.Shared(t, "models", "sprig", "imatrix.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	src := sprigSource(t, "sprig-f16.gguf")
	all := os.Getenv("GRAFT_E2E") != ""
	var hashes hashCache
	var names []string
	for name, run := range runs {
		if len(run.Tensors) > 0 {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	if len(names) < 50 {
		t.Fatalf("only %d runs recorded", len(names))
	}
	for _, name := range names {
		run := runs[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, weighted := strings.CutSuffix(name, "+imatrix")
			ftype, err := ParseFileType(base)
			if err != nil {
				t.Fatal(err)
			}
			opt := Options{Recipe: Recipe{FileType: ftype}}
			if weighted {
				opt.Imatrix = imatrix
			}
			plan, _, err := NewPlan(src, opt)
			if err != nil {
				t.Fatal(err)
			}
			if len(plan.Outputs) != len(run.Tensors) {
				t.Errorf("%d tensors, want %d", len(plan.Outputs), len(run.Tensors))
			}
			for _, o := range plan.Outputs {
				want := run.Tensors[o.Name]
				if got := strings.ToLower(o.Type.String()); got != strings.ToLower(want[0]) {
					t.Errorf("%s is %v (%s), want %s", o.Name, o.Type, o.Why, want[0])
					continue
				}
				if !all && (layerOf(o.Name) > 0 || strings.HasPrefix(want[0], "IQ1") || strings.HasPrefix(want[0], "IQ2") || strings.HasPrefix(want[0], "IQ3")) {
					continue
				}
				if got, err := hashes.of(o, weighted); err != nil || got != want[1] {
					t.Errorf("%s as %v has other bytes (SHA-256 %s, want %s; %v)", o.Name, o.Type, got, want[1], err)
				}
			}
		})
	}
}

// hashCache keeps the digests of tensors made once: many recipes give a tensor the
// same type.
type hashCache struct {
	mu   sync.Mutex
	once map[string]func() (string, error)
}

func (c *hashCache) of(o *format.Output, weighted bool) (string, error) {
	key := fmt.Sprint(o.Name, o.Type, weighted)
	c.mu.Lock()
	if c.once == nil {
		c.once = map[string]func() (string, error){}
	}
	f := c.once[key]
	if f == nil {
		f = sync.OnceValues(func() (string, error) {
			b := make([]byte, o.Size())
			if err := o.Fill(b, 0); err != nil {
				return "", err
			}
			sum := sha256.Sum256(b)
			return hex.EncodeToString(sum[:]), nil
		})
		c.once[key] = f
	}
	c.mu.Unlock()
	return f()
}
