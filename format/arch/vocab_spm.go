package arch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// spmPiece is an entry of a SentencePiece model.
type spmPiece struct {
	text  string
	score float32
	typ   tokenizer.TokenType
}

// readPieces reads the pieces of a SentencePiece model: field 1 of the ModelProto
// message, each with piece (1), score (2) and type (3).
func readPieces(path string, b []byte) ([]spmPiece, error) {
	var pieces []spmPiece
	err := protoFields(b, func(field int, data []byte, _ uint64) error {
		if field != 1 || data == nil {
			return nil
		}
		p := spmPiece{typ: tokenizer.Normal}
		err := protoFields(data, func(field int, data []byte, n uint64) error {
			switch field {
			case 1:
				p.text = string(data)
			case 2:
				p.score = math.Float32frombits(uint32(n))
			case 3:
				p.typ = tokenizer.TokenType(n)
			}
			return nil
		})
		pieces = append(pieces, p)
		return err
	})
	if err != nil {
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: fmt.Sprintf("piece %d", len(pieces)), Err: err}
	}
	return pieces, nil
}

// protoFields calls f for each field of a protocol-buffer message: data for
// length-delimited ones (never nil then), n for numbers.
func protoFields(b []byte, f func(field int, data []byte, n uint64) error) error {
	short := errors.New("message ends inside a field")
	for len(b) > 0 {
		tag, w := binary.Uvarint(b)
		if w <= 0 {
			return short
		}
		b = b[w:]
		var data []byte
		var n uint64
		switch tag & 7 {
		case 0:
			if n, w = binary.Uvarint(b); w <= 0 {
				return short
			}
			b = b[w:]
		case 1:
			if len(b) < 8 {
				return short
			}
			n, b = binary.LittleEndian.Uint64(b), b[8:]
		case 2:
			size, w := binary.Uvarint(b)
			if w <= 0 || size > uint64(len(b)-w) {
				return short
			}
			data = b[w : w+int(size) : w+int(size)]
			b = b[w+int(size):]
		case 5:
			if len(b) < 4 {
				return short
			}
			n, b = uint64(binary.LittleEndian.Uint32(b)), b[4:]
		default:
			return fmt.Errorf("wire type %d", tag&7)
		}
		if err := f(int(tag>>3), data, n); err != nil {
			return err
		}
	}
	return nil
}

// writeSentencePiece writes the vocabulary of tokenizer.model. Added tokens come
// from added_tokens.json and tokenizer_config.json, and from tokenizer.json if
// jsonToo is set.
func (v *folderVocab) writeSentencePiece(jsonToo bool) (bool, error) {
	path := v.path("tokenizer.model")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	pieces, err := readPieces(path, b)
	if err != nil {
		return false, err
	}
	size, err := v.vocabSize(len(pieces))
	if err != nil {
		return false, err
	}
	tokens, types := padding(size)
	scores := make([]float32, size)
	for i := range scores {
		scores[i] = -10000
	}
	for i, p := range pieces[:min(len(pieces), size)] {
		tokens[i], scores[i], types[i] = p.text, p.score, int32(p.typ)
		if p.typ == tokenizer.UserDefined {
			types[i] = int32(tokenizer.Normal)
		}
	}
	add := func(id int, text string, typ tokenizer.TokenType) {
		if id >= 0 && id < size {
			tokens[id], scores[id], types[id] = text, -1000, int32(typ)
		}
	}
	var added map[string]int
	if _, err := readJSON(v.path("added_tokens.json"), &added); err != nil {
		return false, err
	}
	for text, id := range added {
		add(id, text, tokenizer.UserDefined)
	}
	for _, a := range v.configAdded() {
		switch {
		case a.Special || !jsonToo && looksSpecial(a.Content):
			add(a.ID, a.Content, tokenizer.Control)
		case jsonToo:
			add(a.ID, a.Content, tokenizer.UserDefined)
		default:
			add(a.ID, strings.ReplaceAll(a.Content, "▁", " "), tokenizer.UserDefined)
		}
	}
	if jsonToo && v.json != nil {
		for _, a := range v.json.AddedTokens {
			if a.Special {
				add(a.ID, a.Content, tokenizer.Control)
			} else {
				add(a.ID, a.Content, tokenizer.UserDefined)
			}
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
	if v.h.table.modelType == "gemma2" || v.h.table.modelType == "gemma3_text" {
		v.meta.Set(tok+"add_space_prefix", false)
	}
	return true, nil
}

// configAdded are the added tokens of tokenizer_config.json, by id.
func (v *folderVocab) configAdded() []addedToken {
	if v.config == nil {
		return nil
	}
	decoder, _ := v.config.v["added_tokens_decoder"].(map[string]any)
	var list []addedToken
	for k, x := range decoder {
		id, err := strconv.Atoi(k)
		d, _ := x.(map[string]any)
		if err != nil || d == nil {
			continue
		}
		a := addedToken{ID: id}
		a.Content, _ = d["content"].(string)
		a.Special, _ = d["special"].(bool)
		list = append(list, a)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list
}
