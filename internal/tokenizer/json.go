package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// ErrUnsupported marks errors about a part of a tokenizer that this package does
// not know; the error's text names it.
var ErrUnsupported = errors.New("not supported")

// JSON is a tokenizer.json, parsed but not interpreted. Parts that a tokenizer does
// not have are nil.
type JSON struct {
	AddedTokens   []AddedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         JSONModel       `json:"model"`
}

// AddedToken is a token that is found in the text before the model sees it.
type AddedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only where no word character stands beside it
	LStrip     bool   `json:"lstrip"`      // takes the white space before it
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"` // looked for after normalization
	Special    bool   `json:"special"`
}

// JSONModel is the model of a tokenizer.json.
type JSONModel struct {
	Type         string // "BPE", "Unigram", "WordPiece"
	Tokens       map[string]int32
	Scores       []float64   // Unigram: by id
	Merges       [][2]string // BPE: in rank order
	UnkToken     string
	UnkID        int32 // Unigram: -1 if there is none
	FuseUnk      bool
	ByteFallback bool
	IgnoreMerges bool
	SubwordStart string // continuing_subword_prefix
	WordEnd      string // end_of_word_suffix
	MaxWordChars int    // WordPiece: longer words are unknown
}

// UnmarshalJSON reads the model with its two spellings of merges and of vocabularies.
func (m *JSONModel) UnmarshalJSON(b []byte) error {
	var raw struct {
		Type         *string         `json:"type"`
		Vocab        json.RawMessage `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		UnkToken     *string         `json:"unk_token"`
		UnkID        *int32          `json:"unk_id"`
		FuseUnk      bool            `json:"fuse_unk"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
		SubwordStart *string         `json:"continuing_subword_prefix"`
		WordEnd      *string         `json:"end_of_word_suffix"`
		MaxWordChars int             `json:"max_input_chars_per_word"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	str := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	*m = JSONModel{Type: str(raw.Type), UnkToken: str(raw.UnkToken), UnkID: -1, FuseUnk: raw.FuseUnk, ByteFallback: raw.ByteFallback,
		IgnoreMerges: raw.IgnoreMerges, SubwordStart: str(raw.SubwordStart), WordEnd: str(raw.WordEnd), MaxWordChars: raw.MaxWordChars}
	if raw.UnkID != nil {
		m.UnkID = *raw.UnkID
	}
	vocab := bytes.TrimSpace(raw.Vocab)
	switch {
	case len(vocab) > 0 && vocab[0] == '[':
		var list []scored
		if err := json.Unmarshal(vocab, &list); err != nil {
			return err
		}
		m.Tokens = make(map[string]int32, len(list))
		for i, e := range list {
			m.Tokens[e.token] = int32(i)
			m.Scores = append(m.Scores, e.score)
		}
	case len(vocab) > 0:
		if err := json.Unmarshal(vocab, &m.Tokens); err != nil {
			return err
		}
	}
	if m.Type == "" { // files from before the field
		switch {
		case raw.Merges != nil:
			m.Type = "BPE"
		case m.Scores != nil:
			m.Type = "Unigram"
		default:
			m.Type = "WordPiece"
		}
	}
	return m.readMerges(raw.Merges)
}

func (m *JSONModel) readMerges(raw json.RawMessage) error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, &m.Merges); err == nil {
		return nil
	}
	var lines []string
	if err := json.Unmarshal(raw, &lines); err != nil {
		return err
	}
	m.Merges = m.Merges[:0]
	for i, l := range lines {
		if strings.HasPrefix(l, "#version") {
			continue
		}
		a, b, ok := strings.Cut(l, " ")
		if !ok || strings.Contains(b, " ") {
			return fmt.Errorf("merges[%d]: %q is no pair", i, l)
		}
		m.Merges = append(m.Merges, [2]string{a, b})
	}
	return nil
}

// scored is an entry of a Unigram vocabulary: ["▁the", -3.5].
type scored struct {
	token string
	score float64
}

func (s *scored) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&s.token, &s.score})
}

// ParseJSON reads a tokenizer.json.
func ParseJSON(b []byte) (*JSON, error) {
	j := &JSON{}
	if err := json.Unmarshal(b, j); err != nil {
		return nil, fmt.Errorf("tokenizer: read tokenizer.json: %w", err)
	}
	return j, nil
}

// maxVocab bounds ids, which are no more than indices into a list.
const maxVocab = 1 << 22

// vocabulary lists the tokens by id, the model's and the added ones. Ids that
// nothing uses have empty tokens.
func (j *JSON) vocabulary() ([]string, error) {
	size := int32(0)
	for tok, id := range j.Model.Tokens {
		if id < 0 || id >= maxVocab {
			return nil, fmt.Errorf("tokenizer: token %q has id %d", tok, id)
		}
		size = max(size, id+1)
	}
	for _, a := range j.AddedTokens {
		if a.ID < 0 || a.ID >= maxVocab || a.Content == "" {
			return nil, fmt.Errorf("tokenizer: added token %q has id %d", a.Content, a.ID)
		}
		size = max(size, a.ID+1)
	}
	tokens := make([]string, size)
	for tok, id := range j.Model.Tokens {
		tokens[id] = tok
	}
	for _, a := range j.AddedTokens {
		tokens[a.ID] = a.Content
	}
	return tokens, nil
}

// Config is what a tokenizer_config.json says beside a tokenizer.json. The zero
// value says nothing.
type Config struct {
	BOS, EOS, UNK, PAD string // tokens, "" where the file names none
	ChatTemplate       string
	ChatTemplates      map[string]string // named ones besides
}

// ParseConfig reads a tokenizer_config.json.
func ParseConfig(b []byte) (Config, error) {
	var raw struct {
		BOS      namedToken      `json:"bos_token"`
		EOS      namedToken      `json:"eos_token"`
		UNK      namedToken      `json:"unk_token"`
		PAD      namedToken      `json:"pad_token"`
		Template json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return Config{}, fmt.Errorf("tokenizer: read tokenizer_config.json: %w", err)
	}
	c := Config{BOS: string(raw.BOS), EOS: string(raw.EOS), UNK: string(raw.UNK), PAD: string(raw.PAD)}
	if len(raw.Template) == 0 || json.Unmarshal(raw.Template, &c.ChatTemplate) == nil {
		return c, nil
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(raw.Template, &list); err != nil {
		return c, fmt.Errorf("tokenizer: read tokenizer_config.json: chat_template: %w", err)
	}
	for _, t := range list {
		if t.Name == "default" {
			c.ChatTemplate = t.Template
			continue
		}
		if c.ChatTemplates == nil {
			c.ChatTemplates = map[string]string{}
		}
		c.ChatTemplates[t.Name] = t.Template
	}
	return c, nil
}

// namedToken is a token as a string, as an object with its content, or null.
type namedToken string

func (n *namedToken) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*n = namedToken(s)
		return nil
	}
	var o struct{ Content string }
	if json.Unmarshal(b, &o) == nil {
		*n = namedToken(o.Content)
	}
	return nil
}
