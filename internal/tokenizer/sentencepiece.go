package tokenizer

import (
	"strings"
	"sync"
)

// sentencePiece is BPE by scores with byte fallback, as llama.cpp runs it on the
// "llama" vocabularies of SentencePiece: of all neighbours that together are a
// token the pair of the highest score is merged first, of equal ones the leftmost.
type sentencePiece struct {
	t     *Tokenizer
	bytes [256]int32 // token of each byte, UNK where there is none
	parts *segmenter // nil: a text is encoded in one piece
	pool  sync.Pool  // of *work
}

func newSentencePiece(t *Tokenizer) *sentencePiece {
	s := &sentencePiece{t: t, parts: newSegmenter(t.ids), pool: newPool()}
	for i := range s.bytes {
		id, ok := t.ids[byteTokenName(byte(i))]
		if !ok {
			id, ok = t.ids[string([]byte{byte(i)})]
		}
		if !ok {
			id = t.unk
		}
		s.bytes[i] = id
	}
	return s
}

// pair is two neighbouring symbols, by the index of the left one and the bytes that
// they had together when it was made.
type pair struct {
	score float32
	left  int32
	size  int32
	id    int32
}

//lint:ignore U1000 heap calls it through its constraint
func (a pair) before(b pair) bool {
	return a.score > b.score || a.score == b.score && a.left < b.left
}

func (m *sentencePiece) encode(out *sink, text string, afterSpecial bool) {
	var from []int32
	prefix := m.t.spacePrefix && afterSpecial
	if out.want {
		text, from = escapeSpaces(text, nil, true)
		if prefix {
			if from == nil {
				from = make([]int32, len(text)+1)
				for i := range from {
					from[i] = int32(i)
				}
			}
			text, from = mark+text, append([]int32{0, 0, 0}, from...)
		}
	} else {
		text = strings.ReplaceAll(text, " ", mark)
		if prefix {
			text = mark + text
		}
	}
	w := m.pool.Get().(*work)
	defer m.pool.Put(w)
	for i := 0; i < len(text); {
		end := len(text)
		if m.parts != nil {
			end = m.parts.next(text, i)
		}
		for _, p := range w.cached(text[i:end], m.merge) {
			s, e := i+int(p.start), i+int(p.end)
			if from != nil {
				s, e = int(from[s]), int(from[e])
			}
			out.add(p.id, s, e)
		}
		i = end
	}
}

// merge encodes a part of a text.
func (m *sentencePiece) merge(w *work, text string) []piece {
	s := w.syms[:0]
	for i := 0; i < len(text); {
		n := min(leadLen(text[i]), len(text)-i)
		k := int32(len(s))
		s = append(s, symbol{id: -1, start: int32(i), end: int32(i + n), prev: k - 1, next: k + 1})
		i += n
	}
	w.syms = s
	s[len(s)-1].next = -1
	var h heap[pair]
	push := func(l, r int32) {
		if l < 0 || r < 0 {
			return
		}
		if id, ok := m.t.ids[text[s[l].start:s[r].end]]; ok {
			h.push(pair{m.t.spec.Score(id), l, s[r].end - s[l].start, id})
		}
	}
	for i := int32(1); i < int32(len(s)); i++ {
		push(i-1, i)
	}
	for len(h) > 0 {
		p := h.pop()
		left := &s[p.left]
		if left.start == left.end || left.next < 0 {
			continue
		}
		right := &s[left.next]
		if right.end-left.start != p.size {
			continue
		}
		left.end, left.id = right.end, p.id
		right.start = right.end // gone
		left.next = right.next
		if right.next >= 0 {
			s[right.next].prev = p.left
		}
		push(left.prev, p.left)
		push(p.left, left.next)
	}
	var pieces []piece
	for i := int32(0); i >= 0; i = s[i].next {
		c := s[i]
		if c.id < 0 {
			id, ok := m.t.ids[text[c.start:c.end]]
			if !ok {
				for j := c.start; j < c.end; j++ {
					pieces = append(pieces, piece{m.bytes[text[j]], j, j + 1})
				}
				continue
			}
			c.id = id
		}
		pieces = append(pieces, piece{c.id, c.start, c.end})
	}
	return pieces
}
