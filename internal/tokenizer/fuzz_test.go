package tokenizer_test

import (
	"testing"

	"github.com/graft-lora/graft/internal/tokenizer"
)

// FuzzJSON: no tokenizer.json and no text makes reading, encoding or decoding panic,
// and ids are ids of the vocabulary.
func FuzzJSON(f *testing.F) {
	for _, doc := range []string{
		`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"<unk>":3,"▁":4},"merges":["a b"],"unk_token":"<unk>","fuse_unk":true},
		  "added_tokens":[{"id":5,"content":"<s>","special":true,"rstrip":true},{"id":6,"content":"B","normalized":true,"single_word":true}],
		  "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"},{"type":"NFKC"},{"type":"Lowercase"}]},
		  "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[5]}}},
		  "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}}`,
		`{"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["▁a",-1],["b",-2.5]],"byte_fallback":true},"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first"},"decoder":{"type":"Metaspace"}}`,
		`{"model":{"type":"WordPiece","vocab":{"[UNK]":0,"a":1,"##b":2},"unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100},"normalizer":{"type":"BertNormalizer","lowercase":true,"clean_text":true,"handle_chinese_chars":true},"pre_tokenizer":{"type":"BertPreTokenizer"},"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},"post_processor":{"type":"BertProcessing","sep":["a",1],"cls":["[UNK]",0]}}`,
		`{"model":{"type":"BPE","vocab":{"a":0,"Ġ":1,"Ġa":2},"merges":[["Ġ","a"]],"ignore_merges":true},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"Punctuation"},{"type":"Split","pattern":{"Regex":"\\p{N}{1,3}"},"behavior":"MergedWithNext","invert":true},{"type":"ByteLevel"}]},"decoder":{"type":"ByteLevel"}}`,
	} {
		f.Add(doc, "a b <s>  B ab 12é")
	}
	f.Fuzz(func(t *testing.T, doc, text string) {
		tok, err := tokenizer.FromJSON([]byte(doc), tokenizer.Config{BOS: "<s>"})
		if err != nil {
			return
		}
		ids, spans := tok.EncodeWithOffsets(text, tokenizer.EncodeOptions{ParseSpecial: true, AddSpecial: true})
		for i, id := range ids {
			if id < 0 || int(id) >= tok.Size() || spans[i].Start < 0 || spans[i].End < spans[i].Start || spans[i].End > len(text) {
				t.Fatalf("token %d of %d, span %v of %d bytes", id, tok.Size(), spans[i], len(text))
			}
		}
		tok.Decode(ids, tokenizer.DecodeOptions{})
	})
}

// FuzzSpec: no vocabulary of a GGUF and no text makes reading or encoding panic.
func FuzzSpec(f *testing.F) {
	f.Add("gpt2", "default", "a b ab <s>", "a b", int32(3), []byte{1, 1, 1, 3}, []byte{}, "ab <s>é\xff")
	f.Add("llama", "", "<unk> ▁a a <0x41>", "", int32(0), []byte{2, 1, 1, 6}, []byte{}, "a A\xe2")
	f.Add("t5", "", "<unk> ▁a a b", "", int32(0), []byte{2, 1, 1, 4}, []byte{8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 65, 0}, "ab a")
	f.Add("bert", "", "[UNK] ▁a b ▁é", "", int32(0), []byte{2}, []byte{}, "a Éb 日x")
	f.Fuzz(func(t *testing.T, model, pre, tokens, merges string, special int32, types, charsmap []byte, text string) {
		spec := tokenizer.NewSpec()
		spec.Model, spec.Pre, spec.PrecompiledCharsmap = model, pre, charsmap
		spec.Tokens = split(tokens, ' ')
		spec.Merges = split(merges, ',')
		spec.BOS, spec.EOS, spec.UNK, spec.SEP = special, special, special, special
		for i := range spec.Tokens {
			typ := tokenizer.Normal
			if i < len(types) {
				typ = tokenizer.TokenType(types[i])
			}
			spec.Types = append(spec.Types, typ)
			spec.Scores = append(spec.Scores, -float32(i))
		}
		tok, err := tokenizer.New(spec)
		if err != nil {
			return
		}
		ids, spans := tok.EncodeWithOffsets(text, tokenizer.EncodeOptions{ParseSpecial: true, AddSpecial: true})
		for i, id := range ids {
			if id < 0 || int(id) >= tok.Size() || spans[i].Start < 0 || spans[i].End < spans[i].Start || spans[i].End > len(text) {
				t.Fatalf("token %d of %d, span %v of %d bytes", id, tok.Size(), spans[i], len(text))
			}
		}
		tok.Decode(ids, tokenizer.DecodeOptions{CleanUp: true})
	})
}

func split(s string, by byte) []string {
	out := []string{}
	for i, j := 0, 0; j <= len(s); j++ {
		if j == len(s) || s[j] == by {
			out = append(out, s[i:j])
			i = j + 1
		}
	}
	return out
}
