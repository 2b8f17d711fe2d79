package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
)

// TokenizerFiles are the files of m's tokenizer, with the tokens that were added to it: those
// of its folder, or for a model from GGUF new ones. Where these cannot be made of what a GGUF
// file says, there is added_tokens.json alone.
func TokenizerFiles(m *arch.Model) ([]File, error) {
	if st, err := os.Stat(m.Path); err != nil || !st.IsDir() {
		files, err := tokenizerFiles(m)
		var unsupported *format.UnsupportedError
		if errors.As(err, &unsupported) {
			files, err = nil, nil
		}
		if err != nil {
			return nil, err
		}
		list, err := addedList(nil, m.Added)
		return append(files, File{checkpoint.AddedTokensName, list}), err
	}
	var files []File
	for _, name := range checkpoint.TokenizerFiles {
		b, err := os.ReadFile(filepath.Join(m.Path, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, File{name, b})
	}
	return withAdded(m.Path, files, m.Added)
}

// withAdded adds tokens to the files of a tokenizer: to tokenizer.json, to what
// tokenizer_config.json lists, and to added_tokens.json, which is made if there is none and
// nothing else says it: to readers of tokenizer.model tokenizer.json says nothing.
func withAdded(dir string, files []File, added []arch.AddedToken) ([]File, error) {
	if len(added) == 0 {
		return files, nil
	}
	edits := map[string]func([]byte, []arch.AddedToken) ([]byte, error){
		checkpoint.TokenizerName: addToJSON, checkpoint.TokenizerConfigName: addToConfig, checkpoint.AddedTokensName: addedList,
	}
	out := slices.Clone(files)
	inJSON, beside, model := false, false, false
	for i, f := range out {
		edit := edits[f.Name]
		model = model || f.Name == checkpoint.TokenizerModelName
		if edit == nil {
			continue
		}
		b, err := edit(f.Data, added)
		if err != nil {
			return nil, &format.CorruptError{Path: filepath.Join(dir, f.Name), Offset: -1, Field: "JSON", Err: err}
		}
		if out[i].Data = b; f.Name == checkpoint.TokenizerName {
			inJSON = true
		} else {
			beside = beside || !bytes.Equal(b, f.Data)
		}
	}
	if !beside && (model || !inJSON) {
		b, err := addedList(nil, added)
		if err != nil {
			return nil, err
		}
		out = append(out, File{checkpoint.AddedTokensName, b})
	}
	return out, nil
}

// jsonOf is a token as tokenizer.json and tokenizer_config.json have it: found as it is written, before
// anything else is done to a text.
func jsonOf(a arch.AddedToken) addedJSON { return addedJSON{Content: a.Token, Special: a.Special} }

// addToJSON adds to the added tokens of a tokenizer.json, of which all else stays as it is.
func addToJSON(b []byte, added []arch.AddedToken) ([]byte, error) {
	return edited(b, "added_tokens", func(old json.RawMessage) (any, error) {
		var list []json.RawMessage
		if len(old) > 0 {
			if err := json.Unmarshal(old, &list); err != nil {
				return nil, err
			}
		}
		for _, a := range added {
			t := jsonOf(a)
			t.ID = &a.ID
			b, err := encodeLine(t)
			if err != nil {
				return nil, err
			}
			list = append(list, b)
		}
		return list, nil
	})
}

// addToConfig adds to added_tokens_decoder of a tokenizer_config.json, if it has it.
func addToConfig(b []byte, added []arch.AddedToken) ([]byte, error) {
	var has map[string]json.RawMessage
	if err := json.Unmarshal(b, &has); err != nil {
		return nil, err
	}
	if has["added_tokens_decoder"] == nil {
		return b, nil
	}
	return edited(b, "added_tokens_decoder", func(old json.RawMessage) (any, error) {
		list := map[string]json.RawMessage{}
		if err := json.Unmarshal(old, &list); err != nil {
			return nil, err
		}
		for _, a := range added {
			b, err := encodeLine(jsonOf(a))
			if err != nil {
				return nil, err
			}
			list[strconv.Itoa(a.ID)] = b
		}
		return list, nil
	})
}

// addedList is added_tokens.json: ids by token.
func addedList(b []byte, added []arch.AddedToken) ([]byte, error) {
	list := map[string]int{}
	if b != nil {
		if err := json.Unmarshal(b, &list); err != nil {
			return nil, err
		}
	}
	for _, a := range added {
		list[a.Token] = a.ID
	}
	return encodeJSON(list)
}

// encodeLine is JSON without escapes that a person would not write.
func encodeLine(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// edited replaces the value under a key of an object, which keeps the order of its keys and all
// its other bytes; a key that is not there is added at the end.
func edited(b []byte, key string, edit func(old json.RawMessage) (any, error)) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("it is no object")
	}
	put := func(from, to int64, old json.RawMessage, before string) ([]byte, error) {
		v, err := edit(old)
		if err != nil {
			return nil, err
		}
		text, err := encodeLine(v)
		if err != nil {
			return nil, err
		}
		return slices.Concat(b[:from], []byte(before), text, b[to:]), nil
	}
	last := dec.InputOffset()
	first := true
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		last, first = dec.InputOffset(), false
		if k == key {
			return put(last-int64(len(v)), last, v, "")
		}
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('}') {
		return nil, fmt.Errorf("it ends inside an object")
	}
	comma := ", "
	if first {
		comma = ""
	}
	return put(last, last, nil, comma+strconv.Quote(key)+": ")
}

// resize changes the size of the vocabulary that a configuration states.
func resize(path string, config []byte, m *arch.Model) ([]byte, error) {
	n := m.View(arch.EmbeddingName).Shape[0]
	b, err := edited(config, "vocab_size", func(json.RawMessage) (any, error) { return n, nil })
	if err != nil {
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "JSON", Err: err}
	}
	return b, nil
}
