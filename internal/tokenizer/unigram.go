package tokenizer

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// viterbi finds the most probable segmentation of a text into tokens whose scores
// are logarithms of probabilities.
type viterbi struct {
	trie     trie
	scores   []float64 // by token
	unk      int32
	unkScore float64 // of a character that no token stands for
}

// run gives the tokens of text in order. Neighbouring unknown characters are one.
func (v *viterbi) run(text []byte) []piece {
	if len(text) == 0 {
		return nil
	}
	type state struct {
		id    int32
		start int32
		score float64
	}
	best := make([]state, len(text)+1)
	for i := range best {
		best[i] = state{v.unk, 0, -math.MaxFloat64}
	}
	best[0].score = 0
	for i := 0; i < len(text); {
		n := min(leadLen(text[i]), len(text)-i)
		whole := false
		here := best[i].score
		at := int32(0)
		for j := i; j < len(text); j++ {
			if at = v.trie.step(at, text[j]); at == 0 {
				break
			}
			id := v.trie.nodes[at].value
			if id < 0 {
				continue
			}
			whole = whole || j+1-i == n
			if score := here + v.scores[id]; score > best[j+1].score {
				best[j+1] = state{id, int32(i), score}
			}
		}
		if s := here + v.unkScore; !whole && s > best[i+n].score {
			best[i+n] = state{v.unk, int32(i), s}
		}
		i += n
	}
	var found []piece
	prevUnk := false
	for end := int32(len(text)); ; {
		b := best[end]
		unk := b.id == v.unk
		if unk && prevUnk {
			found[len(found)-1].start = b.start
		} else {
			found = append(found, piece{b.id, b.start, end})
		}
		if b.start == 0 {
			break
		}
		prevUnk, end = unk, b.start
	}
	slices.Reverse(found)
	return found
}

// unigram runs the Unigram models of SentencePiece as llama.cpp does.
type unigram struct {
	t        *Tokenizer
	viterbi  viterbi
	user     trie // user-defined tokens: the normalizer leaves them alone
	merge    bool // runs of spaces become one
	chars    []uint32
	replaced []byte // what the entries of chars stand for, each ended by a zero byte
}

func newUnigram(t *Tokenizer) (*unigram, error) {
	u := &unigram{t: t, merge: t.spec.RemoveExtraWhitespaces != nil && *t.spec.RemoveExtraWhitespaces}
	low := float32(math.MaxFloat32)
	u.viterbi.unk = t.unk
	u.viterbi.scores = make([]float64, len(t.tokens))
	for id := range t.tokens {
		a := t.attrs[id]
		if a&attrNormal != 0 {
			low = min(low, t.spec.Score(int32(id)))
		}
		if a&(attrNormal|attrUser|attrUnused) != 0 {
			u.viterbi.trie.insert(t.tokens[id], int32(id))
		}
		if a&attrUser == 0 {
			u.viterbi.scores[id] = float64(t.spec.Score(int32(id)))
		} else {
			u.user.insert(t.tokens[id], int32(id))
		}
	}
	u.viterbi.unkScore = float64(low - 10)
	if c := t.spec.PrecompiledCharsmap; len(c) > 0 {
		if len(c) < 4 {
			return nil, errors.New("tokenizer: the precompiled character map is too short")
		}
		n := binary.LittleEndian.Uint32(c)
		if uint64(n)+4 >= uint64(len(c)) {
			return nil, errors.New("tokenizer: the precompiled character map is shorter than it says")
		}
		u.chars = make([]uint32, n/4)
		for i := range u.chars {
			u.chars[i] = binary.LittleEndian.Uint32(c[4+4*i:])
		}
		u.replaced = c[4+n:]
	}
	return u, nil
}

func (u *unigram) encode(out *sink, text string, _ bool) {
	norm, from := u.normalize(text)
	for _, p := range u.viterbi.run(norm) {
		out.add(p.id, int(from[p.start]), int(from[p.end]))
	}
}

// normalize applies the character map and the rules for spaces. from maps the bytes
// of the result, and its end, to text.
func (u *unigram) normalize(text string) (norm []byte, from []int32) {
	put := func(s string, at int) {
		norm = append(norm, s...)
		for range len(s) {
			from = append(from, int32(at))
		}
	}
	prefix := u.t.spacePrefix
	prefixed, inWord := false, false
	for i := 0; i < len(text); {
		s, n := u.prefix(text[i:])
		for k := range len(s) {
			switch {
			case s[k] != ' ':
				if !inWord {
					inWord = true
					if prefix && !prefixed || u.merge {
						put("▁", i)
						prefixed = true
					}
				}
				put(s[k:k+1], i)
			default:
				inWord = false
				if !u.merge {
					put("▁", i)
				}
			}
		}
		i += n
	}
	return norm, append(from, int32(len(text)))
}

// prefix normalizes the beginning of text: what it becomes and how much it takes.
func (u *unigram) prefix(text string) (string, int) {
	// A user-defined token, or the beginning of one, stays as it is.
	at, n := int32(0), 0
	for n < len(text) {
		if at = u.user.step(at, text[n]); at == 0 {
			break
		}
		n++
	}
	if n > 0 {
		return text[:n], n
	}
	if s, n, ok := u.mapped(text); ok {
		return s, n
	}
	r, n := utf8.DecodeRuneInString(text)
	if r == utf8.RuneError && n == 1 {
		return "�", 1
	}
	return text[:n], n
}

// mapped looks up the longest beginning of text in the character map, an
// XOR-compressed double array (Kanda et al., 2017): an entry has its label in the
// low byte, a leaf flag in bit 8 and the base of its children above.
func (u *unigram) mapped(text string) (string, int, bool) {
	if len(u.chars) == 0 {
		return "", 0, false
	}
	get := func(i uint32) uint32 {
		if int64(i) < int64(len(u.chars)) {
			return u.chars[i]
		}
		return 0
	}
	base := func(e uint32) uint32 { return e >> 10 << (e & (1 << 9) >> 6) }
	node := base(get(0))
	length, value := 0, uint32(0)
	for i := 0; i < len(text) && text[i] != 0; i++ {
		c := uint32(text[i])
		node ^= c
		e := get(node)
		if e&(1<<31|0xff) != c {
			break
		}
		node ^= base(e)
		if e>>8&1 != 0 {
			length, value = i+1, get(node)&(1<<31-1)
		}
	}
	if length == 0 || uint64(value) >= uint64(len(u.replaced)) {
		return "", 0, false
	}
	s := string(u.replaced[value:])
	if end := strings.IndexByte(s, 0); end >= 0 {
		return s[:end], length, true
	}
	return "", 0, false
}
