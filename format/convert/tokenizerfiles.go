package convert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// tokenizerFiles rebuilds the tokenizer of a GGUF file: tokenizer.json, which gives
// the ids that the file gives, tokenizer_config.json, and for SentencePiece
// vocabularies tokenizer.model, from which scores and types come back. A model
// without a tokenizer has no files.
func tokenizerFiles(m *arch.Model) ([]File, error) {
	if !m.Meta.Has("tokenizer.ggml.model") {
		return nil, nil
	}
	spec, err := tokenizer.SpecFromGGUF(m.Meta)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	tk, err := tokenizer.New(spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	r := &rebuilder{m: m, spec: &spec, tk: tk}
	r.mark()
	var doc []byte
	switch spec.Model {
	case "gpt2":
		doc, err = r.byteLevelJSON()
	case "llama":
		doc, err = r.sentencePieceJSON()
	default:
		err = format.Unsupported("%s: writing a tokenizer.json for a tokenizer of kind %q", m.Path, spec.Model)
	}
	if err != nil {
		return nil, err
	}
	config, err := r.config()
	if err != nil {
		return nil, err
	}
	files := []File{{checkpoint.TokenizerName, doc}, {checkpoint.TokenizerConfigName, config}}
	if spec.Model == "llama" {
		files = append(files, File{checkpoint.TokenizerModelName, r.sentencePieceModel()})
	}
	return files, nil
}

// rebuilder turns a vocabulary of GGUF into files.
type rebuilder struct {
	m    *arch.Model
	spec *tokenizer.Spec
	tk   *tokenizer.Tokenizer

	skip  []bool // entries that only pad the vocabulary
	added []int  // ids of added tokens
}

// mark tells padding and added tokens from the vocabulary proper.
func (r *rebuilder) mark() {
	r.skip = make([]bool, len(r.spec.Tokens))
	for i, t := range r.spec.Tokens {
		switch r.spec.Type(int32(i)) {
		case tokenizer.Unused:
			r.skip[i] = t == "[PAD"+strconv.Itoa(i)+"]"
		case tokenizer.Control, tokenizer.UserDefined, tokenizer.Unknown:
			r.added = append(r.added, i)
		}
	}
}

// addedJSON is an added token in tokenizer.json and, without its id, in
// tokenizer_config.json.
type addedJSON struct {
	ID         *int   `json:"id,omitempty"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

func (r *rebuilder) addedToken(i int) addedJSON {
	return addedJSON{Content: r.spec.Tokens[i], Special: r.spec.Type(int32(i)) != tokenizer.UserDefined}
}

type object = map[string]any

// vocabJSON writes the vocabulary as an object in the order of the ids. Of equal
// tokens the first counts.
func (r *rebuilder) vocabJSON() (json.RawMessage, error) {
	var b bytes.Buffer
	seen := make(map[string]bool, len(r.spec.Tokens))
	b.WriteByte('{')
	for i, t := range r.spec.Tokens {
		if r.skip[i] || seen[t] {
			continue
		}
		seen[t] = true
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		if err := writeString(&b, t); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(i))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func writeString(b *bytes.Buffer, s string) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
	return nil
}

// document puts a tokenizer.json together.
func (r *rebuilder) document(model object, normalizer, pre, post, decoder any) ([]byte, error) {
	vocab, err := r.vocabJSON()
	if err != nil {
		return nil, err
	}
	model["vocab"] = vocab
	added := make([]addedJSON, 0, len(r.added))
	for _, i := range r.added {
		a := r.addedToken(i)
		a.ID = &i
		added = append(added, a)
	}
	return encodeJSON(object{"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added,
		"normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model})
}

// template is the post-processor that adds what the tokenizer adds, or none if it
// adds nothing.
func (r *rebuilder) template(none any) any {
	type item = object
	sequence := func(id string, typ int) item { return item{"Sequence": object{"id": id, "type_id": typ}} }
	special := func(id int32, typ int) item {
		return item{"SpecialToken": object{"id": r.tk.Token(id), "type_id": typ}}
	}
	var single, pair []item
	tokens := object{}
	mention := func(id int32) {
		tokens[r.tk.Token(id)] = object{"id": r.tk.Token(id), "ids": []int32{id}, "tokens": []string{r.tk.Token(id)}}
	}
	for typ, name := range []string{"A", "B"} {
		var one []item
		// Without this, a converter would take the token between two texts for a
		// separator, and state add_sep_token.
		between := typ == 1 && r.spec.AddSEP == nil
		if r.tk.AddsBOS() && r.tk.BOS() >= 0 && !between {
			one = append(one, special(r.tk.BOS(), typ))
			mention(r.tk.BOS())
		}
		one = append(one, sequence(name, typ))
		if r.tk.AddsEOS() && r.tk.EOS() >= 0 {
			one = append(one, special(r.tk.EOS(), typ))
			mention(r.tk.EOS())
		}
		if typ == 0 {
			single = one
		}
		pair = append(pair, one...)
	}
	if len(single) == 1 {
		return none
	}
	return object{"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}
}

// byteLevelJSON makes the tokenizer.json of a byte-level BPE.
func (r *rebuilder) byteLevelJSON() ([]byte, error) {
	pre, ok := preTokenizers[r.spec.Pre]
	if !ok {
		return nil, format.Unsupported("%s: writing a tokenizer.json with the pre-tokenizer %q", r.m.Path, r.spec.Pre)
	}
	model := object{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": "", "end_of_word_suffix": "",
		"fuse_unk": false, "byte_fallback": false, "ignore_merges": pre.ignoreMerges, "merges": r.spec.Merges}
	var normalizer any
	if pre.nfc {
		normalizer = object{"type": "NFC"}
	}
	return r.document(model, normalizer, pre.json(), r.template(byteLevelStep(true, false)), byteLevelStep(true, true))
}

func byteLevelStep(regex, trim bool) object {
	return object{"type": "ByteLevel", "add_prefix_space": trim, "trim_offsets": trim, "use_regex": regex}
}

// sentencePieceJSON makes the tokenizer.json of a SentencePiece BPE: spaces as ▁,
// bytes for what has no piece, merges in the order of the scores.
func (r *rebuilder) sentencePieceJSON() ([]byte, error) {
	prefix := r.spec.AddSpacePrefix == nil || *r.spec.AddSpacePrefix
	model := object{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
		"fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "merges": r.scoreMerges()}
	if id := slices.Index(r.spec.Types, tokenizer.Unknown); id >= 0 {
		model["unk_token"] = r.spec.Tokens[id]
	} else if id := r.tk.UNK(); id >= 0 && int(id) < len(r.spec.Tokens) {
		model["unk_token"] = r.spec.Tokens[id]
	}
	replace := func(from, to string) object {
		return object{"type": "Replace", "pattern": object{"String": from}, "content": to}
	}
	normalizer := replace(" ", "▁")
	steps := []object{replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}}
	if prefix {
		normalizer = object{"type": "Sequence", "normalizers": []object{{"type": "Prepend", "prepend": "▁"}, normalizer}}
		steps = append(steps, object{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	return r.document(model, normalizer, nil, r.template(nil), object{"type": "Sequence", "decoders": steps})
}

// scoreMerges lists the merges that make a vocabulary with scores: every way to
// split a piece into two others, the best score first; among equal scores longer
// left halves first, as the converters of slow tokenizers do it.
func (r *rebuilder) scoreMerges() []string {
	ids := make(map[string]int, len(r.spec.Tokens))
	for i, t := range r.spec.Tokens {
		if _, ok := ids[t]; !ok && !r.skip[i] {
			ids[t] = i
		}
	}
	type merge struct {
		left, right int32 // lengths in characters
		score       float32
		text        string
	}
	var merges []merge
	for i, t := range r.spec.Tokens {
		if typ := r.spec.Type(int32(i)); ids[t] != i || r.skip[i] || typ == tokenizer.Byte || strings.ContainsRune(t, ' ') {
			continue
		}
		from := len(merges)
		n := int32(len([]rune(t)))
		at := int32(0)
		for cut := range t {
			if cut > 0 {
				_, left := ids[t[:cut]]
				_, right := ids[t[cut:]]
				if left && right {
					merges = append(merges, merge{at, n - at, r.spec.Score(int32(i)), t[:cut] + " " + t[cut:]})
				}
			}
			at++
		}
		slices.SortStableFunc(merges[from:], func(a, b merge) int {
			al, ar, _ := strings.Cut(a.text, " ")
			bl, br, _ := strings.Cut(b.text, " ")
			if d := ids[al] - ids[bl]; d != 0 {
				return d
			}
			return ids[ar] - ids[br]
		})
	}
	slices.SortStableFunc(merges, func(a, b merge) int {
		switch {
		case a.score != b.score:
			if a.score > b.score {
				return -1
			}
			return 1
		case a.left != b.left:
			return int(b.left - a.left)
		}
		return int(b.right - a.right)
	})
	out := make([]string, len(merges))
	for i, m := range merges {
		out[i] = m.text
	}
	return out
}

// config makes tokenizer_config.json.
func (r *rebuilder) config() ([]byte, error) {
	v := object{"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false}
	if n, ok := r.m.Meta.Int(r.m.Arch + ".context_length"); ok {
		v["model_max_length"] = n
	}
	for name, id := range map[string]int32{"bos": r.spec.BOS, "eos": r.spec.EOS, "unk": r.spec.UNK, "sep": r.spec.SEP, "pad": r.spec.PAD, "mask": r.spec.MASK} {
		if id >= 0 && int(id) < len(r.spec.Tokens) {
			v[name+"_token"] = r.spec.Tokens[id]
		}
	}
	for name, flag := range map[string]*bool{"add_bos_token": r.spec.AddBOS, "add_eos_token": r.spec.AddEOS, "add_sep_token": r.spec.AddSEP} {
		if flag != nil {
			v[name] = *flag
		}
	}
	if f := r.spec.AddSpacePrefix; f != nil && r.m.Table.Rope == arch.Norm {
		v["add_prefix_space"] = *f
	}
	decoder := map[string]addedJSON{}
	for _, i := range r.added {
		// A reader of tokenizer.model gives what stands here a score of -1000.
		if r.spec.Model != "llama" || r.spec.Score(int32(i)) == -1000 {
			decoder[strconv.Itoa(i)] = r.addedToken(i)
		}
	}
	if len(decoder) > 0 {
		v["added_tokens_decoder"] = decoder
	}
	switch {
	case len(r.spec.ChatTemplates) > 0:
		list := []object{}
		if r.spec.ChatTemplate != "" {
			list = append(list, object{"name": "default", "template": r.spec.ChatTemplate})
		}
		var names []string
		for n := range r.spec.ChatTemplates {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			list = append(list, object{"name": n, "template": r.spec.ChatTemplates[n]})
		}
		v["chat_template"] = list
	case r.spec.ChatTemplate != "":
		v["chat_template"] = r.spec.ChatTemplate
	}
	return encodeJSON(v)
}
