package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// pipeline is a tokenizer.json in use: added tokens, normalizer, pre-tokenizer,
// model, post-processor, decoder, in the order and with the rules of the
// tokenizers library.
type pipeline struct {
	t         *Tokenizer
	raw       *added // added tokens that are found before normalization
	cooked    *added // and after
	normalize normalizer
	split     pretokenizer
	model     wordModel
	before    []int32 // what the post-processor puts around a text
	after     []int32
	decoder   decoder
	special   map[int32]bool
	pool      sync.Pool // of *work
}

// wordModel encodes one word.
type wordModel interface {
	word(out *sink, w *work, c chunk)
}

// FromJSON makes a tokenizer of a tokenizer.json, used as it is. cfg names the
// special tokens; truncation and padding of the file are not applied. Parts that
// this package does not know are errors that wrap [ErrUnsupported].
func FromJSON(tokenizerJSON []byte, cfg Config) (*Tokenizer, error) {
	j, err := ParseJSON(tokenizerJSON)
	if err != nil {
		return nil, err
	}
	return j.Tokenizer(cfg)
}

// Tokenizer makes a tokenizer of j; see [FromJSON].
func (j *JSON) Tokenizer(cfg Config) (*Tokenizer, error) {
	t := &Tokenizer{spec: NewSpec()}
	s := &t.spec
	var err error
	if s.Tokens, err = j.vocabulary(); err != nil {
		return nil, err
	}
	if len(s.Tokens) == 0 {
		return nil, fmt.Errorf("tokenizer: the vocabulary is empty")
	}
	s.ChatTemplate, s.ChatTemplates = cfg.ChatTemplate, cfg.ChatTemplates
	s.Types = make([]TokenType, len(s.Tokens))
	for i := range s.Types {
		s.Types[i] = Normal
		if s.Tokens[i] == "" {
			s.Types[i] = Unused
		}
	}
	p := &pipeline{t: t, special: map[int32]bool{}, raw: &added{}, cooked: &added{}, pool: newPool()}
	if p.normalize, err = parseNormalizer(j.Normalizer); err != nil {
		return nil, err
	}
	for _, a := range j.AddedTokens {
		if s.Types[a.ID] = UserDefined; a.Special {
			s.Types[a.ID] = Control
			p.special[a.ID] = true
		}
		if !a.Normalized {
			p.raw.add(a.Content, a)
			continue
		}
		content := a.Content
		if p.normalize != nil {
			content = p.normalize(chunk{s: content}).s
		}
		p.cooked.add(content, a)
	}
	if p.split, err = parsePreTokenizer(j.PreTokenizer, true); err != nil {
		return nil, err
	}
	if p.decoder, err = parseDecoder(j.Decoder); err != nil {
		return nil, err
	}
	if err := p.readModel(j); err != nil {
		return nil, err
	}
	t.fillVocabulary()
	if err := p.readPostProcessor(j.PostProcessor); err != nil {
		return nil, err
	}
	id := func(name string) int32 {
		if i, ok := t.ids[name]; ok && name != "" {
			return i
		}
		return -1
	}
	s.BOS, s.EOS, s.UNK, s.PAD = id(cfg.BOS), id(cfg.EOS), id(cfg.UNK), id(cfg.PAD)
	if s.BOS < 0 && len(p.before) > 0 {
		s.BOS = p.before[0]
	}
	if s.UNK < 0 {
		s.UNK = id(j.Model.UnkToken)
	}
	t.setSpecial(defaults{bos: -1, eos: -1, unk: -1, sep: -1, pad: -1}, preTokenizer{})
	t.addBOS, t.addEOS = len(p.before) > 0, len(p.after) > 0
	t.findSpecial()
	t.file = p
	t.fillFilePieces()
	return t, nil
}

// fillFilePieces decodes each token by itself, in the middle of a text.
func (t *Tokenizer) fillFilePieces() {
	t.pieces = make([]string, len(t.tokens))
	for i, tok := range t.tokens {
		switch {
		case t.spec.Types[i] == Unused:
		case t.spec.Types[i] != Normal:
			t.pieces[i] = tok
		default:
			// The first token of a list can lose a space; the second never does.
			both := strings.Join(t.file.decoder([]string{"a", tok}), "")
			t.pieces[i] = strings.TrimPrefix(both, strings.Join(t.file.decoder([]string{"a"}), ""))
		}
	}
}

func (p *pipeline) encode(out *sink, text string, opt EncodeOptions) {
	w := p.pool.Get().(*work)
	defer p.pool.Put(w)
	if opt.AddSpecial {
		for _, id := range p.before {
			out.add(id, 0, 0)
		}
	}
	valid, from := validUTF8(text)
	p.raw.split(chunk{s: valid, from: from}, !opt.ParseSpecial, func(c chunk, id int32) {
		if id >= 0 {
			out.add(id, c.at(0), c.at(len(c.s)))
			return
		}
		if p.normalize != nil {
			c = p.normalize(c)
		}
		p.cooked.split(c, !opt.ParseSpecial, func(c chunk, id int32) {
			switch {
			case id >= 0:
				out.add(id, c.at(0), c.at(len(c.s)))
			case p.split == nil:
				p.model.word(out, w, c)
			default:
				for _, word := range p.split(c) {
					p.model.word(out, w, word)
				}
			}
		})
	})
	if opt.AddSpecial {
		for _, id := range p.after {
			out.add(id, len(text), len(text))
		}
	}
}

func (p *pipeline) decode(ids []int32, opt DecodeOptions) string {
	var tokens []string
	for _, id := range ids {
		if id < 0 || int(id) >= len(p.t.tokens) || p.t.spec.Types[id] == Unused || opt.SkipSpecial && p.special[id] {
			continue
		}
		tokens = append(tokens, p.t.tokens[id])
	}
	if len(tokens) == 0 {
		return ""
	}
	return strings.Join(p.decoder(tokens), "")
}

// added is a set of added tokens that can be found in text.
type added struct {
	list  []AddedToken
	trie  trie
	first [256]bool
}

func (a *added) add(content string, tok AddedToken) {
	if content == "" {
		return
	}
	a.first[content[0]] = true
	a.trie.insert(content, int32(len(a.list)))
	a.list = append(a.list, tok)
}

// split cuts c at the added tokens: the leftmost, and of those the longest. With
// hide, the special ones are text. yield gets the parts in order, id -1 for text.
func (a *added) split(c chunk, hide bool, yield func(c chunk, id int32)) {
	if c.s == "" {
		return
	}
	done := 0
	for i := 0; i < len(c.s); {
		tok, end := a.longest(c.s, i)
		if tok == nil {
			i++
			continue
		}
		start := i
		i = end
		if hide && tok.Special || tok.SingleWord && !alone(c.s, start, end) {
			continue
		}
		if tok.LStrip {
			start = max(done, len(strings.TrimRightFunc(c.s[:start], unicode.IsSpace)))
		}
		if tok.RStrip {
			end = len(c.s) - len(strings.TrimLeftFunc(c.s[end:], unicode.IsSpace))
		}
		if start > done {
			yield(c.sub(done, start), -1)
		}
		yield(c.sub(start, end), tok.ID)
		done = end
		i = max(i, end)
	}
	if done < len(c.s) {
		yield(c.sub(done, len(c.s)), -1)
	}
}

// longest finds the longest added token at byte i; nil if there is none.
func (a *added) longest(s string, i int) (tok *AddedToken, end int) {
	if !a.first[s[i]] {
		return nil, 0
	}
	at := int32(0)
	for j := i; j < len(s); j++ {
		if at = a.trie.step(at, s[j]); at == 0 {
			break
		}
		if v := a.trie.nodes[at].value; v >= 0 {
			tok, end = &a.list[v], j+1
		}
	}
	return tok, end
}

// alone says whether no word character stands beside s[i:j].
func alone(s string, i, j int) bool {
	word := func(r rune) bool {
		return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.Is(unicode.M, r)
	}
	before, n := utf8.DecodeLastRuneInString(s[:i])
	after, k := utf8.DecodeRuneInString(s[j:])
	return (n == 0 || !word(before)) && (k == 0 || !word(after))
}

// readPostProcessor finds what is put before and after a single text.
func (p *pipeline) readPostProcessor(raw json.RawMessage) error {
	if isNull(raw) {
		return nil
	}
	type special struct{ ID string }
	var q struct {
		Type       string
		Processors []json.RawMessage
		Single     []struct {
			SpecialToken *special
			Sequence     *special
		}
		Specials map[string]struct{ IDs []int32 } `json:"special_tokens"`
		Cls, Sep []any
	}
	if err := json.Unmarshal(raw, &q); err != nil {
		return fmt.Errorf("tokenizer: post-processor: %w", err)
	}
	switch q.Type {
	case "Sequence":
		for _, r := range q.Processors {
			if err := p.readPostProcessor(r); err != nil {
				return err
			}
		}
		return nil
	case "ByteLevel":
		return nil
	case "TemplateProcessing":
		list := &p.before
		for _, s := range q.Single {
			if s.Sequence != nil {
				list = &p.after
			} else if s.SpecialToken != nil {
				sp, ok := q.Specials[s.SpecialToken.ID]
				if !ok {
					return fmt.Errorf("tokenizer: post-processor: no ids for %q", s.SpecialToken.ID)
				}
				for _, id := range sp.IDs {
					if err := p.known(id); err != nil {
						return err
					}
				}
				*list = append(*list, sp.IDs...)
			}
		}
		return nil
	case "BertProcessing", "RobertaProcessing":
		id := func(pair []any) (int32, error) {
			if len(pair) == 2 {
				if f, ok := pair[1].(float64); ok {
					return int32(f), p.known(int32(f))
				}
			}
			return 0, fmt.Errorf("tokenizer: post-processor %s: %v is no token with its id", q.Type, pair)
		}
		cls, err := id(q.Cls)
		if err != nil {
			return err
		}
		sep, err := id(q.Sep)
		if err != nil {
			return err
		}
		p.before, p.after = append(p.before, cls), append([]int32{sep}, p.after...)
		return nil
	}
	return fmt.Errorf("tokenizer: post-processor %q: %w", q.Type, ErrUnsupported)
}

// known checks an id of the post-processor.
func (p *pipeline) known(id int32) error {
	if id < 0 || int(id) >= len(p.t.tokens) {
		return fmt.Errorf("tokenizer: post-processor: token %d in a vocabulary of %d", id, len(p.t.tokens))
	}
	return nil
}
