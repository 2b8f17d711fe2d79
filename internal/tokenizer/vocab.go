package tokenizer

import (
	"strconv"
	"strings"
)

// defaults are what a model has where the metadata does not say.
type defaults struct {
	bos, eos, unk, sep, pad int32
	addBOS, addEOS, addSEP  bool
	spacePrefix             bool
	cleanSpaces             bool
}

// modelDefaults are llama.cpp's, by tokenizer.ggml.model.
var modelDefaults = map[string]defaults{
	"llama":  {bos: 1, eos: 2, unk: 0, sep: -1, pad: -1, addBOS: true, spacePrefix: true},
	"gpt2":   {bos: 11, eos: 11, unk: -1, sep: -1, pad: -1, cleanSpaces: true},
	"gemma4": {bos: -1, eos: -1, unk: -1, sep: -1, pad: -1, addBOS: true, cleanSpaces: true},
	"t5":     {bos: -1, eos: 1, unk: 2, sep: -1, pad: 0, addEOS: true},
	"bert":   {bos: 101, eos: -1, unk: 100, sep: 102, pad: 0, addBOS: true, addSEP: true, cleanSpaces: true},
}

func (t *Tokenizer) setSpecial(d defaults, pre preTokenizer) {
	s := &t.spec
	pick := func(id, def int32) int32 {
		switch {
		case id >= 0 && int(id) < len(t.tokens):
			return id
		case int(def) < len(t.tokens):
			return def
		}
		return -1
	}
	if pre.noBOS {
		d.bos = -1
	}
	t.bos, t.eos, t.unk = pick(s.BOS, d.bos), pick(s.EOS, d.eos), pick(s.UNK, d.unk)
	t.sep, t.pad = pick(s.SEP, d.sep), pick(s.PAD, d.pad)
	t.eot, t.eom = pick(s.EOT, -1), pick(s.EOM, -1)
	flag := func(v *bool, def bool) bool {
		if v != nil {
			return *v
		}
		return def
	}
	t.addBOS = flag(s.AddBOS, d.addBOS || pre.addBOS)
	t.addEOS = flag(s.AddEOS, d.addEOS)
	t.addSEP = flag(s.AddSEP, d.addSEP || pre.addSEP)
	if pre.escape && pre.chars {
		t.addBOS = t.addBOS || pre.addBOS // Gemma 4 files that deny it are wrong
	}
	t.spacePrefix = flag(s.AddSpacePrefix, d.spacePrefix)
	t.cleanSpaces = d.cleanSpaces && !pre.keepSpaces
}

// Names by which llama.cpp knows special tokens that the metadata do not list, in
// order of preference.
var (
	eotNames = []string{"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
		"<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"}
	eomNames    = []string{"<|eom_id|>"}
	fimPreNames = []string{"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"}
	fimSufNames = []string{"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"}
	fimMidNames = []string{"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"}
	fimPadNames = []string{"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}
	fimRepNames = []string{"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}
	fimSepNames = []string{"<|file_sep|>"}
	eogNames    = []string{"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
		"<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
		"<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["}
	shownNames = []string{"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"}
)

// findSpecial fills in the special tokens that are known by their names and
// decides which tokens end a generation, as llama.cpp does.
func (t *Tokenizer) findSpecial() {
	byName := func(id *int32, names []string) {
		if *id >= 0 {
			return
		}
		for _, name := range names {
			if i, ok := t.ids[name]; ok {
				*id = i
				t.attrs[i] |= attrControl
				return
			}
		}
	}
	s := &t.spec
	pre, suf, mid, pad, rep, sep := s.FIMPre, s.FIMSuf, s.FIMMid, s.FIMPad, s.FIMRep, s.FIMSep
	byName(&t.eot, eotNames)
	byName(&t.eom, eomNames)
	byName(&pre, fimPreNames)
	byName(&suf, fimSufNames)
	byName(&mid, fimMidNames)
	byName(&pad, fimPadNames)
	byName(&rep, fimRepNames)
	byName(&sep, fimSepNames)

	t.eog = map[int32]bool{}
	for _, id := range []int32{pad, rep, sep, t.eos, t.eot, t.eom} {
		if id >= 0 {
			t.eog[id] = true
		}
	}
	for _, name := range eogNames {
		if id, ok := t.ids[name]; ok {
			t.eog[id] = true
			t.attrs[id] |= attrControl
		}
	}
	for _, name := range shownNames {
		if id, ok := t.ids[name]; ok {
			t.attrs[id] = attrUser
		}
	}
	has := func(name string) bool {
		id, ok := t.ids[name]
		return ok && t.eog[id]
	}
	// Formats in which <|end|> closes a message, not the turn.
	if has("<|end|>") && (has("<|return|>") && (has("<|call|>") || has("<|calls|>")) ||
		has("<|flush|>") && (has("<|call|>") || has("<|calls|>"))) {
		id := t.ids["<|end|>"]
		delete(t.eog, id)
		t.attrs[id] = attrUser
	}
	if has("<|tool_response>") && has("</s>") {
		id := t.ids["</s>"]
		delete(t.eog, id)
		t.attrs[id] = attrNormal
	}
}

// setStrip marks the special tokens that swallow white space. GGUF has no key for
// that: the reference goes by the names of models and pre-tokenizers.
func (t *Tokenizer) setStrip() {
	mark := func(name string, a attr) {
		if id, ok := t.ids[name]; ok {
			t.attrs[id] |= a
		}
	}
	name := strings.ToLower(t.spec.ModelName)
	switch {
	case strings.Contains(t.spec.Pre, "jina-v2-de"), strings.Contains(t.spec.Pre, "jina-v2-es"), strings.Contains(t.spec.Pre, "jina-v2-code"):
		mark("<mask>", attrLStrip)
	case strings.Contains(name, "phi-3"), strings.Contains(name, "phi3"):
		for i := range t.attrs {
			if t.attrs[i]&(attrControl|attrUser|attrUnknown) != 0 {
				t.attrs[i] |= attrRStrip
			}
		}
		mark("</s>", attrRStrip)
		for _, n := range []string{"<unk>", "<s>", "<|endoftext|>"} {
			if id, ok := t.ids[n]; ok {
				t.attrs[id] &^= attrRStrip
			}
		}
	case strings.Contains(name, "modern-bert"):
		mark("[MASK]", attrLStrip)
	}
}

// fillPieces works out the bytes that each token stands for.
func (t *Tokenizer) fillPieces(pre preTokenizer) {
	byteLevel := t.spec.Model == "gpt2" && !pre.chars
	t.pieces = make([]string, len(t.tokens))
	for i, tok := range t.tokens {
		switch a := t.attrs[i]; {
		case a&(attrUnknown|attrControl|attrUser) != 0:
			t.pieces[i] = tok
		case a&attrNormal != 0 && byteLevel:
			t.pieces[i] = decodeByteLevel(tok)
		case a&attrNormal != 0 && (t.spec.Model != "gpt2" || pre.escape):
			t.pieces[i] = strings.ReplaceAll(tok, "▁", " ")
		case a&attrNormal != 0:
			t.pieces[i] = tok
		case a&attrByte != 0:
			if b, ok := byteToken(tok); ok {
				t.pieces[i] = string([]byte{b})
			}
		}
	}
}

// decodeByteLevel is byteLevelDecode that shows characters from outside the
// alphabet instead of failing.
func decodeByteLevel(tok string) string {
	if s, ok := byteLevelDecode(tok); ok {
		return s
	}
	var b strings.Builder
	for _, r := range tok {
		if c, ok := runeBytes[r]; ok {
			b.WriteByte(c)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// byteToken reads a token of the form <0x0A>.
func byteToken(tok string) (byte, bool) {
	if len(tok) != 6 || !strings.HasPrefix(tok, "<0x") || tok[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(tok[3:5], 16, 8)
	return byte(b), err == nil
}

const hexDigits = "0123456789ABCDEF"

// byteTokenName is the inverse of byteToken.
func byteTokenName(b byte) string {
	return string([]byte{'<', '0', 'x', hexDigits[b>>4], hexDigits[b&15], '>'})
}

// closeUp takes out the space before ? ! . , and the spaces of English
// contractions, in three passes as llama.cpp's detokenizer does.
func closeUp(s string) string {
	pass := func(s []byte, keep func(s []byte, i int, out []byte) ([]byte, int)) []byte {
		if len(s) == 0 {
			return s
		}
		out := append(make([]byte, 0, len(s)), s[0])
		for i := 1; i < len(s); i++ {
			out, i = keep(s, i, out)
		}
		return out
	}
	b := pass([]byte(s), func(s []byte, i int, out []byte) ([]byte, int) {
		if s[i-1] == ' ' && (s[i] == '?' || s[i] == '!' || s[i] == '.' || s[i] == ',') {
			out = out[:len(out)-1]
		}
		return append(out, s[i]), i
	})
	b = pass(b, func(s []byte, i int, out []byte) ([]byte, int) {
		if s[i] == '\'' && i+1 < len(s) && s[i-1] == ' ' && s[i+1] == ' ' {
			// The reference overwrites the space after the apostrophe and goes on behind it.
			s[i+1] = 0
			return append(out[:len(out)-1], '\''), i + 1
		}
		return append(out, s[i]), i
	})
	b = pass(b, func(s []byte, i int, out []byte) ([]byte, int) {
		if s[i-1] == ' ' && s[i] == '\'' && i+1 < len(s) {
			close := s[i+1] == 's' || s[i+1] == 'm'
			if i+2 < len(s) {
				close = close || (s[i+1] == 'r' || s[i+1] == 'v') && s[i+2] == 'e'
			}
			if close {
				out = out[:len(out)-1]
			}
		}
		return append(out, s[i]), i
	})
	return string(b)
}
