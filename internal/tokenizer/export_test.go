package tokenizer

// WithPre is t, a byte-level BPE, with another pre-tokenizer: what New makes of the
// same vocabulary under that name, without reading the merges again.
func (t *Tokenizer) WithPre(name string) *Tokenizer {
	from := t.model.(*bpe)
	b := &bpe{t: t, m: from.m, pre: preTokenizers[name], bytes: from.bytes, pool: newPool()}
	if b.pre.ignoreMerges && !b.pre.chars {
		b.whole = wholeWords(t.ids)
	}
	c := *t
	c.model = b
	return &c
}

// InOnePiece is t without the cuts that make long texts fast.
func (t *Tokenizer) InOnePiece() *Tokenizer {
	c := *t
	if t.file != nil {
		b := *t.file.model.(*jsonBPE)
		b.parts = nil
		c.file = &pipeline{t: &c, raw: t.file.raw, cooked: t.file.cooked, normalize: t.file.normalize, split: t.file.split,
			model: &b, before: t.file.before, after: t.file.after, decoder: t.file.decoder, special: t.file.special, pool: newPool()}
		return &c
	}
	c.model = &sentencePiece{t: &c, bytes: t.model.(*sentencePiece).bytes, pool: newPool()}
	return &c
}
