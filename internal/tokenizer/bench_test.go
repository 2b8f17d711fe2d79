package tokenizer_test

import (
	"os"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// BenchmarkEncode encodes a megabyte of questions and answers, JSON and all.
func BenchmarkEncode(b *testing.B) {
	raw, err := os.ReadFile(testutil.Shared(b, "text", "gsm8k-train.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	text := string(raw[:min(len(raw), 1<<20)])
	for _, c := range []struct{ name, file string }{
		{"bytelevel", "ggml-vocab-gpt-2.gguf"}, {"sentencepiece", "ggml-vocab-llama-spm.gguf"},
	} {
		tok := fromGGUF(b, testutil.Shared(b, "tokenizers", c.file))
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text, tokenizer.EncodeOptions{ParseSpecial: true})
			}
		})
		b.Run(c.name+"/offsets", func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.EncodeWithOffsets(text, tokenizer.EncodeOptions{ParseSpecial: true})
			}
		})
	}
}
