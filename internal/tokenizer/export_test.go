package tokenizer

// WithPre is t, a byte-level BPE, with another pre-tokenizer: what New makes of the
// same vocabulary under that name, without reading the merges again.
func (t *Tokenizer) WithPre(name string) *Tokenizer {
	from := t.model.(*bpe)
	b := &bpe{t: t, m: from.m, pre: preTokenizers[name], bytes: from.bytes}
	b.pool.New = func() any { return &work{cache: map[string][]piece{}} }
	if b.pre.ignoreMerges && !b.pre.chars {
		b.whole = wholeWords(t.ids)
	}
	c := *t
	c.model = b
	return &c
}
