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
// Face tokenizer.json or tokenizer.model, and what a conversion writes. Make one
// with [NewSpec]: the zero value claims that every special token has id 0.
type Spec struct {
	Model  string // "llama" (SentencePiece BPE), "gpt2" (byte-level BPE), "t5" (Unigram), "bert" (WordPiece)
	Pre    string // name of the pre-tokenizer: "default", "llama-bpe", "qwen2", "smollm", …
	Tokens []string
	Types  []TokenType // len(Tokens), or nil: all normal
	Scores []float32   // len(Tokens), or nil
	Merges []string    // "a b", in rank order, byte-level alphabet for gpt2

	// Ids of special tokens, -1 if there is none.
	BOS, EOS, UNK, SEP, PAD, EOT, EOM, MASK int32
	// Ids of the tokens of fill-in-the-middle prompts, -1 if there is none.
	FIMPre, FIMSuf, FIMMid, FIMPad, FIMRep, FIMSep int32

	// Flags; nil where the file does not say.
	AddBOS, AddEOS, AddSEP, AddSpacePrefix *bool
	RemoveExtraWhitespaces                 *bool
	Lowercase, StripAccents                *bool // the normalizer of a WordPiece model

	PrecompiledCharsmap []byte // the normalizer of a Unigram model, nil if none

	ChatTemplate  string            // "" if none
	ChatTemplates map[string]string // named ones besides

	// ModelName is general.name. It decides one thing: the special tokens of Phi-3
	// files swallow the white space after them.
	ModelName string
}

// NewSpec returns a spec without any special token.
func NewSpec() Spec {
	return Spec{BOS: -1, EOS: -1, UNK: -1, SEP: -1, PAD: -1, EOT: -1, EOM: -1, MASK: -1,
		FIMPre: -1, FIMSuf: -1, FIMMid: -1, FIMPad: -1, FIMRep: -1, FIMSep: -1}
}

// Type is the type of token id.
func (s *Spec) Type(id int32) TokenType {
	if s.Types == nil {
		return Normal
	}
	return s.Types[id]
}

// Score is the score of token id, 0 if the spec has none.
func (s *Spec) Score(id int32) float32 {
	if s.Scores == nil {
		return 0
	}
	return s.Scores[id]
}
