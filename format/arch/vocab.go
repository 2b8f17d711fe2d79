package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// vocabForm is a form that a folder's tokenizer can have.
type vocabForm int

const (
	sentencePiece      vocabForm = iota // tokenizer.model
	sentencePieceAdded                  // the same, added tokens of tokenizer.json too (Phi-3)
	sentencePieceJSON                   // tokenizer.json with byte fallback
	byteLevel                           // tokenizer.json over bytes
)

const tok = "tokenizer.ggml."

// folderVocab reads the tokenizer of a folder the way the reference converter does.
type folderVocab struct {
	dir    string
	h      *hparams
	meta   *gguf.Meta
	json   *tokenizerJSON // nil if there is none
	config *tokenizerConfig
	size   int // entries written
}

// tokenizerJSON is the part of a tokenizer.json that GGUF can hold.
type tokenizerJSON struct {
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         struct {
		Type         string          `json:"type"`
		Vocab        json.RawMessage `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		ByteFallback *bool           `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
	} `json:"model"`
}

type addedToken struct {
	ID      int    `json:"id"`
	Content string `json:"content"`
	Special bool   `json:"special"`
}

// tokenizerConfig is a tokenizer_config.json.
type tokenizerConfig struct {
	v map[string]any
}

// text gives the token under key, which is a string or an object with content.
func (c *tokenizerConfig) text(key string) string {
	if c == nil {
		return ""
	}
	switch x := c.v[key].(type) {
	case string:
		return x
	case map[string]any:
		s, _ := x["content"].(string)
		return s
	}
	return ""
}

func (c *tokenizerConfig) flag(key string) (b, ok bool) {
	if c == nil {
		return false, false
	}
	b, ok = c.v[key].(bool)
	return b, ok
}

// readJSON decodes the file into v; ok is false if there is no such file.
func readJSON(path string, v any) (ok bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		off := int64(-1)
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			off = syntax.Offset
		}
		return true, &format.CorruptError{Path: path, Offset: off, Field: "JSON", Err: err}
	}
	return true, nil
}

// writeVocab adds the tokenizer.* keys of the folder. A folder without a tokenizer
// gives none: the model can be used, but not from text.
func writeVocab(dir string, h *hparams, meta *gguf.Meta) error {
	v := &folderVocab{dir: dir, h: h, meta: meta}
	var tj tokenizerJSON
	if ok, err := readJSON(v.path("tokenizer.json"), &tj); err != nil {
		return err
	} else if ok {
		v.json = &tj
	}
	var tc map[string]any
	if ok, err := readJSON(v.path("tokenizer_config.json"), &tc); err != nil {
		return err
	} else if ok {
		v.config = &tokenizerConfig{tc}
	}
	if h.table.Name == "llama" || h.table.Name == "smollm3" || h.table.Name == "granite" {
		if b, ok := v.config.flag("add_prefix_space"); ok {
			meta.Set(tok+"add_space_prefix", b)
		}
	}
	done := false
	for _, form := range h.table.vocab {
		var err error
		switch form {
		case sentencePiece, sentencePieceAdded:
			done, err = v.writeSentencePiece(form == sentencePieceAdded)
		case sentencePieceJSON:
			done, err = v.writeSentencePieceJSON()
		case byteLevel:
			done, err = v.writeByteLevel()
		}
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	if !done {
		if v.json != nil {
			return format.Unsupported("%s: a tokenizer of kind %q for %s", v.path("tokenizer.json"), v.json.Model.Type, h.table.Name)
		}
		meta.Delete(tok + "add_space_prefix")
		return nil
	}
	if n, _ := h.int("vocab_size"); n == 49152 && slices.Contains(h.table.vocab, sentencePieceJSON) && h.table.Rope == Norm {
		meta.Set(tok+"add_bos_token", false) // the SmolLM and Granite vocabularies
	}
	return nil
}

func (v *folderVocab) path(name string) string { return filepath.Join(v.dir, name) }

// vocabSize is how many entries the converter writes: vocab_size of the
// configuration, or n.
func (v *folderVocab) vocabSize(n int) (int, error) {
	size, ok := v.h.int("vocab_size")
	if !ok || size == 0 {
		return n, nil
	}
	if size < 0 || size > maxVocab {
		return 0, &format.CorruptError{Path: v.path("config.json"), Offset: -1, Field: "vocab_size", Err: fmt.Errorf("%d entries", size)}
	}
	return int(size), nil
}

// maxVocab bounds what a configuration can make graft allocate.
const maxVocab = 1 << 22

// writeByteLevel writes the vocabulary of a byte-level BPE from tokenizer.json.
func (v *folderVocab) writeByteLevel() (bool, error) {
	if v.json == nil || v.json.Model.Type != "BPE" {
		return false, nil
	}
	ids, highest, err := v.vocabulary()
	if err != nil {
		return false, err
	}
	size, err := v.vocabSize(len(ids))
	if err != nil {
		return false, err
	}
	if highest >= size {
		return false, &format.CorruptError{Path: v.path("tokenizer.json"), Offset: -1, Field: "vocab", Err: fmt.Errorf("id %d in a vocabulary of %d (vocab_size of config.json)", highest, size)}
	}
	pre := v.preName()
	if pre == "" {
		if pre, err = v.preTokenizer(); err != nil {
			return false, err
		}
	}
	tokens, types := padding(size)
	for t, id := range ids {
		tokens[id], types[id] = t, int32(tokenizer.Normal)
	}
	v.markAdded(tokens, types)
	v.meta.Set(tok+"model", "gpt2")
	v.meta.Set(tok+"pre", pre)
	v.meta.Set(tok+"tokens", tokens)
	v.meta.Set(tok+"token_type", types)
	v.size = size
	merges, err := v.merges(true)
	if err != nil {
		return false, err
	}
	if len(merges) > 0 {
		v.meta.Set(tok+"merges", merges)
	}
	return true, v.writeSpecial()
}

// padding returns a vocabulary of unused entries.
func padding(size int) ([]string, []int32) {
	tokens, types := make([]string, size), make([]int32, size)
	for i := range tokens {
		tokens[i], types[i] = "[PAD"+strconv.Itoa(i)+"]", int32(tokenizer.Unused)
	}
	return tokens, types
}

// vocabulary is the vocabulary of tokenizer.json with its added tokens, and the
// highest id.
func (v *folderVocab) vocabulary() (ids map[string]int, highest int, err error) {
	if err := json.Unmarshal(v.json.Model.Vocab, &ids); err != nil {
		return nil, 0, &format.CorruptError{Path: v.path("tokenizer.json"), Offset: -1, Field: "model.vocab", Err: err}
	}
	if ids == nil {
		ids = map[string]int{}
	}
	for _, a := range v.json.AddedTokens {
		ids[a.Content] = a.ID
	}
	for t, id := range ids {
		if id < 0 || id >= maxVocab {
			return nil, 0, &format.CorruptError{Path: v.path("tokenizer.json"), Offset: -1, Field: "model.vocab: " + strconv.Quote(t), Err: fmt.Errorf("id %d", id)}
		}
		highest = max(highest, id)
	}
	return ids, highest, nil
}

// markAdded gives added tokens their types: control tokens, or tokens of the user's.
func (v *folderVocab) markAdded(tokens []string, types []int32) {
	special := v.specialTexts()
	for _, a := range v.json.AddedTokens {
		if a.ID >= len(tokens) {
			continue
		}
		if a.Special || special[a.Content] || looksSpecial(a.Content) {
			types[a.ID] = int32(tokenizer.Control)
		} else {
			types[a.ID] = int32(tokenizer.UserDefined)
			tokens[a.ID] = strings.ReplaceAll(a.Content, "▁", " ")
		}
	}
}

// specialTexts are the tokens that tokenizer_config.json gives a role, which makes
// them special whatever tokenizer.json says.
func (v *folderVocab) specialTexts() map[string]bool {
	set := map[string]bool{}
	if v.config == nil {
		return set
	}
	for _, k := range []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"} {
		if s := v.config.text(k); s != "" {
			set[s] = true
		}
	}
	for _, k := range []string{"additional_special_tokens", "extra_special_tokens"} {
		list, _ := v.config.v[k].([]any)
		for _, x := range list {
			switch x := x.(type) {
			case string:
				set[x] = true
			case map[string]any:
				if s, ok := x["content"].(string); ok {
					set[s] = true
				}
			}
		}
	}
	decoder, _ := v.config.v["added_tokens_decoder"].(map[string]any)
	for _, x := range decoder {
		d, _ := x.(map[string]any)
		s, _ := d["content"].(string)
		if b, _ := d["special"].(bool); b && s != "" {
			set[s] = true
		}
	}
	return set
}

// looksSpecial knows tokens that some models forget to mark as special.
func looksSpecial(s string) bool {
	switch s {
	case "<pad>", "<mask>", "<2mass>", "[@BOS@]":
		return true
	}
	return strings.HasPrefix(s, "<|") && strings.HasSuffix(s, "|>") ||
		strings.HasPrefix(s, "<｜") && strings.HasSuffix(s, "｜>") ||
		strings.HasPrefix(s, "<unused") && strings.HasSuffix(s, ">")
}

// merges gives the merge rules as "left right". Inside a half a space stands in
// the byte-level alphabet if spaces is set.
func (v *folderVocab) merges(spaces bool) ([]string, error) {
	raw := v.json.Model.Merges
	if len(raw) == 0 {
		return v.mergesText()
	}
	var joined []string
	if json.Unmarshal(raw, &joined) == nil {
		return joined, nil
	}
	var pairs [][]string
	if err := json.Unmarshal(raw, &pairs); err != nil {
		return nil, &format.CorruptError{Path: v.path("tokenizer.json"), Offset: -1, Field: "model.merges", Err: err}
	}
	merges := make([]string, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return nil, &format.CorruptError{Path: v.path("tokenizer.json"), Offset: -1, Field: fmt.Sprintf("model.merges[%d]", i), Err: fmt.Errorf("%d parts", len(p))}
		}
		if spaces {
			p[0], p[1] = strings.ReplaceAll(p[0], " ", "Ġ"), strings.ReplaceAll(p[1], " ", "Ġ")
		}
		merges[i] = p[0] + " " + p[1]
	}
	return merges, nil
}

// mergesText reads merges.txt.
func (v *folderVocab) mergesText() ([]string, error) {
	b, err := os.ReadFile(v.path("merges.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var merges []string
	for i, line := range strings.Split(string(b), "\n") {
		if i == 0 && strings.HasPrefix(line, "#") {
			continue
		}
		if f := strings.Fields(line); len(f) == 2 {
			merges = append(merges, f[0]+" "+f[1])
		}
	}
	return merges, nil
}

var byteToken = regexp.MustCompile(`^<0x[0-9A-Fa-f]{2}>$`)

// writeSentencePieceJSON writes a SentencePiece BPE that stands only in a
// tokenizer.json. The file has no scores; the order of the merges gives them, as
// SentencePiece itself numbers them. (The reference converter writes -1000 for
// every token, with which llama.cpp cannot tell which merge comes first.)
func (v *folderVocab) writeSentencePieceJSON() (bool, error) {
	j := v.json
	if j == nil || j.Model.Type != "BPE" || j.Model.ByteFallback == nil || !*j.Model.ByteFallback {
		return false, nil
	}
	ids, highest, err := v.vocabulary()
	if err != nil {
		return false, err
	}
	size, err := v.vocabSize(highest + 1)
	if err != nil {
		return false, err
	}
	if highest >= size {
		return false, &format.CorruptError{Path: v.path("tokenizer.json"), Offset: -1, Field: "vocab", Err: fmt.Errorf("id %d in a vocabulary of %d (vocab_size of config.json)", highest, size)}
	}
	tokens, types := padding(size)
	scores := make([]float32, size)
	for i := range scores {
		scores[i] = -10000
	}
	merges, err := v.merges(false)
	if err != nil {
		return false, err
	}
	ranks := make(map[string]int, len(merges))
	for i, m := range merges {
		t := strings.Replace(m, " ", "", 1)
		if _, ok := ranks[t]; !ok {
			ranks[t] = i
		}
	}
	for t, id := range ids {
		tokens[id], types[id] = t, int32(tokenizer.Normal)
		rank, ok := ranks[t]
		switch {
		case byteToken.MatchString(t):
			types[id], scores[id] = int32(tokenizer.Byte), 0
		case ok:
			scores[id] = -float32(rank)
		default:
			scores[id] = -float32(len(merges)) // single characters, which no merge makes
		}
	}
	v.markAdded(tokens, types)
	for _, a := range j.AddedTokens {
		if a.ID < size {
			scores[a.ID] = -1000
		}
	}
	v.meta.Set(tok+"model", "llama")
	v.meta.Set(tok+"pre", "default")
	v.meta.Set(tok+"tokens", tokens)
	v.meta.Set(tok+"scores", scores)
	v.meta.Set(tok+"token_type", types)
	v.size = size
	if err := v.writeSpecial(); err != nil {
		return false, err
	}
	if !strings.Contains(string(j.Normalizer), `"Prepend"`) && !strings.Contains(string(j.PreTokenizer), `"Metaspace"`) && !v.meta.Has(tok+"add_space_prefix") {
		v.meta.Set(tok+"add_space_prefix", false)
	}
	return true, nil
}
