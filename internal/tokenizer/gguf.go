package tokenizer

import (
	"fmt"
)

// Metadata is where [SpecFromGGUF] reads keys; *gguf.Meta is one. Each method
// says with ok whether the key is there and has that kind of value.
type Metadata interface {
	Str(key string) (s string, ok bool)
	Bool(key string) (b, ok bool)
	Int(key string) (n int64, ok bool)
	Strs(key string) (s []string, ok bool)
	Ints(key string) (n []int64, ok bool)
	Floats(key string) (f []float64, ok bool)
}

// idKeys are the metadata keys of special tokens; "seperator" is how the format
// spells it. The last three are old names.
var idKeys = []struct {
	name string
	id   func(*Spec) *int32
}{
	{"bos", func(s *Spec) *int32 { return &s.BOS }},
	{"eos", func(s *Spec) *int32 { return &s.EOS }},
	{"eot", func(s *Spec) *int32 { return &s.EOT }},
	{"eom", func(s *Spec) *int32 { return &s.EOM }},
	{"unknown", func(s *Spec) *int32 { return &s.UNK }},
	{"seperator", func(s *Spec) *int32 { return &s.SEP }},
	{"padding", func(s *Spec) *int32 { return &s.PAD }},
	{"mask", func(s *Spec) *int32 { return &s.MASK }},
	{"fim_pre", func(s *Spec) *int32 { return &s.FIMPre }},
	{"fim_suf", func(s *Spec) *int32 { return &s.FIMSuf }},
	{"fim_mid", func(s *Spec) *int32 { return &s.FIMMid }},
	{"fim_pad", func(s *Spec) *int32 { return &s.FIMPad }},
	{"fim_rep", func(s *Spec) *int32 { return &s.FIMRep }},
	{"fim_sep", func(s *Spec) *int32 { return &s.FIMSep }},
	{"prefix", func(s *Spec) *int32 { return &s.FIMPre }},
	{"suffix", func(s *Spec) *int32 { return &s.FIMSuf }},
	{"middle", func(s *Spec) *int32 { return &s.FIMMid }},
}

// SpecFromGGUF reads the tokenizer.* keys of a GGUF file. The slices of strings
// are those of the metadata, not copies. An id outside the vocabulary counts as
// absent, as in llama.cpp; a list of the wrong length is an error.
func SpecFromGGUF(m Metadata) (Spec, error) {
	const p = "tokenizer.ggml."
	s := NewSpec()
	var ok bool
	if s.Model, ok = m.Str(p + "model"); !ok {
		return s, fmt.Errorf("tokenizer: the metadata has no %smodel", p)
	}
	s.Pre, _ = m.Str(p + "pre")
	if s.Tokens, ok = m.Strs(p + "tokens"); !ok {
		return s, fmt.Errorf("tokenizer: the metadata has no %stokens", p)
	}
	n := len(s.Tokens)
	if types, ok := m.Ints(p + "token_type"); ok {
		if len(types) < n {
			return s, fmt.Errorf("tokenizer: %stoken_type has %d entries for %d tokens", p, len(types), n)
		}
		s.Types = make([]TokenType, n)
		for i := range s.Types {
			s.Types[i] = TokenType(types[i])
		}
	}
	if scores, ok := m.Floats(p + "scores"); ok {
		if len(scores) < n {
			return s, fmt.Errorf("tokenizer: %sscores has %d entries for %d tokens", p, len(scores), n)
		}
		s.Scores = make([]float32, n)
		for i := range s.Scores {
			s.Scores[i] = float32(scores[i])
		}
	} else if scores, ok := m.Ints(p + "scores"); ok && len(scores) >= n {
		s.Scores = make([]float32, n)
		for i := range s.Scores {
			s.Scores[i] = float32(scores[i])
		}
	}
	s.Merges, _ = m.Strs(p + "merges")
	for _, k := range idKeys {
		if id, ok := m.Int(p + k.name + "_token_id"); ok && id >= 0 && id < int64(n) {
			*k.id(&s) = int32(id)
		}
	}
	for _, f := range []struct {
		key string
		at  **bool
	}{
		{"add_bos_token", &s.AddBOS}, {"add_eos_token", &s.AddEOS}, {"add_sep_token", &s.AddSEP},
		{"add_space_prefix", &s.AddSpacePrefix}, {"remove_extra_whitespaces", &s.RemoveExtraWhitespaces},
		{"normalizer.lowercase", &s.Lowercase}, {"normalizer.strip_accents", &s.StripAccents},
	} {
		if b, ok := m.Bool(p + f.key); ok {
			*f.at = &b
		}
	}
	if c, ok := m.Ints(p + "precompiled_charsmap"); ok {
		s.PrecompiledCharsmap = make([]byte, len(c))
		for i, b := range c {
			s.PrecompiledCharsmap[i] = byte(b)
		}
	}
	s.ModelName, _ = m.Str("general.name")
	s.ChatTemplate, _ = m.Str("tokenizer.chat_template")
	if names, ok := m.Strs("tokenizer.chat_templates"); ok {
		s.ChatTemplates = map[string]string{}
		for _, name := range names {
			if t, ok := m.Str("tokenizer.chat_template." + name); ok {
				s.ChatTemplates[name] = t
			}
		}
	}
	return s, nil
}
