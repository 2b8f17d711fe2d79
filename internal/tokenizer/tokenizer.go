package tokenizer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// attr are the properties of a token as the reference keeps them: its type, which
// special names can widen, and whether it swallows white space beside it.
type attr uint8

const (
	attrNormal attr = 1 << iota
	attrUnknown
	attrControl
	attrUser
	attrUnused
	attrByte
	attrLStrip
	attrRStrip
)

// Tokenizer turns text into token ids and back. It is immutable and safe for
// concurrent use.
type Tokenizer struct {
	spec   Spec
	tokens []string // as in the vocabulary; an empty one has a made-up name
	attrs  []attr
	ids    map[string]int32
	pieces []string // the bytes that each token decodes to
	model  model
	match  *matcher // special tokens inside text

	bos, eos, eot, eom, unk, sep, pad int32
	addBOS, addEOS, addSEP            bool
	spacePrefix                       bool // a space is put before text, and taken from the front when decoding
	cleanSpaces                       bool // detokenizing with CleanUp closes up spaces
	eog                               map[int32]bool

	file *pipeline // set for a tokenizer.json used as it is
}

// model is the part that knows how text without special tokens becomes tokens.
type model interface {
	// encode appends the tokens of text. afterSpecial says that it starts the input
	// or follows a special token.
	encode(out *sink, text string, afterSpecial bool)
}

// Span is a range of bytes of the text.
type Span struct{ Start, End int }

// sink collects tokens, and where they came from if that is wanted.
type sink struct {
	ids   []int32
	spans []Span
	want  bool // spans are wanted
	base  int  // offset in the text of the fragment that is being encoded
}

// add appends a token that stands for bytes [start, end) of the fragment. Where the
// unknown token is wanted and there is none (-1), nothing is added.
func (s *sink) add(id int32, start, end int) {
	if id < 0 {
		return
	}
	s.ids = append(s.ids, id)
	if s.want {
		s.spans = append(s.spans, Span{s.base + start, s.base + end})
	}
}

// EncodeOptions say how special tokens are treated.
type EncodeOptions struct {
	ParseSpecial bool // names of control tokens inside the text become those tokens
	AddSpecial   bool // BOS, EOS and the like are added as the model wants them
}

// DecodeOptions say how tokens become text.
type DecodeOptions struct {
	SkipSpecial bool // control and unknown tokens are left out
	// CleanUp closes up the space before punctuation and English contractions where
	// the vocabulary's reference implementation does so. It loses information and is
	// off unless asked for.
	CleanUp bool
}

// New makes a tokenizer of a spec, with the rules of llama.cpp: the defaults of
// special tokens that the spec leaves out, the pre-tokenizer that its name stands
// for, the tokens that end a generation. An unknown model or pre-tokenizer is an
// error that names it.
func New(spec Spec) (*Tokenizer, error) {
	t := &Tokenizer{spec: spec}
	n := len(spec.Tokens)
	if n == 0 {
		return nil, errors.New("tokenizer: the vocabulary is empty")
	}
	if spec.Types != nil && len(spec.Types) != n {
		return nil, fmt.Errorf("tokenizer: %d token types for %d tokens", len(spec.Types), n)
	}
	if spec.Scores != nil && len(spec.Scores) != n {
		return nil, fmt.Errorf("tokenizer: %d scores for %d tokens", len(spec.Scores), n)
	}
	t.fillVocabulary()
	defaults, ok := modelDefaults[spec.Model]
	if !ok {
		return nil, fmt.Errorf("tokenizer: model %q: %w", spec.Model, ErrUnsupported)
	}
	pre := preTokenizer{}
	if spec.Model == "gpt2" || spec.Model == "gemma4" {
		name := spec.Pre
		switch {
		case spec.Model == "gemma4":
			name = "gemma4"
		case name == "":
			name = "default"
		}
		if pre, ok = preTokenizers[name]; !ok {
			return nil, fmt.Errorf("tokenizer: pre-tokenizer %q: %w", name, ErrUnsupported)
		}
	}
	t.setSpecial(defaults, pre)
	t.findSpecial()
	t.setStrip()
	t.match = newMatcher(t)

	var err error
	switch spec.Model {
	case "llama":
		t.model = newSentencePiece(t)
	case "gpt2", "gemma4":
		t.model, err = newBPE(t, pre)
	case "t5":
		t.model, err = newUnigram(t)
	case "bert":
		t.model = newWordPiece(t)
	}
	if err != nil {
		return nil, err
	}
	t.fillPieces(pre)
	return t, nil
}

func (t *Tokenizer) fillVocabulary() {
	s := &t.spec
	n := len(s.Tokens)
	t.tokens = s.Tokens
	t.ids = make(map[string]int32, n)
	t.attrs = make([]attr, n)
	for i, tok := range t.tokens {
		if tok == "" {
			if &t.tokens[0] == &s.Tokens[0] {
				t.tokens = slices.Clone(t.tokens)
			}
			tok = fmt.Sprintf("[EMPTY_%d]", i)
			t.tokens[i] = tok
		}
		t.ids[tok] = int32(i)
		switch s.Type(int32(i)) {
		case Normal:
			t.attrs[i] = attrNormal
		case Unknown:
			t.attrs[i] = attrUnknown
		case Control:
			t.attrs[i] = attrControl
		case UserDefined:
			t.attrs[i] = attrUser
		case Unused:
			t.attrs[i] = attrUnused
		case Byte:
			t.attrs[i] = attrByte
		}
	}
}

// Encode returns the tokens of text. The caller owns the result.
func (t *Tokenizer) Encode(text string, opt EncodeOptions) []int32 {
	out := &sink{}
	t.encode(out, text, opt)
	return out.ids
}

// EncodeWithOffsets returns the tokens of text and, for each, the bytes of text
// that it stands for. Added tokens have empty spans. The tokens of a character
// that is spelled in bytes have one byte each, unless a normalizer changed it.
func (t *Tokenizer) EncodeWithOffsets(text string, opt EncodeOptions) ([]int32, []Span) {
	out := &sink{want: true}
	t.encode(out, text, opt)
	return out.ids, out.spans
}

func (t *Tokenizer) encode(out *sink, text string, opt EncodeOptions) {
	if t.file != nil {
		t.file.encode(out, text, opt)
		return
	}
	bert := t.spec.Model == "bert"
	if opt.AddSpecial && (t.addBOS || bert) && t.bos >= 0 {
		out.add(t.bos, 0, 0)
	}
	afterSpecial := true
	for _, f := range t.match.split(text, opt.ParseSpecial) {
		out.base = f.start
		if f.id >= 0 {
			out.add(f.id, 0, f.end-f.start)
			afterSpecial = true
			continue
		}
		t.model.encode(out, text[f.start:f.end], afterSpecial)
		afterSpecial = false
	}
	out.base = len(text)
	switch {
	case opt.AddSpecial && bert && t.sep >= 0:
		out.add(t.sep, 0, 0)
	case opt.AddSpecial && t.addEOS && t.eos >= 0:
		out.add(t.eos, 0, 0)
	}
}

// Decode returns the text of ids. Bytes that are no valid UTF-8 stay as they are;
// ids outside the vocabulary give nothing.
func (t *Tokenizer) Decode(ids []int32, opt DecodeOptions) string {
	if t.file != nil {
		return t.file.decode(ids, opt)
	}
	var b strings.Builder
	for i, id := range ids {
		b.WriteString(t.pieceAt(i == 0, id, opt.SkipSpecial))
	}
	if opt.CleanUp && t.cleanSpaces {
		return closeUp(b.String())
	}
	return b.String()
}

// pieceAt is the text of a token, first or not.
func (t *Tokenizer) pieceAt(first bool, id int32, skipSpecial bool) string {
	if id < 0 || int(id) >= len(t.pieces) || skipSpecial && t.attrs[id]&(attrControl|attrUnknown) != 0 {
		return ""
	}
	p := t.pieces[id]
	if first && t.spacePrefix {
		p = strings.TrimPrefix(p, " ")
	}
	return p
}

// Token is the entry of the vocabulary as it is written there, "" if there is none.
func (t *Tokenizer) Token(id int32) string {
	if id < 0 || int(id) >= len(t.tokens) {
		return ""
	}
	return t.tokens[id]
}

// Piece is the text that a token stands for inside a longer one, special tokens by
// their names; it need not be valid UTF-8.
func (t *Tokenizer) Piece(id int32) string {
	if id < 0 || int(id) >= len(t.pieces) {
		return ""
	}
	return t.pieces[id]
}

// ID finds a token by the vocabulary's spelling.
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// Size is the number of tokens.
func (t *Tokenizer) Size() int { return len(t.tokens) }

// Spec is what the tokenizer was made of. Its slices must not be changed.
func (t *Tokenizer) Spec() Spec { return t.spec }

// BOS is the token that starts a text, -1 if there is none.
func (t *Tokenizer) BOS() int32 { return t.bos }

// EOS is the token that ends a text, -1 if there is none.
func (t *Tokenizer) EOS() int32 { return t.eos }

// EOT is the token that ends a turn, -1 if there is none. Where the file does not
// say and several tokens have such names, it is the first of a fixed order; in
// llama.cpp it depends on the order of a hash table.
func (t *Tokenizer) EOT() int32 { return t.eot }

// PAD is the padding token, -1 if there is none.
func (t *Tokenizer) PAD() int32 { return t.pad }

// UNK is the token for what has no other, -1 if there is none.
func (t *Tokenizer) UNK() int32 { return t.unk }

// AddsBOS says whether AddSpecial puts BOS in front.
func (t *Tokenizer) AddsBOS() bool { return t.addBOS }

// AddsEOS says whether AddSpecial puts EOS at the end.
func (t *Tokenizer) AddsEOS() bool { return t.addEOS }

// IsEOG says whether a generation stops at id.
func (t *Tokenizer) IsEOG(id int32) bool { return t.eog[id] }

// EOG lists the tokens that stop a generation, in ascending order.
func (t *Tokenizer) EOG() []int32 {
	ids := make([]int32, 0, len(t.eog))
	for id := range t.eog {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// IsSpecial says whether id is a control or unknown token, which decoding can
// leave out.
func (t *Tokenizer) IsSpecial(id int32) bool {
	return id >= 0 && int(id) < len(t.attrs) && t.attrs[id]&(attrControl|attrUnknown) != 0
}
