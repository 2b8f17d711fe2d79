package tokenizer_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// oracleFile is a file of shared/oracle/tokenizers; its README says what the fields are.
type oracleFile struct {
	Cases []struct {
		Text         string          `json:"text"`
		LlamaCpp     *oracleCase     `json:"llama.cpp"`
		Transformers json.RawMessage `json:"transformers"`
	} `json:"cases"`
}

type oracleCase struct {
	Plain, Special, Full json.RawMessage
	TextOfPlain          json.RawMessage `json:"text_of_plain"`
	TextOfSpecial        json.RawMessage `json:"text_of_special"`
	TextOfSpecialHidden  json.RawMessage `json:"text_of_special_hidden"`
	Decode               json.RawMessage `json:"decode"`
	DecodeSkipSpecial    json.RawMessage `json:"decode_skip_special"`
}

func readOracle(t *testing.T, name string) oracleFile {
	t.Helper()
	b, err := os.ReadFile(testutil.Shared(t, "oracle", "tokenizers", name))
	if err != nil {
		t.Fatal(err)
	}
	var f oracleFile
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// ids gives the three encodings of a case.
func (c *oracleCase) ids(t *testing.T) (plain, special, full []int32) {
	t.Helper()
	read := func(raw json.RawMessage) []int32 {
		switch string(raw) {
		case `"=plain"`:
			return plain
		case `"=special"`:
			return special
		}
		var v []int32
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		return v
	}
	plain = read(c.Plain)
	special = read(c.Special)
	full = read(c.Full)
	return plain, special, full
}

// text reads what decoding should give: true for the text itself, a string, or bytes
// in hexadecimal. ok is false if the case does not say.
func text(t *testing.T, raw json.RawMessage, itself string) (want string, ok bool) {
	t.Helper()
	if len(raw) == 0 {
		return "", false
	}
	if string(raw) == "true" {
		return itself, true
	}
	if json.Unmarshal(raw, &want) == nil {
		return want, true
	}
	var v struct{ Hex string }
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	b, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), true
}

func fromGGUF(t testing.TB, path string) *tokenizer.Tokenizer {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	spec, err := tokenizer.SpecFromGGUF(f.Meta)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// realModel is a model of the cache that shared/get-models fills.
func realModel(t *testing.T, name string) string {
	t.Helper()
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip(err)
	}
	path := filepath.Join(home, ".cache", "graft-models", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the model %s is not in the cache: fetch it with shared/get-models", name)
	}
	return path
}

// TestLlamaCpp compares every recorded text, encoded three ways and decoded, with
// what llama.cpp gave for the same GGUF vocabulary. Equality is exact.
func TestLlamaCpp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		oracle string
		path   func(t *testing.T) string
	}{
		{"smollm2", func(t *testing.T) string { return testutil.Shared(t, "oracle", "tokenizers", "smollm2-vocab.gguf") }},
		{"gpt-2", func(t *testing.T) string { return testutil.Shared(t, "tokenizers", "ggml-vocab-gpt-2.gguf") }},
		{"llama-spm", func(t *testing.T) string { return testutil.Shared(t, "tokenizers", "ggml-vocab-llama-spm.gguf") }},
		{"gemma3", func(t *testing.T) string { return realModel(t, "gemma-3-270m-q4_k_m.gguf") }},
	} {
		t.Run(c.oracle, func(t *testing.T) {
			t.Parallel()
			oracle := readOracle(t, c.oracle+".json")
			tok := fromGGUF(t, c.path(t))
			if len(oracle.Cases) < 200 {
				t.Fatalf("only %d cases", len(oracle.Cases))
			}
			for _, c := range oracle.Cases {
				plain, special, full := c.LlamaCpp.ids(t)
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
					if bare := tok.Encode(c.Text, e.opt); !slices.Equal(got, bare) {
						t.Errorf("%q %s: without offsets %v, with %v", c.Text, e.name, bare, got)
					}
					checkSpans(t, c.Text, spans)
				}
				for _, d := range []struct {
					name string
					raw  json.RawMessage
					ids  []int32
					opt  tokenizer.DecodeOptions
				}{
					{"text_of_plain", c.LlamaCpp.TextOfPlain, plain, tokenizer.DecodeOptions{CleanUp: true}},
					{"text_of_special", c.LlamaCpp.TextOfSpecial, special, tokenizer.DecodeOptions{CleanUp: true}},
					{"text_of_special_hidden", c.LlamaCpp.TextOfSpecialHidden, special, tokenizer.DecodeOptions{CleanUp: true, SkipSpecial: true}},
				} {
					want, ok := text(t, d.raw, c.Text)
					if !ok {
						continue
					}
					if got := tok.Decode(d.ids, d.opt); got != want {
						t.Errorf("%q %s: got %q, want %q", c.Text, d.name, got, want)
					}
				}
			}
		})
	}
}

// checkSpans checks that the spans follow one another and cover the text.
func checkSpans(t *testing.T, text string, spans []tokenizer.Span) {
	t.Helper()
	at := 0
	for _, s := range spans {
		if s.Start != at && !(s.Start == s.End) || s.End < s.Start || s.End > len(text) {
			t.Errorf("%q: spans %v do not follow one another", text, spans)
			return
		}
		at = max(at, s.End)
	}
	if len(spans) > 0 && at != len(text) {
		t.Errorf("%q: spans %v do not reach the end", text, spans)
	}
}

// TestGGMLVocab checks the tests that llama.cpp's own repository has for its
// vocabularies: a text file of inputs and one of expected ids.
func TestGGMLVocab(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		base string
		make func(t *testing.T) *tokenizer.Tokenizer
	}{
		{"ggml-vocab-gpt-2.gguf", func(t *testing.T) *tokenizer.Tokenizer {
			return fromGGUF(t, testutil.Shared(t, "tokenizers", "ggml-vocab-gpt-2.gguf"))
		}},
		{"ggml-vocab-llama-spm.gguf", func(t *testing.T) *tokenizer.Tokenizer {
			return fromGGUF(t, testutil.Shared(t, "tokenizers", "ggml-vocab-llama-spm.gguf"))
		}},
		{"llama-bpe/ggml-vocab-llama-bpe.gguf", func(t *testing.T) *tokenizer.Tokenizer {
			return fromMerges(t, "llama-bpe", testutil.Shared(t, "tokenizers", "llama-bpe", "encoder.json"),
				testutil.Shared(t, "tokenizers", "llama-bpe", "vocab.bpe"))
		}},
		{"qwen3/ggml-vocab-qwen2.gguf", func(t *testing.T) *tokenizer.Tokenizer {
			return fromMerges(t, "qwen2", testutil.Shared(t, "tokenizers", "qwen3", "vocab.json"),
				testutil.Shared(t, "tokenizers", "qwen3", "merges.txt"))
		}},
	} {
		t.Run(c.base, func(t *testing.T) {
			t.Parallel()
			tok := c.make(t)
			in, err := os.ReadFile(testutil.Shared(t, "tokenizers", c.base+".inp"))
			if err != nil {
				t.Fatal(err)
			}
			out, err := os.ReadFile(testutil.Shared(t, "tokenizers", c.base+".out"))
			if err != nil {
				t.Fatal(err)
			}
			texts := strings.Split(strings.TrimSuffix(string(in), "\n__ggml_vocab_test__\n"), "\n__ggml_vocab_test__\n")
			lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
			if len(texts) != len(lines) || len(texts) < 20 {
				t.Fatalf("%d texts, %d answers", len(texts), len(lines))
			}
			for i, text := range texts {
				var want []int32
				for f := range strings.FieldsSeq(lines[i]) {
					n, err := strconv.Atoi(f)
					if err != nil {
						t.Fatal(err)
					}
					want = append(want, int32(n))
				}
				if got := tok.Encode(text, tokenizer.EncodeOptions{}); !slices.Equal(got, want) {
					t.Errorf("%q: got %v, want %v", text, got, want)
				}
			}
		})
	}
}

// fromMerges makes a byte-level BPE of a vocabulary and a list of merges, the form
// in which models came before tokenizer.json.
func fromMerges(t *testing.T, pre, vocab, merges string) *tokenizer.Tokenizer {
	t.Helper()
	spec := tokenizer.NewSpec()
	spec.Model, spec.Pre = "gpt2", pre
	b, err := os.ReadFile(vocab)
	if err != nil {
		t.Fatal(err)
	}
	var ids map[string]int
	if err := json.Unmarshal(b, &ids); err != nil {
		t.Fatal(err)
	}
	spec.Tokens = make([]string, len(ids))
	for tok, id := range ids {
		spec.Tokens[id] = tok
	}
	if b, err = os.ReadFile(merges); err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if s := strings.TrimRight(string(line), "\r\n"); s != "" && !strings.HasPrefix(s, "#version") {
			spec.Merges = append(spec.Merges, s)
		}
	}
	tok, err := tokenizer.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestLongWord holds encoding to a linear cost on a long text without spaces, where
// everything is one word, and checks that decoding gives it back.
func TestLongWord(t *testing.T) {
	t.Parallel()
	tok := fromGGUF(t, testutil.Shared(t, "tokenizers", "ggml-vocab-llama-spm.gguf"))
	text := strings.Repeat("thequickbrownfoxjumpsoverthelazydog\u00e9", 5000)
	ids := tok.Encode(text, tokenizer.EncodeOptions{})
	if got := tok.Decode(ids, tokenizer.DecodeOptions{}); got != text || !utf8.ValidString(got) {
		t.Errorf("decoding %d ids gave another text", len(ids))
	}
}
