package arch

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/testutil"
)

// TestPreName recognises GPT-2 by the hash that the reference converter has for it.
func TestPreName(t *testing.T) {
	f, err := gguf.Open(testutil.Shared(t, "tokenizers", "ggml-vocab-gpt-2.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tokens, _ := f.Meta.Strs("tokenizer.ggml.tokens")
	merges, _ := f.Meta.Strs("tokenizer.ggml.merges")
	vocab := map[string]int{}
	for i, s := range tokens {
		vocab[s] = i
	}
	step := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	doc, err := json.Marshal(map[string]any{
		"added_tokens":  []any{map[string]any{"id": 50256, "content": "<|endoftext|>", "special": true}},
		"pre_tokenizer": step, "decoder": step,
		"model": map[string]any{"type": "BPE", "vocab": vocab, "merges": merges},
	})
	if err != nil {
		t.Fatal(err)
	}
	v := &folderVocab{dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(v.dir, "tokenizer.json"), doc, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := v.preName(); got != "gpt-2" {
		t.Errorf("the pre-tokenizer of GPT-2 is called %q", got)
	}
	v.dir = testutil.Shared(t, "models", "sprig", "hf")
	if got := v.preName(); got != "" {
		t.Errorf("that of sprig, which nobody lists, is called %q", got)
	}
}
