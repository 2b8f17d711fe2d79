package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
)

// decoder turns the tokens of a tokenizer.json into text, step by step on a list of
// strings. Bytes stay bytes: what is no character is not replaced by U+FFFD.
type decoder func([]string) []string

func parseDecoder(raw json.RawMessage) (decoder, error) {
	if isNull(raw) {
		return func(t []string) []string { return []string{strings.Join(t, " ")} }, nil
	}
	var d struct {
		Type          string
		Decoders      []json.RawMessage
		Pattern       pattern
		Content       string
		Start, Stop   int
		Prefix        string
		Suffix        string
		Cleanup       bool
		Replacement   string
		PrependScheme *string `json:"prepend_scheme"`
		AddPrefix     *bool   `json:"add_prefix_space"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("tokenizer: decoder: %w", err)
	}
	each := func(f func(i int, s string) string) decoder {
		return func(t []string) []string {
			for i, s := range t {
				t[i] = f(i, s)
			}
			return t
		}
	}
	switch d.Type {
	case "Sequence":
		var list []decoder
		for _, r := range d.Decoders {
			f, err := parseDecoder(r)
			if err != nil {
				return nil, err
			}
			list = append(list, f)
		}
		return func(t []string) []string {
			for _, f := range list {
				t = f(t)
			}
			return t
		}, nil
	case "ByteLevel":
		return each(func(_ int, s string) string {
			if b, ok := byteLevelDecode(s); ok {
				return b
			}
			return s
		}), nil
	case "Replace":
		find, err := d.Pattern.compile()
		if err != nil {
			return nil, err
		}
		return each(func(_ int, s string) string { return replace(chunk{s: s}, find(s), d.Content).s }), nil
	case "ByteFallback":
		return each(func(_ int, s string) string {
			if b, ok := byteToken(s); ok {
				return string([]byte{b})
			}
			return s
		}), nil
	case "Fuse":
		return func(t []string) []string { return []string{strings.Join(t, "")} }, nil
	case "Strip":
		return each(func(_ int, s string) string {
			for i := 0; i < d.Start && strings.HasPrefix(s, d.Content); i++ {
				s = s[len(d.Content):]
			}
			for i := 0; i < d.Stop && strings.HasSuffix(s, d.Content); i++ {
				s = s[:len(s)-len(d.Content)]
			}
			return s
		}), nil
	case "Metaspace":
		mark := d.Replacement
		if mark == "" {
			mark = "▁"
		}
		never := d.PrependScheme != nil && *d.PrependScheme == "never" || d.PrependScheme == nil && d.AddPrefix != nil && !*d.AddPrefix
		return each(func(i int, s string) string {
			if i == 0 && !never {
				s = strings.TrimPrefix(s, mark)
			}
			return strings.ReplaceAll(s, mark, " ")
		}), nil
	case "WordPiece":
		return each(func(i int, s string) string {
			if i > 0 {
				if strings.HasPrefix(s, d.Prefix) {
					s = s[len(d.Prefix):]
				} else {
					s = " " + s
				}
			}
			if d.Cleanup {
				s = wordPieceCleanup.Replace(s)
			}
			return s
		}), nil
	case "BPEDecoder":
		return func(t []string) []string {
			for i, s := range t {
				by := " "
				if i == len(t)-1 {
					by = ""
				}
				t[i] = strings.ReplaceAll(s, d.Suffix, by)
			}
			return t
		}, nil
	}
	return nil, fmt.Errorf("tokenizer: decoder %q: %w", d.Type, ErrUnsupported)
}

var wordPieceCleanup = strings.NewReplacer(" .", ".", " ?", "?", " !", "!", " ,", ",", " ' ", "'", " n't", "n't",
	" 'm", "'m", " do not", " don't", " 's", "'s", " 've", "'ve", " 're", "'re")
