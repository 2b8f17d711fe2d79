package tokenizer_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// randomTexts are strings of words, white space, scripts and bytes that are no UTF-8.
func randomTexts(n int) []string {
	parts := []string{"the", " the", "▁", "▁▁", " ", "  ", "\n", "\t", "a", "é", "日本", "🙂", "\xff", "\xe2\x96", "\xe2", "</s>", "<s>",
		"<0x41>", "<|im_end|>", "1", "23", ".", ")", "}", "x=", "ing", "\x00", "\u00a0", "الع", "ﬁ", "e\u0301"}
	rng := rand.New(rand.NewPCG(1, 2))
	texts := make([]string, n)
	for i := range texts {
		var b strings.Builder
		for range 1 + rng.IntN(20) {
			b.WriteString(parts[rng.IntN(len(parts))])
		}
		texts[i] = b.String()
	}
	return texts
}

// TestSegments: cutting a text where no token reaches across changes nothing.
func TestSegments(t *testing.T) {
	t.Parallel()
	for name, tok := range map[string]*tokenizer.Tokenizer{
		"llama-spm": fromGGUF(t, testutil.Shared(t, "tokenizers", "ggml-vocab-llama-spm.gguf")),
		"tinyllama": tinyllama(t),
	} {
		whole := tok.InOnePiece()
		for _, text := range randomTexts(2000) {
			opt := tokenizer.EncodeOptions{ParseSpecial: len(text)%2 == 0}
			got, spans := tok.EncodeWithOffsets(text, opt)
			want, wantSpans := whole.EncodeWithOffsets(text, opt)
			if !slices.Equal(got, want) || !slices.Equal(spans, wantSpans) {
				t.Fatalf("%s %q: in parts %v %v, in one piece %v %v", name, text, got, spans, want, wantSpans)
			}
		}
	}
}

// TestRoundTrip: what byte-level and byte-fallback vocabularies encode comes back,
// at once and as a stream, and the spans of tokens are in order.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, tok := range map[string]*tokenizer.Tokenizer{
		"smollm2":   fromGGUF(t, testutil.Shared(t, "oracle", "tokenizers", "smollm2-vocab.gguf")),
		"llama-spm": fromGGUF(t, testutil.Shared(t, "tokenizers", "ggml-vocab-llama-spm.gguf")),
	} {
		for _, text := range randomTexts(1000) {
			ids, spans := tok.EncodeWithOffsets(text, tokenizer.EncodeOptions{})
			want := text
			switch {
			case name == "smollm2":
				want = replaceInvalid(text) // as llama.cpp reads text
			case utf8.ValidString(text):
				want = strings.ReplaceAll(text, "▁", " ")
			default: // half a character can swallow the beginning of a mark
				want = tok.Decode(ids, tokenizer.DecodeOptions{})
			}
			if got := tok.Decode(ids, tokenizer.DecodeOptions{}); got != want {
				t.Fatalf("%s: %q came back as %q", name, text, got)
			}
			var b strings.Builder
			d := tok.NewDecoder(tokenizer.DecodeOptions{})
			for _, id := range ids {
				b.WriteString(d.Add(id))
			}
			b.WriteString(d.Flush())
			if b.String() != want {
				t.Fatalf("%s: %q streamed as %q", name, text, b.String())
			}
			at := 0
			for _, s := range spans {
				if s.Start < at && s.End != s.Start && name == "llama-spm" || s.End < s.Start || s.End > len(text) {
					t.Fatalf("%s %q: spans %v", name, text, spans)
				}
				at = max(at, s.End)
			}
		}
	}
}

// replaceInvalid replaces each byte that belongs to no character by U+FFFD.
func replaceInvalid(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(r)
	}
	return b.String()
}

// TestStreamHoldsBack: a character that several tokens spell comes out whole.
func TestStreamHoldsBack(t *testing.T) {
	t.Parallel()
	tok := fromGGUF(t, testutil.Shared(t, "tokenizers", "ggml-vocab-llama-spm.gguf"))
	ids := tok.Encode("a🙂b", tokenizer.EncodeOptions{})
	d := tok.NewDecoder(tokenizer.DecodeOptions{})
	var steps []string
	for _, id := range ids {
		if s := d.Add(id); s != "" {
			steps = append(steps, s)
		}
	}
	if want := []string{"a", "🙂", "b"}; !slices.Equal(steps, want) {
		t.Errorf("got %q, want %q", steps, want)
	}
	d.Add(ids[1])
	if s := d.Flush(); s != tok.Piece(ids[1]) {
		t.Errorf("flushed %q", s)
	}
}

// TestEndOfGeneration compares with what llama.cpp says (node-llama-cpp 3.22.1) of
// every token of these vocabularies.
func TestEndOfGeneration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path     []string
		eog      []int32
		bos, eos int32
		addBOS   bool
	}{
		{[]string{"oracle", "tokenizers", "smollm2-vocab.gguf"}, []int32{0, 2, 4}, 1, 2, false},
		{[]string{"tokenizers", "ggml-vocab-gpt-2.gguf"}, []int32{50256}, 50256, 50256, false},
		{[]string{"tokenizers", "ggml-vocab-llama-spm.gguf"}, []int32{2}, 1, 2, true},
	} {
		tok := fromGGUF(t, testutil.Shared(t, c.path...))
		if !slices.Equal(tok.EOG(), c.eog) || tok.BOS() != c.bos || tok.EOS() != c.eos || tok.AddsBOS() != c.addBOS {
			t.Errorf("%v: eog %v bos %d eos %d add bos %v", c.path, tok.EOG(), tok.BOS(), tok.EOS(), tok.AddsBOS())
		}
		for _, id := range c.eog {
			if !tok.IsEOG(id) || !tok.IsSpecial(id) {
				t.Errorf("%v: token %d is not special", c.path, id)
			}
		}
	}
}
