package tokenizer

import (
	"cmp"
	"slices"
)

// matcher finds special tokens in text: user-defined ones always, control and
// unknown ones only when they are asked for. Longer tokens win over shorter ones
// wherever they stand, and equal ones from left to right; that is what searching
// for one token after the other, longest first, gives.
type matcher struct {
	t     *Tokenizer
	trie  trie      // to places in list
	list  []int32   // special tokens, longest first
	first [256]bool // bytes that begin one
}

func newMatcher(t *Tokenizer) *matcher {
	m := &matcher{t: t}
	for id := range t.attrs {
		if t.attrs[id]&(attrControl|attrUser|attrUnknown) != 0 && t.ids[t.tokens[id]] == int32(id) {
			m.list = append(m.list, int32(id))
		}
	}
	slices.SortStableFunc(m.list, func(a, b int32) int { return cmp.Compare(len(t.tokens[b]), len(t.tokens[a])) })
	for i, id := range m.list {
		m.first[t.tokens[id][0]] = true
		m.trie.insert(t.tokens[id], int32(i))
	}
	return m
}

// fragment is a piece of the input: a special token, or text if id is -1.
type fragment struct {
	start, end int
	id         int32
}

type hit struct {
	rank       int32
	start, end int
}

// split cuts text at its special tokens.
func (m *matcher) split(text string, parse bool) []fragment {
	if text == "" {
		return nil
	}
	var hits []hit
	for i := range len(text) {
		if !m.first[text[i]] {
			continue
		}
		at := int32(0)
		for j := i; j < len(text); j++ {
			if at = m.trie.step(at, text[j]); at == 0 {
				break
			}
			v := m.trie.nodes[at].value
			if v < 0 || !parse && m.t.attrs[m.list[v]]&(attrControl|attrUnknown) != 0 {
				continue
			}
			hits = append(hits, hit{v, i, j + 1})
		}
	}
	if len(hits) == 0 {
		return []fragment{{0, len(text), -1}}
	}
	slices.SortFunc(hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.start, b.start))
	})
	taken := make([]bool, len(text))
	var frags []fragment
	for _, h := range hits {
		if slices.Contains(taken[h.start:h.end], true) {
			continue
		}
		id := m.list[h.rank]
		frags = append(frags, fragment{h.start, h.end, id})
		from, to := h.start, h.end
		if m.t.attrs[id]&attrLStrip != 0 {
			for from > 0 && !taken[from-1] && asciiSpace(text[from-1]) {
				from--
			}
		}
		if m.t.attrs[id]&attrRStrip != 0 {
			for to < len(text) && !taken[to] && asciiSpace(text[to]) {
				to++
			}
		}
		for i := from; i < to; i++ {
			taken[i] = true
		}
	}
	for i := 0; i < len(text); {
		j := i
		for j < len(text) && taken[j] == taken[i] {
			j++
		}
		if !taken[i] {
			frags = append(frags, fragment{i, j, -1})
		}
		i = j
	}
	slices.SortFunc(frags, func(a, b fragment) int { return cmp.Compare(a.start, b.start) })
	return frags
}

func asciiSpace(b byte) bool { return b == ' ' || b >= '\t' && b <= '\r' }
