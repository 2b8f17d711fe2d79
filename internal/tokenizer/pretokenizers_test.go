package tokenizer_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// TestPreTokenizers compares all pre-tokenizers that llama.cpp knows with what it
// gave (node-llama-cpp 3.22.1) for 600 texts of ours, random strings of letters of
// many scripts, digits, marks, punctuation and white space, with the vocabulary of
// gpt-2 under each name. testdata has a digest of the ids for each name.
func TestPreTokenizers(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/pretokenizers.json")
	if err != nil {
		t.Fatal(err)
	}
	var rec struct {
		Texts  []string
		SHA256 map[string]string
	}
	if err := json.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	gpt2 := fromGGUF(t, testutil.Shared(t, "tokenizers", "ggml-vocab-gpt-2.gguf"))
	if len(rec.SHA256) < 80 || len(rec.Texts) < 500 {
		t.Fatalf("%d names, %d texts", len(rec.SHA256), len(rec.Texts))
	}
	for name, want := range rec.SHA256 {
		tok := gpt2.WithPre(name)
		h := sha256.New()
		for _, text := range rec.Texts {
			ids := tok.Encode(text, tokenizer.EncodeOptions{})
			fmt.Fprintln(h, strings.Trim(fmt.Sprint(ids), "[]"))
		}
		if got := hex.EncodeToString(h.Sum(nil)); got[:32] != want {
			t.Errorf("%s: other ids than llama.cpp's", name)
		}
	}
}
