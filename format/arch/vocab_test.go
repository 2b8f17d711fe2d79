package arch_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// TestSentencePieceJSON: a folder whose SentencePiece vocabulary stands in a
// tokenizer.json only. The scores made of its merges must give the ids that the
// merges give.
func TestSentencePieceJSON(t *testing.T) {
	source := testutil.Shared(t, "oracle", "zoo", "llama", "hf")
	dir := t.TempDir()
	copyTo := func(name, from string, change func([]byte) []byte) {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			b = change(b)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	copyTo("config.json", filepath.Join(source, "config.json"), func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"vocab_size": 384`), []byte(`"vocab_size": 32000`), 1)
	})
	copyTo("model.safetensors", filepath.Join(source, "model.safetensors"), nil)
	copyTo("tokenizer.json", testutil.Shared(t, "tokenizers", "tinyllama", "tokenizer.json"), nil)
	copyTo("tokenizer_config.json", testutil.Shared(t, "tokenizers", "tinyllama", "tokenizer_config.json"), nil)
	m, err := arch.Open(dir, arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	spec, err := tokenizer.SpecFromGGUF(m.Meta)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Model != "llama" || len(spec.Tokens) != 32000 || spec.Types[3] != tokenizer.Byte || spec.Types[1] != tokenizer.Control {
		t.Errorf("model %q, %d tokens, types %v", spec.Model, len(spec.Tokens), spec.Types[:5])
	}
	got, err := tokenizer.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := tokenizer.FromJSON(doc, tokenizer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"Hello world", "  two  spaces\tand\n\nlines", "3333 33.3", "I'll don't", "naïve café 中文字符 🚀", "<s>[INST] Who? [/INST]</s>",
		"internationalization of uncharacteristically long words, e.g. antidisestablishmentarianism",
	} {
		opt := tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true}
		if g, w := got.Encode(s, opt), want.Encode(s, opt); !slices.Equal(g, w) {
			t.Errorf("%q: ids %v, want %v", s, g, w)
		}
	}
}
