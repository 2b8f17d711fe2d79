// Package tokenizer turns text into token ids and back: byte-level BPE, BPE over
// SentencePiece scores, Unigram and WordPiece, from the keys of a GGUF file
// ([SpecFromGGUF] and [New]: the rules of llama.cpp) or from a Hugging Face
// tokenizer.json used as it is ([FromJSON]: the rules of the tokenizers library).
// Where the two differ each file keeps to its own.
//
// A [Tokenizer] is immutable and safe for concurrent use; slices that it returns
// belong to the caller. Text need not be valid UTF-8, and decoding gives back
// bytes as they are. Lists of a file that contradict each other are errors of New;
// no text makes Encode fail.
//
//	spec, err := tokenizer.SpecFromGGUF(file.Meta)
//	tok, err := tokenizer.New(spec)
//	ids := tok.Encode("Hello", tokenizer.EncodeOptions{AddSpecial: true})
//	text := tok.Decode(ids, tokenizer.DecodeOptions{SkipSpecial: true})
package tokenizer
