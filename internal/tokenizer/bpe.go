package tokenizer

import (
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// merger applies the merges of a BPE model. Symbols are numbers: those below the
// size of the vocabulary are token ids, those above are strings that merges pass
// through without being tokens.
type merger struct {
	n       int32 // size of the vocabulary
	symbols map[string]int32
	extra   []string // the strings of symbols n, n+1, …
	pairs   map[uint64]merge
}

type merge struct{ rank, to int32 }

func newMerger(ids map[string]int32, size int) *merger {
	return &merger{n: int32(size), symbols: ids, pairs: map[uint64]merge{}}
}

// intern gives the symbol of s, a new one if s is no token.
func (m *merger) intern(s string) int32 {
	if id, ok := m.symbols[s]; ok {
		return id
	}
	id := m.n + int32(len(m.extra))
	m.extra = append(m.extra, s)
	m.symbols[s] = id
	return id
}

// add makes left right the merge of the given rank; of equal pairs the first counts.
func (m *merger) add(left, right string, rank int) {
	key := pairKey(m.intern(left), m.intern(right))
	if _, ok := m.pairs[key]; !ok {
		m.pairs[key] = merge{int32(rank), m.intern(left + right)}
	}
}

func pairKey(l, r int32) uint64 { return uint64(uint32(l))<<32 | uint64(uint32(r)) }

// symbol is a node of the linked list that a word is while it is merged. id is -1
// for a string that nothing merges with.
type symbol struct {
	id         int32
	start, end int32 // bytes of the word
	prev, next int32
}

// candidate is a pair that could be merged: the symbol on its left, the two ids it
// was seen with, and what they become.
type candidate struct {
	rank, left, l, r, to int32
}

//lint:ignore U1000 heap calls it through its constraint
func (a candidate) before(b candidate) bool {
	return a.rank < b.rank || a.rank == b.rank && a.left < b.left
}

// work is the scratch space of one encoding.
type work struct {
	syms  []symbol
	heap  heap[candidate]
	ends  []int
	cache map[string][]piece // finished words
}

// piece is a token of a word with the bytes it stands for.
type piece struct{ id, start, end int32 }

// run merges w.syms until no merge applies: the pair of the lowest rank first, of
// equal ones the leftmost. What is left is reached from symbol 0 by next.
func (m *merger) run(w *work) {
	s := w.syms
	for i := range s {
		s[i].prev, s[i].next = int32(i-1), int32(i+1)
	}
	if len(s) == 0 {
		return
	}
	s[len(s)-1].next = -1
	w.heap = w.heap[:0]
	push := func(l, r int32) {
		if l < 0 || r < 0 || s[l].id < 0 || s[r].id < 0 {
			return
		}
		if p, ok := m.pairs[pairKey(s[l].id, s[r].id)]; ok {
			w.heap.push(candidate{p.rank, l, s[l].id, s[r].id, p.to})
		}
	}
	for i := int32(1); i < int32(len(s)); i++ {
		push(i-1, i)
	}
	for len(w.heap) > 0 {
		c := w.heap.pop()
		left := &s[c.left]
		if left.id != c.l || left.next < 0 || left.end <= left.start {
			continue
		}
		right := &s[left.next]
		if right.id != c.r {
			continue
		}
		left.id, left.end = c.to, right.end
		right.id, right.start = -1, right.end // gone
		left.next = right.next
		if right.next >= 0 {
			s[right.next].prev = c.left
		}
		push(left.prev, c.left)
		push(c.left, left.next)
	}
}

// cached words are short, as those that come back are, and not too many.
const (
	maxCachedWord  = 48
	maxCachedWords = 1 << 16
)

// newPool returns a pool of scratch spaces, whose caches belong to one tokenizer.
func newPool() sync.Pool {
	return sync.Pool{New: func() any { return &work{cache: map[string][]piece{}} }}
}

// cached is encode(w, word), remembered if the word is short.
func (w *work) cached(word string, encode func(*work, string) []piece) []piece {
	pieces, ok := w.cache[word]
	if ok {
		return pieces
	}
	pieces = encode(w, word)
	if len(word) <= maxCachedWord {
		if len(w.cache) >= maxCachedWords {
			clear(w.cache)
		}
		w.cache[strings.Clone(word)] = pieces
	}
	return pieces
}

// bpe is byte-level BPE, or BPE over characters, as llama.cpp runs it on a GGUF.
type bpe struct {
	t     *Tokenizer
	m     *merger
	pre   preTokenizer
	bytes [256]int32       // the symbol of each byte
	whole map[string]int32 // words that are tokens as they stand, by their bytes; nil if merges decide
	pool  sync.Pool
}

func newBPE(t *Tokenizer, pre preTokenizer) (*bpe, error) {
	b := &bpe{t: t, pre: pre, pool: newPool()}
	syms := make(map[string]int32, len(t.ids))
	for k, v := range t.ids {
		syms[k] = v
	}
	b.m = newMerger(syms, len(t.tokens))
	if t.spec.Merges == nil {
		return nil, fmt.Errorf("tokenizer: a %s model without merges", t.spec.Model)
	}
	for i, line := range t.spec.Merges {
		// The separator is the first space after the first byte: a half may begin with one.
		if len(line) > 1 {
			if p := strings.IndexByte(line[1:], ' '); p >= 0 {
				b.m.add(line[:p+1], line[p+2:], i)
			}
		}
	}
	for i := range b.bytes {
		b.bytes[i] = b.m.intern(string(byteRunes[i]))
	}
	if pre.ignoreMerges && !pre.chars {
		b.whole = wholeWords(t.ids)
	}
	return b, nil
}

// wholeWords finds tokens by the bytes that they stand for in the byte-level alphabet.
func wholeWords(ids map[string]int32) map[string]int32 {
	whole := make(map[string]int32, len(ids))
	for tok, id := range ids {
		if raw, ok := byteLevelDecode(tok); ok {
			whole[raw] = id
		}
	}
	return whole
}

func (b *bpe) encode(out *sink, text string, _ bool) {
	w := b.pool.Get().(*work)
	defer b.pool.Put(w)
	text, from := validUTF8(text)
	if b.pre.escape {
		text, from = escapeSpaces(text, from, out.want)
	}
	w.ends = b.pre.split(w.ends[:0], text)
	start := 0
	for _, end := range w.ends {
		if end > start {
			b.word(out, w, text[start:end], start, from)
		}
		start = end
	}
}

// word appends the tokens of a word, which starts at byte off of the text. from
// maps bytes of the text to bytes of the input; nil: they are the same.
func (b *bpe) word(out *sink, w *work, word string, off int, from []int32) {
	for _, p := range w.cached(word, b.merge) {
		s, e := off+int(p.start), off+int(p.end)
		if from != nil {
			s, e = int(from[s]), int(from[e])
		}
		out.add(p.id, s, e)
	}
}

func (b *bpe) merge(w *work, word string) []piece {
	if id, ok := b.whole[word]; ok {
		return []piece{{id, 0, int32(len(word))}}
	}
	w.syms = w.syms[:0]
	if !b.pre.chars {
		for i := range len(word) {
			w.syms = append(w.syms, symbol{id: b.bytes[word[i]], start: int32(i), end: int32(i + 1)})
		}
	} else {
		if b.pre.escape && strings.Trim(word, "\n") == "" {
			if id, ok := b.t.ids[word]; ok {
				return []piece{{id, 0, int32(len(word))}}
			}
		}
		for i := 0; i < len(word); {
			_, n := utf8.DecodeRuneInString(word[i:])
			id, ok := b.m.symbols[word[i:i+n]]
			if !ok {
				id = -1
			}
			w.syms = append(w.syms, symbol{id: id, start: int32(i), end: int32(i + n)})
			i += n
		}
	}
	b.m.run(w)
	var pieces []piece
	for i := int32(0); i >= 0; i = w.syms[i].next {
		s := w.syms[i]
		if s.id >= 0 && s.id < b.m.n {
			pieces = append(pieces, piece{s.id, s.start, s.end})
			continue
		}
		pieces = b.spell(pieces, word, s)
	}
	return pieces
}

// spell appends the tokens of a string that is no token: its bytes, those that
// have a token.
func (b *bpe) spell(pieces []piece, word string, s symbol) []piece {
	if b.pre.chars {
		for i := s.start; i < s.end; i++ {
			if id, ok := b.t.ids[byteTokenName(word[i])]; ok {
				pieces = append(pieces, piece{id, i, i + 1})
			}
		}
		return pieces
	}
	for i := s.start; i < s.end; i++ {
		text := string(byteRunes[word[i]])
		for j := range len(text) {
			if id, ok := b.t.ids[text[j:j+1]]; ok {
				pieces = append(pieces, piece{id, i, i + 1})
			}
		}
	}
	return pieces
}

// validUTF8 replaces each byte of text that belongs to no character by U+FFFD.
// from maps the bytes of the result, and its end, to text; nil if nothing changed.
func validUTF8(text string) (valid string, from []int32) {
	if utf8.ValidString(text) {
		return text, nil
	}
	var b []byte
	for i, r := range text {
		k := len(b)
		b = utf8.AppendRune(b, r)
		for range len(b) - k {
			from = append(from, int32(i))
		}
	}
	return string(b), append(from, int32(len(text)))
}

// escapeSpaces replaces spaces by ▁ and, if want, keeps track of where bytes came from.
func escapeSpaces(text string, from []int32, want bool) (string, []int32) {
	if !strings.Contains(text, " ") {
		return text, from
	}
	if !want {
		return strings.ReplaceAll(text, " ", "▁"), nil
	}
	var b []byte
	var to []int32
	for i := range len(text) {
		at := int32(i)
		if from != nil {
			at = from[i]
		}
		if text[i] == ' ' {
			b = append(b, "▁"...)
			to = append(to, at, at, at)
		} else {
			b = append(b, text[i])
			to = append(to, at)
		}
	}
	end := int32(len(text))
	if from != nil {
		end = from[len(text)]
	}
	return string(b), append(to, end)
}
