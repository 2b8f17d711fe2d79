package tokenizer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
)

func tinyllama(t *testing.T) *tokenizer.Tokenizer {
	t.Helper()
	b, err := os.ReadFile(testutil.Shared(t, "tokenizers", "tinyllama", "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := os.ReadFile(testutil.Shared(t, "tokenizers", "tinyllama", "tokenizer_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := tokenizer.ParseConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromJSON(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// qwen3 puts together the tokenizer.json that the Qwen3 models have from the vocabulary
// and merges in shared, and the added tokens of their tokenizer_config.json.
func qwen3(t *testing.T) *tokenizer.Tokenizer {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(testutil.Shared(t, "tokenizers", "qwen3", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var config struct {
		Added map[string]map[string]any `json:"added_tokens_decoder"`
	}
	if err := json.Unmarshal(read("tokenizer_config.json"), &config); err != nil {
		t.Fatal(err)
	}
	var added []map[string]any
	for id, tok := range config.Added {
		n, err := strconv.Atoi(id)
		if err != nil {
			t.Fatal(err)
		}
		tok["id"] = n
		added = append(added, tok)
	}
	var merges []string
	for line := range bytes.Lines(read("merges.txt")) {
		if s := strings.TrimRight(string(line), "\r\n"); s != "" {
			merges = append(merges, s)
		}
	}
	doc := map[string]any{
		"added_tokens": added,
		"normalizer":   map[string]any{"type": "NFC"},
		"pre_tokenizer": map[string]any{"type": "Sequence", "pretokenizers": []any{
			map[string]any{"type": "Split", "behavior": "Isolated", "pattern": map[string]any{
				"Regex": `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`}},
			map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
		}},
		"decoder": map[string]any{"type": "ByteLevel"},
		"model":   map[string]any{"type": "BPE", "vocab": json.RawMessage(read("vocab.json")), "merges": merges},
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := tokenizer.ParseConfig(read("tokenizer_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromJSON(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestTransformers compares every recorded text with what the tokenizers library
// gave for the same tokenizer.json. Equality is exact.
func TestTransformers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		oracle string
		make   func(t *testing.T) *tokenizer.Tokenizer
	}{{"tinyllama", tinyllama}, {"qwen3", qwen3}} {
		t.Run(c.oracle, func(t *testing.T) {
			t.Parallel()
			oracle := readOracle(t, c.oracle+".json")
			if len(oracle.Cases) < 200 {
				t.Fatalf("only %d cases", len(oracle.Cases))
			}
			tok := c.make(t)
			for _, c := range oracle.Cases {
				var want oracleCase
				if err := json.Unmarshal(c.Transformers, &want); err != nil {
					t.Fatal(err)
				}
				plain, special, full := want.ids(t)
				for _, e := range []struct {
					name string
					opt  tokenizer.EncodeOptions
					want []int32
				}{
					{"plain", tokenizer.EncodeOptions{}, plain},
					{"special", tokenizer.EncodeOptions{ParseSpecial: true}, special},
					{"full", tokenizer.EncodeOptions{ParseSpecial: true, AddSpecial: true}, full},
				} {
					got, spans := tok.EncodeWithOffsets(c.Text, e.opt)
					if !slices.Equal(got, e.want) {
						t.Errorf("%q %s: got %v, want %v", c.Text, e.name, got, e.want)
					}
					for i, s := range spans {
						if s.Start < 0 || s.End < s.Start || s.End > len(c.Text) || i > 0 && s.Start < spans[i-1].Start {
							t.Errorf("%q: spans %v are out of order", c.Text, spans)
							break
						}
					}
				}
				if w, ok := text(t, want.Decode, c.Text); ok {
					if got := tok.Decode(special, tokenizer.DecodeOptions{}); got != w {
						t.Errorf("%q decode: got %q, want %q", c.Text, got, w)
					}
				}
				if w, ok := text(t, want.DecodeSkipSpecial, c.Text); ok {
					if got := tok.Decode(special, tokenizer.DecodeOptions{SkipSpecial: true}); got != w {
						t.Errorf("%q decode_skip_special: got %q, want %q", c.Text, got, w)
					}
				}
				var b strings.Builder
				d := tok.NewDecoder(tokenizer.DecodeOptions{})
				for _, id := range special {
					b.WriteString(d.Add(id))
				}
				b.WriteString(d.Flush())
				if whole := tok.Decode(special, tokenizer.DecodeOptions{}); b.String() != whole {
					t.Errorf("%q: streamed %q, at once %q", c.Text, b.String(), whole)
				}
			}
		})
	}
}

// TestConformance compares ids with baselines of transformers 4.57 for vocabularies
// that shared has. Qwen2.5 has Qwen3's vocabulary; gpt2 is the one of its GGUF.
func TestConformance(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(testutil.Shared(t, "tokenizers", "conformance-v1", "inputs.json"))
	if err != nil {
		t.Fatal(err)
	}
	var inputs struct {
		Inputs []struct{ ID, Text string }
	}
	if err := json.Unmarshal(b, &inputs); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file string
		make func(t *testing.T) *tokenizer.Tokenizer
	}{
		{"TinyLlama__TinyLlama-1.1B-Chat-v1.0.json", tinyllama},
		{"Qwen__Qwen2.5-0.5B.json", qwen3},
		{"openai-community__gpt2.json", func(t *testing.T) *tokenizer.Tokenizer {
			return fromGGUF(t, testutil.Shared(t, "tokenizers", "ggml-vocab-gpt-2.gguf"))
		}},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			tok := c.make(t)
			b, err := os.ReadFile(testutil.Shared(t, "tokenizers", "conformance-v1", "baselines", c.file))
			if err != nil {
				t.Fatal(err)
			}
			var base struct {
				Entries map[string]struct {
					IDs     []int32 `json:"input_ids"`
					Decoded string  `json:"decoded_with_special"`
					Skipped string  `json:"decoded_skip_special"`
				}
			}
			if err := json.Unmarshal(b, &base); err != nil {
				t.Fatal(err)
			}
			for _, in := range inputs.Inputs {
				want, ok := base.Entries[in.ID]
				if !ok {
					t.Errorf("no baseline for %s", in.ID)
					continue
				}
				got := tok.Encode(in.Text, tokenizer.EncodeOptions{ParseSpecial: true, AddSpecial: true})
				if !slices.Equal(got, want.IDs) {
					t.Errorf("%s %q: got %v, want %v", in.ID, in.Text, got, want.IDs)
				}
				if s := tok.Decode(want.IDs, tokenizer.DecodeOptions{}); s != want.Decoded {
					t.Errorf("%s decoded: got %q, want %q", in.ID, s, want.Decoded)
				}
				if s := tok.Decode(want.IDs, tokenizer.DecodeOptions{SkipSpecial: true}); s != want.Skipped {
					t.Errorf("%s decoded without special tokens: got %q, want %q", in.ID, s, want.Skipped)
				}
			}
		})
	}
}

// TestUnsupported: parts that are not known are errors that name them.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ doc, name string }{
		{`{"model":{"type":"Thing","vocab":{"a":0}}}`, "Thing"},
		{`{"pre_tokenizer":{"type":"Odd"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`, "Odd"},
		{`{"normalizer":{"type":"Sequence","normalizers":[{"type":"Rare"}]},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`, "Rare"},
		{`{"decoder":{"type":"Strange"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`, "Strange"},
		{`{"post_processor":{"type":"New"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`, "New"},
	} {
		_, err := tokenizer.FromJSON([]byte(c.doc), tokenizer.Config{})
		if !errors.Is(err, tokenizer.ErrUnsupported) || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s: %v", c.doc, err)
		}
	}
	spec := tokenizer.NewSpec()
	spec.Model, spec.Pre, spec.Tokens, spec.Merges = "gpt2", "someday", []string{"a"}, []string{}
	if _, err := tokenizer.New(spec); !errors.Is(err, tokenizer.ErrUnsupported) || !strings.Contains(err.Error(), "someday") {
		t.Errorf("pre-tokenizer: %v", err)
	}
}
