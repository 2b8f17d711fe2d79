package tokenizer

// TokenType is the kind of a vocabulary entry, with the ids of GGUF and SentencePiece.
type TokenType int32

// Kinds of tokens.
const (
	Normal      TokenType = 1
	Unknown     TokenType = 2
	Control     TokenType = 3
	UserDefined TokenType = 4
	Unused      TokenType = 5
	Byte        TokenType = 6
)

// Spec is everything that defines a tokenizer, in the terms of the
// tokenizer.ggml.* keys of GGUF. It is read from those keys or from a Hugging
// Face tokenizer.json or tokenizer.model, and what a conversion writes.
type Spec struct {
	Model  string // "llama" (SentencePiece BPE), "gpt2" (byte-level BPE), "t5" (Unigram), "bert" (WordPiece)
	Pre    string // name of the pre-tokenizer: "default", "llama-bpe", "qwen2", "smollm", …
	Tokens []string
	Types  []TokenType // len(Tokens), or nil: all normal
	Scores []float32   // len(Tokens), or nil
	Merges []string    // "a b", in rank order, byte-level alphabet for gpt2

	// Ids of special tokens, -1 if there is none.
	BOS, EOS, UNK, SEP, PAD, EOT, EOM, MASK int32

	// Flags; nil where the file does not say.
	AddBOS, AddEOS, AddSpacePrefix *bool
	RemoveExtraWhitespaces         *bool

	ChatTemplate  string            // "" if none
	ChatTemplates map[string]string // named ones besides
}
