package checkpoint

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/testutil"
)

func TestOpenSprig(t *testing.T) {
	t.Parallel()
	c, err := Open(testutil.Shared(t, "models/sprig/hf"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Config.Int("hidden_size"); err != nil || n <= 0 {
		t.Errorf("hidden_size: %d, %v", n, err)
	}
	if _, err := c.Config.Int("no such key"); !errors.Is(err, ErrAbsent) {
		t.Errorf("absent key: %v", err)
	}
	if text, ok := c.ChatTemplate(); !ok || text == "" {
		t.Error("no chat template")
	}
	if c.TokenizerJSON == nil || c.TokenizerConfig == nil || c.GenerationConfig == nil || c.TokenizerModel != nil {
		t.Error("the wrong files were found")
	}
	if len(c.Tensors) == 0 || c.QuantMethod() != "" {
		t.Errorf("%d tensors, quantized by %q", len(c.Tensors), c.QuantMethod())
	}
}

func TestQuantMethod(t *testing.T) {
	t.Parallel()
	for dir, want := range map[string]string{"llama-base": "", "llama-nf4-dq": "bitsandbytes", "llama-int8": "bitsandbytes"} {
		c, err := Open(testutil.Shared(t, "oracle/bnb", dir))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := c.QuantMethod(); got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

func TestSniff(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]Kind{
		"models/sprig/sprig-f16.gguf":                       GGUFModel,
		"models/sprig/imatrix.gguf":                         GGUFImatrix,
		"models/sprig/imatrix.dat":                          LegacyImatrix,
		"models/sprig/hf":                                   Folder,
		"models/sprig/hf/model.safetensors":                 Safetensors,
		"oracle/adapters/gguf/peft-f32.gguf":                GGUFAdapter,
		"oracle/adapters/peft":                              PEFTFolder,
		"oracle/adapters/peft/adapter_model.safetensors":    PEFTFile,
		"oracle/adapters/peft-embedding":                    PEFTFolder,
		"oracle/adapters/mlx":                               MLXFolder,
		"oracle/adapters/mlx/adapters.safetensors":          MLXFile,
		"oracle/adapters/kohya/adapter.safetensors":         KohyaFile,
		"oracle/adapters/lycoris-loha/adapter.safetensors":  KohyaFile,
		"oracle/adapters/lycoris-lokr/adapter.safetensors":  KohyaFile,
		"oracle/adapters/lycoris-glora/adapter.safetensors": KohyaFile,
		"oracle/adapters/lycoris-full/adapter.safetensors":  KohyaFile,
	} {
		if got, err := Sniff(testutil.Shared(t, path)); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", path, got, err, want)
		}
	}
	var unsupported *format.UnsupportedError
	if _, err := Sniff(testutil.Shared(t, "models/sprig/stories.txt")); !errors.As(err, &unsupported) {
		t.Errorf("a text file: %v", err)
	}
	if _, err := Sniff(testutil.Shared(t, "models")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder of folders: %v", err)
	}
}

// TestSniffLikePickle has headers whose length begins with the bytes of a pickle file.
func TestSniffLikePickle(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "model.safetensors")
	for _, n := range []uint64{0x280, 0x380, 0x480, 0x580} {
		head := `{"x.lora_down.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}`
		file := binary.LittleEndian.AppendUint64(nil, n)
		file = append(file, head+strings.Repeat(" ", int(n)-len(head))+"\x00\x00\x80\x3f"...)
		if err := os.WriteFile(path, file, 0o666); err != nil {
			t.Fatal(err)
		}
		if got, err := Sniff(path); err != nil || got != KohyaFile {
			t.Errorf("a header of %#x bytes: %v, %v", n, got, err)
		}
	}
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	type files map[string]string
	for name, c := range map[string]struct {
		files files
		want  []Template
		bad   bool
	}{
		"none":   {files{}, nil, false},
		"string": {files{"tokenizer_config.json": `{"chat_template":"a"}`, "chat_template.jinja": "b"}, []Template{{"default", "a"}}, false},
		"list": {files{"tokenizer_config.json": `{"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]}`},
			[]Template{{"default", "d"}, {"tool_use", "t"}}, false},
		"null, jinja": {files{"tokenizer_config.json": `{"chat_template":null}`, "chat_template.jinja": "b", "chat_template.json": `{"chat_template":"c"}`},
			[]Template{{"default", "b"}}, false},
		"additional": {files{"chat_template.jinja": "b", "additional_chat_templates/rag.jinja": "r", "additional_chat_templates/notes.txt": "n"},
			[]Template{{"default", "b"}, {"rag", "r"}}, false},
		"json":    {files{"chat_template.json": `{"chat_template":"c"}`}, []Template{{"default", "c"}}, false},
		"unnamed": {files{"tokenizer_config.json": `{"chat_template":[{"template":"t"}]}`}, nil, true},
		"number":  {files{"tokenizer_config.json": `{"chat_template":3}`}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "additional_chat_templates"), 0o777); err != nil {
				t.Fatal(err)
			}
			c.files[ConfigName] = `{}`
			for name, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			cp, err := OpenConfig(dir)
			if c.bad {
				var corrupt *format.CorruptError
				if !errors.As(err, &corrupt) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(cp.Templates) != len(c.want) {
				t.Fatalf("%q, want %q", cp.Templates, c.want)
			}
			for i := range c.want {
				if cp.Templates[i] != c.want[i] {
					t.Errorf("%q, want %q", cp.Templates, c.want)
				}
			}
		})
	}
}

func TestPickleIsUnsupported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{ConfigName, "pytorch_model-00001-of-00002.bin"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var unsupported *format.UnsupportedError
	if _, err := Open(dir); !errors.As(err, &unsupported) {
		t.Errorf("error %v", err)
	}
}

// TestWrite copies a folder in shards and reads it back.
func TestWrite(t *testing.T) {
	t.Parallel()
	src, err := Open(testutil.Shared(t, "oracle/bnb/llama-base"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dir := filepath.Join(t.TempDir(), "out")
	w, err := CreateDir(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := w.WriteFile(ConfigName, src.Config.Raw()); err != nil {
		t.Fatal(err)
	}
	plan := &format.Plan{}
	for _, x := range src.Tensors {
		o := &format.Output{Name: x.Name, Type: x.Type, Shape: x.Shape, Units: 1, UnitBytes: x.Size}
		o.Fill = func(dst []byte, _ int64) error { _, err := x.ReadAt(dst, 0); return err }
		plan.Outputs = append(plan.Outputs, o)
	}
	tw, err := w.Tensors(plan, src.Metadata, safetensors.WriteOptions{MaxShardSize: plan.Size()/3 + 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Run(t.Context(), plan, tw, format.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder is there before Commit")
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	got, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if len(got.Shards) < 3 || len(got.Tensors) != len(src.Tensors) {
		t.Errorf("%d files, %d tensors", len(got.Shards), len(got.Tensors))
	}
	for _, x := range src.Tensors {
		if y := got.Tensor(x.Name); y == nil || string(y.Bytes()) != string(x.Bytes()) {
			t.Errorf("tensor %s differs", x.Name)
		}
	}
	if _, err := CreateDir(dir, false); !errors.Is(err, os.ErrExist) {
		t.Errorf("a folder that is there: %v", err)
	}
}
