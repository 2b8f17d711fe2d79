package convert_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/convert"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
)

func toHF(t *testing.T, source string, opt convert.HFOptions) string {
	t.Helper()
	m, err := arch.Open(source, arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	f, err := convert.ToHF(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "hf")
	if err := f.Write(context.Background(), dir, false, format.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func toGGUF(t *testing.T, source, name, typ string) string {
	t.Helper()
	m, err := arch.Open(source, arch.Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	meta, plan, err := convert.ToGGUF(m, typ)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "out.gguf")
	writeGGUF(t, path, meta, plan)
	return path
}

func sameFile(t *testing.T, got, want string) {
	t.Helper()
	g, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(g, w) {
		t.Errorf("%s differs from %s", got, want)
	}
}

// TestRoundTripFolder takes folders to GGUF and back: the weights are the same file,
// byte for byte, and the folder converts to the same GGUF again.
func TestRoundTripFolder(t *testing.T) {
	folders := map[string]string{"sprig": testutil.Shared(t, "models", "sprig", "hf")}
	for _, name := range zooModels(t) {
		folders[name] = testutil.Shared(t, "oracle", "zoo", name, "hf")
	}
	for name, dir := range folders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			typ := "f32"
			if name == "sprig" {
				typ = "f16"
			}
			file := toGGUF(t, dir, name, typ)
			back := toHF(t, file, convert.HFOptions{})
			if strings.HasPrefix(name, "gemma") {
				sameButNorms(t, back, dir)
			} else {
				sameFile(t, filepath.Join(back, "model.safetensors"), filepath.Join(dir, "model.safetensors"))
			}

			first, err := arch.Open(file, arch.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			again, err := arch.Open(back, arch.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			got := again.FileMeta()
			got.Set("general.file_type", map[string]uint32{"f32": 0, "f16": 1}[typ])
			compareKeys(t, name, got.All(), first.Meta.All())
		})
	}
}

// sameButNorms compares two folders of a Gemma in float32. Its norms went through
// GGUF with one added, which rounds them to multiples of 2^-24; the rest is equal.
func sameButNorms(t *testing.T, got, want string) {
	t.Helper()
	g, err := safetensors.OpenDir(got)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	w, err := safetensors.OpenDir(want)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, x := range w.Tensors {
		y := g.Tensor(x.Name)
		if y == nil || y.Type != x.Type || y.Size != x.Size {
			t.Errorf("%s is missing or of another type", x.Name)
			continue
		}
		if !strings.HasSuffix(x.Name, "norm.weight") {
			if !bytes.Equal(x.Bytes(), y.Bytes()) {
				t.Errorf("%s differs", x.Name)
			}
			continue
		}
		for i, b := 0, y.Bytes(); i < len(b); i += 4 {
			f := func(b []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(b[i:]))) }
			if d := math.Abs(f(x.Bytes()) - f(b)); !(d <= 1.2e-7) {
				t.Errorf("%s differs by %g", x.Name, d)
			}
		}
	}
}

// TestRoundTripGemmaBF16 does it with weights as Gemma has them, in bfloat16: there
// the one added costs nothing, and the file is the same.
func TestRoundTripGemmaBF16(t *testing.T) {
	for _, name := range []string{"gemma2", "gemma3"} {
		dir := toHF(t, testutil.Shared(t, "oracle", "zoo", name, "hf"), convert.HFOptions{Type: "bf16"})
		back := toHF(t, toGGUF(t, dir, name, "auto"), convert.HFOptions{})
		sameFile(t, filepath.Join(back, "model.safetensors"), filepath.Join(dir, "model.safetensors"))
	}
}

// lossy are keys that a folder cannot give back as they were: llama.cpp's default
// for llama-bpe, to add BOS, must stand in a tokenizer.json; the converter of Phi-3
// gives the special tokens of a tokenizer.json, which the recorded folder lacks,
// a score of its own.
func lossy(name, key string) bool {
	return key == "tokenizer.ggml.add_bos_token" ||
		name == "phi3" && (key == "tokenizer.ggml.scores" || key == "tokenizer.ggml.token_type")
}

func compareKeys[T any](t *testing.T, name string, got, want []T) {
	t.Helper()
	keys := func(list []T) map[string]any {
		m := map[string]any{}
		for _, kv := range list {
			v := reflect.ValueOf(kv)
			m[v.Field(0).String()] = v.Field(1).Interface()
		}
		return m
	}
	g, w := keys(got), keys(want)
	for k, x := range w {
		if y, ok := g[k]; !reflect.DeepEqual(x, y) && !(lossy(name, k) && ok) {
			t.Errorf("%s = %.100s, was %.100s", k, fmt.Sprint(y), fmt.Sprint(x))
		}
	}
	for k, y := range g {
		if _, ok := w[k]; !ok && !lossy(name, k) {
			t.Errorf("%s = %.100s is new", k, fmt.Sprint(y))
		}
	}
}

// TestRoundTripF16 starts from GGUF: f16 files with float32 norms that f16 cannot
// hold come back with the same bytes.
func TestRoundTripF16(t *testing.T) {
	for _, name := range zooModels(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := toGGUF(t, testutil.Shared(t, "oracle", "zoo", name, "hf"), name, "f16")
			back := toHF(t, file, convert.HFOptions{})
			again := toGGUF(t, back, name, "f16")
			x, err := arch.Open(file, arch.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			y, err := arch.Open(again, arch.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer y.Close()
			if len(x.Views) != len(y.Views) {
				t.Fatalf("%d tensors, were %d", len(y.Views), len(x.Views))
			}
			for _, v := range x.Views {
				w := y.View(v.Name)
				if w == nil || w.Type != v.Type || !bytes.Equal(v.From[0].Bytes(), w.From[0].Bytes()) {
					t.Errorf("%s differs", v.Name)
				}
			}
		})
	}
}

var sentences = []string{
	"Hello world", "  two  spaces   and\ttabs\n\nlines \n", "3333 33.3 2024-11-24", "I'll don't WE'RE it's",
	"naïve café Ünïcödé 中文字符 🚀🦙", "<|im_start|>user\nHi<|im_end|>\n", "<s>a</s>", "", " ", "a",
	"Who are you? The capital of Zorp, he said: \"no\".",
}

// TestTokenizerFiles compares the ids that a rebuilt tokenizer.json gives with those
// of the GGUF file.
func TestTokenizerFiles(t *testing.T) {
	files := map[string]string{"sprig": testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf")}
	for _, name := range zooModels(t) {
		files[name] = testutil.Shared(t, "oracle", "zoo", name, "f32.gguf")
	}
	for name, path := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := arch.Open(path, arch.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			checkTokenizer(t, m)
		})
	}
}

func checkTokenizer(t *testing.T, m *arch.Model) {
	t.Helper()
	spec, err := tokenizer.SpecFromGGUF(m.Meta)
	if err != nil {
		t.Fatal(err)
	}
	want, err := tokenizer.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	f, err := convert.ToHF(m, convert.HFOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var doc, config []byte
	for _, file := range f.Files {
		switch file.Name {
		case "tokenizer.json":
			doc = file.Data
		case "tokenizer_config.json":
			config = file.Data
		}
	}
	cfg, err := tokenizer.ParseConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tokenizer.FromJSON(doc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sentences {
		opt := tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true}
		g, w := got.Encode(s, opt), want.Encode(s, opt)
		if !reflect.DeepEqual(g, w) && strings.TrimSpace(s) != "" {
			t.Errorf("%q: ids %v, want %v", s, g, w)
		}
	}
}

// TestQuantizedToHF dequantizes: the values are those of the file rounded to
// float16, norms have what they had, and the folder opens.
func TestQuantizedToHF(t *testing.T) {
	source := testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf")
	m, err := arch.Open(source, arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	h, err := arch.Open(toHF(t, source, convert.HFOptions{}), arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, v := range m.Views {
		w := h.View(v.Name)
		if w == nil || w.Type != format.F16 {
			t.Fatalf("%s is missing or not f16", v.Name)
		}
		rows, cols := v.Rows.Dims()
		x, y := make([]float32, rows*cols), make([]float32, rows*cols)
		if err := v.Rows.ReadRows(x, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Rows.ReadRows(y, 0); err != nil {
			t.Fatal(err)
		}
		for i := range x {
			// Half a unit in the last place of float16, or of its smallest numbers.
			if d := math.Abs(float64(x[i] - y[i])); d > math.Abs(float64(x[i]))/2048 && d > 1.0/(1<<25) {
				t.Fatalf("%s: element %d is %g, was %g", v.Name, i, y[i], x[i])
			}
		}
	}
}

func values(t *testing.T, s *format.Tensor) []float32 {
	t.Helper()
	rows, err := format.StoredRows(s)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, s.Rows()*s.Cols())
	if err := rows.ReadRows(v, 0); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestPackedToHF opens bitsandbytes folders and writes them dequantized; the
// matrices are the recorded ones.
func TestPackedToHF(t *testing.T) {
	for _, name := range []string{"llama-nf4-dq", "llama-int8"} {
		dir := toHF(t, testutil.Shared(t, "oracle", "bnb", name), convert.HFOptions{Type: "f32"})
		got, err := safetensors.OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		want, err := safetensors.Open(testutil.Shared(t, "oracle", "bnb", name+".dequant.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		if len(want.Tensors) == 0 {
			t.Fatal("nothing recorded")
		}
		for _, w := range want.Tensors {
			g := got.Tensor(w.Name)
			if g == nil {
				g = got.Tensor(w.Name + ".weight")
			}
			if g == nil {
				t.Errorf("%s: %s is missing", name, w.Name)
				continue
			}
			if !slices.Equal(values(t, g), values(t, w)) {
				t.Errorf("%s: %s differs", name, w.Name)
			}
		}
		m, err := arch.Open(dir, arch.Options{})
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
	}
}
