package tokenizer

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// wordPiece takes the longest token that fits from the left of each word, as
// llama.cpp runs BERT vocabularies, whose words begin with ▁ in a GGUF.
type wordPiece struct {
	t         *Tokenizer
	lower     bool
	accents   bool // accents are stripped
	longest   int  // bytes of the longest token
	wordStart string
}

func newWordPiece(t *Tokenizer) *wordPiece {
	w := &wordPiece{t: t, lower: true, wordStart: "▁"}
	if t.spec.Lowercase != nil {
		w.lower = *t.spec.Lowercase
	}
	w.accents = w.lower
	if t.spec.StripAccents != nil {
		w.accents = *t.spec.StripAccents
	}
	for _, tok := range t.tokens {
		w.longest = max(w.longest, len(tok))
	}
	return w
}

func (w *wordPiece) encode(out *sink, text string, _ bool) {
	var word []byte
	var from []int32
	end := 0
	flush := func() {
		if len(word) > 0 {
			w.word(out, w.wordStart+string(word), append(from, int32(end)))
		}
		word, from = word[:0], from[:0]
	}
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		cls := classes()[r]
		if cls.space() {
			flush()
			continue
		}
		if r == 0 || r == utf8.RuneError || unicode.Is(unicode.C, r) {
			continue
		}
		if w.accents {
			if cls.mark() {
				continue
			}
			if d := norm.NFD.PropertiesString(text[i : i+size]).Decomposition(); d != nil {
				r, _ = utf8.DecodeRune(d)
			}
		}
		if w.lower {
			r = unicode.ToLower(r)
		}
		alone := cls == clsPunct || r < 0x7f && cls == clsSymbol || chinese(r)
		if alone {
			flush()
		}
		k := len(word)
		word = utf8.AppendRune(word, r)
		for range len(word) - k {
			from = append(from, int32(i))
		}
		end = i + size
		if alone {
			flush()
		}
	}
	flush()
}

// word appends the tokens of one word, or UNK for the whole of it.
func (w *wordPiece) word(out *sink, word string, from []int32) {
	at := func(i int) int { return int(from[max(i-len(w.wordStart), 0)]) }
	var found []piece
	for i := 0; i < len(word); {
		j := min(len(word), i+w.longest+1)
		for ; j > i; j-- {
			if id, ok := w.t.ids[word[i:j]]; ok {
				found = append(found, piece{id, int32(i), int32(j)})
				break
			}
		}
		if j == i {
			out.add(w.t.unk, at(0), at(len(word)))
			return
		}
		i = j
	}
	for _, p := range found {
		out.add(p.id, at(int(p.start)), at(int(p.end)))
	}
}

// chinese are the ideographs that are words of their own. The fifth block begins
// where the reference implementations have it, not where Unicode does.
func chinese(r rune) bool {
	return r >= 0x4e00 && r <= 0x9fff || r >= 0x3400 && r <= 0x4dbf || r >= 0x20000 && r <= 0x2a6df ||
		r >= 0x2a700 && r <= 0x2b73f || r >= 0x2b740 && r <= 0x2b81f || r >= 0x2b920 && r <= 0x2ceaf ||
		r >= 0xf900 && r <= 0xfaff || r >= 0x2f800 && r <= 0x2fa1f
}
