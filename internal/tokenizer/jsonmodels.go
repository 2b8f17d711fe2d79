package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

func (p *pipeline) readModel(j *JSON) error {
	m := &j.Model
	switch m.Type {
	case "BPE":
		b, err := newJSONBPE(m, len(p.t.spec.Tokens))
		p.model = b
		return err
	case "WordPiece":
		unk, ok := m.Tokens[m.UnkToken]
		if !ok {
			return fmt.Errorf("tokenizer: the unknown token %q is not in the vocabulary", m.UnkToken)
		}
		p.model = &jsonWordPiece{m: m, unk: unk, max: max(m.MaxWordChars, 1)}
		return nil
	case "Unigram":
		if len(m.Scores) == 0 || int(m.UnkID) >= len(m.Scores) {
			return fmt.Errorf("tokenizer: unk_id %d in a vocabulary of %d scores", m.UnkID, len(m.Scores))
		}
		p.model = newJSONUnigram(m)
		return nil
	}
	return fmt.Errorf("tokenizer: model %q: %w", m.Type, ErrUnsupported)
}

// jsonBPE is the BPE model of a tokenizer.json.
type jsonBPE struct {
	m     *JSONModel
	merge *merger
	unk   int32      // -1 if there is none
	bytes [256]int32 // byte tokens <0x00> …; -1 where there is none
	level [256]int32 // tokens of the byte-level alphabet
	whole map[string]int32
	parts *segmenter // nil: a word is encoded in one piece
}

func newJSONBPE(m *JSONModel, size int) (*jsonBPE, error) {
	b := &jsonBPE{m: m, unk: -1}
	if m.UnkToken != "" {
		id, ok := m.Tokens[m.UnkToken]
		if !ok {
			return nil, fmt.Errorf("tokenizer: the unknown token %q is not in the vocabulary", m.UnkToken)
		}
		b.unk = id
	}
	b.merge = &merger{n: int32(size), symbols: m.Tokens, pairs: make(map[uint64]merge, len(m.Merges))}
	for rank, pair := range m.Merges {
		l, ok1 := m.Tokens[pair[0]]
		r, ok2 := m.Tokens[pair[1]]
		to, ok3 := m.Tokens[pair[0]+strings.TrimPrefix(pair[1], m.SubwordStart)]
		if !ok1 || !ok2 || !ok3 {
			return nil, fmt.Errorf("tokenizer: merge %d, %q, is not in the vocabulary", rank, pair)
		}
		b.merge.pairs[pairKey(l, r)] = merge{int32(rank), to}
	}
	at := func(s string) int32 {
		if id, ok := m.Tokens[s]; ok {
			return id
		}
		return -1
	}
	for i := range 256 {
		b.bytes[i] = at(byteTokenName(byte(i)))
		b.level[i] = at(string(byteRunes[i]))
	}
	if _, ok := m.Tokens[mark]; ok && b.plain() && !m.IgnoreMerges {
		b.parts = newSegmenter(m.Tokens)
	}
	if m.IgnoreMerges {
		b.whole = wholeWords(m.Tokens)
	}
	return b, nil
}

func (b *jsonBPE) word(out *sink, w *work, c chunk) {
	merge, next := b.mergeChars, func(string, int) int { return len(c.s) }
	if c.raw {
		merge = b.mergeBytes
	} else if b.parts != nil {
		next = b.parts.next
	}
	for i := 0; i < len(c.s); {
		end := next(c.s, i)
		for _, p := range w.cached(c.s[i:end], merge) {
			out.add(p.id, c.at(i+int(p.start)), c.at(i+int(p.end)))
		}
		i = end
	}
}

// mergeBytes encodes a word whose bytes stand for the byte-level alphabet.
func (b *jsonBPE) mergeBytes(w *work, s string) []piece {
	if b.m.IgnoreMerges {
		if id, ok := b.whole[s]; ok {
			return []piece{{id, 0, int32(len(s))}}
		}
	}
	w.syms = w.syms[:0]
	for i := range len(s) {
		if b.plain() {
			b.symbol(w, b.level[s[i]], nil, i, i+1)
		} else {
			b.char(w, string(byteRunes[s[i]]), i, i+1, len(s))
		}
	}
	return b.merged(w)
}

// mergeChars encodes a word of characters.
func (b *jsonBPE) mergeChars(w *work, s string) []piece {
	if b.m.IgnoreMerges {
		if id, ok := b.m.Tokens[s]; ok {
			return []piece{{id, 0, int32(len(s))}}
		}
	}
	w.syms = w.syms[:0]
	for i := 0; i < len(s); {
		_, n := utf8.DecodeRuneInString(s[i:])
		b.char(w, s[i:i+n], i, i+n, len(s))
		i += n
	}
	return b.merged(w)
}

// plain: characters stand in the vocabulary as they are, wherever in a word.
func (b *jsonBPE) plain() bool { return b.m.SubwordStart == "" && b.m.WordEnd == "" }

// char appends the symbol of a character of a word of the given length.
func (b *jsonBPE) char(w *work, s string, i, j, length int) {
	if i > 0 {
		s = b.m.SubwordStart + s
	}
	if j == length {
		s += b.m.WordEnd
	}
	id, ok := b.m.Tokens[s]
	if !ok {
		id = -1
	}
	b.symbol(w, id, []byte(s), i, j)
}

func (b *jsonBPE) merged(w *work) []piece {
	b.merge.run(w)
	var pieces []piece
	if len(w.syms) > 0 {
		for i := int32(0); i >= 0; i = w.syms[i].next {
			pieces = append(pieces, piece{w.syms[i].id, w.syms[i].start, w.syms[i].end})
		}
	}
	return pieces
}

// symbol appends what a character is before merging: its token, else its bytes,
// else the unknown token, which can take in the one before it, else nothing.
func (b *jsonBPE) symbol(w *work, id int32, spelled []byte, i, j int) {
	if id >= 0 {
		w.syms = append(w.syms, symbol{id: id, start: int32(i), end: int32(j)})
		return
	}
	if b.m.ByteFallback && len(spelled) > 0 {
		all := true
		for _, c := range spelled {
			all = all && b.bytes[c] >= 0
		}
		if all {
			for k, c := range spelled {
				w.syms = append(w.syms, symbol{id: b.bytes[c], start: int32(min(i+k, j)), end: int32(min(i+k+1, j))})
			}
			return
		}
	}
	if b.unk < 0 {
		return
	}
	if n := len(w.syms); b.m.FuseUnk && n > 0 && w.syms[n-1].id == b.unk && int(w.syms[n-1].end) == i {
		w.syms[n-1].end = int32(j)
		return
	}
	w.syms = append(w.syms, symbol{id: b.unk, start: int32(i), end: int32(j)})
}

// jsonWordPiece is the WordPiece model of a tokenizer.json.
type jsonWordPiece struct {
	m   *JSONModel
	unk int32
	max int
}

func (p *jsonWordPiece) word(out *sink, _ *work, c chunk) {
	if c.s == "" {
		return
	}
	n := len(out.ids)
	spans := len(out.spans)
	ok := utf8.RuneCountInString(c.s) <= p.max
	for i := 0; ok && i < len(c.s); {
		j := len(c.s)
		for ; j > i; j-- {
			s := c.s[i:j]
			if i > 0 {
				s = p.m.SubwordStart + s
			}
			if id, found := p.m.Tokens[s]; found {
				out.add(id, c.at(i), c.at(j))
				break
			}
		}
		ok = j > i
		i = j
	}
	if !ok {
		out.ids, out.spans = out.ids[:n], out.spans[:spans]
		out.add(p.unk, c.at(0), c.at(len(c.s)))
	}
}

// jsonUnigram is the Unigram model of a tokenizer.json.
type jsonUnigram struct {
	m       *JSONModel
	viterbi viterbi
	bytes   [256]int32
	byBytes bool
}

func newJSONUnigram(m *JSONModel) *jsonUnigram {
	u := &jsonUnigram{m: m, byBytes: m.ByteFallback}
	u.viterbi.scores, u.viterbi.unk = m.Scores, m.UnkID
	low := 0.0
	for tok, id := range m.Tokens {
		u.viterbi.trie.insert(tok, id)
		low = min(low, m.Scores[id])
	}
	u.viterbi.unkScore = low - 10
	for i := range u.bytes {
		id, ok := m.Tokens[byteTokenName(byte(i))]
		u.bytes[i] = id
		u.byBytes = u.byBytes && ok
	}
	return u
}

func (u *jsonUnigram) word(out *sink, _ *work, c chunk) {
	for _, p := range u.viterbi.run([]byte(c.s)) {
		switch {
		case p.id == u.viterbi.unk && u.byBytes:
			for i := p.start; i < p.end; i++ {
				out.add(u.bytes[c.s[i]], c.at(int(i)), c.at(int(i+1)))
			}
		case p.id >= 0:
			out.add(p.id, c.at(int(p.start)), c.at(int(p.end)))
		}
	}
}
