package tokenizer

import "unicode/utf8"

// Decoder decodes a stream of tokens. It holds back the bytes of a character until
// the character is whole. It is not safe for concurrent use.
type Decoder struct {
	t     *Tokenizer
	opt   DecodeOptions
	begun bool
	held  []byte
	ids   []int32 // of a tokenizer.json: the last tokens, since its decoders look at neighbours
}

// NewDecoder returns a decoder. DecodeOptions.CleanUp does not apply to it.
func (t *Tokenizer) NewDecoder(opt DecodeOptions) *Decoder { return &Decoder{t: t, opt: opt} }

// Add takes a token and returns the text that is now complete; bytes that cannot
// become a character come out as they are.
func (d *Decoder) Add(id int32) string {
	if d.t.file != nil {
		d.held = append(d.held, d.next(id)...)
	} else {
		d.held = append(d.held, d.t.pieceAt(!d.begun, id, d.opt.SkipSpecial)...)
	}
	d.begun = true
	n := completeUTF8(d.held)
	s := string(d.held[:n])
	d.held = append(d.held[:0], d.held[n:]...)
	return s
}

// next is what a token adds to the text of the tokens before it.
func (d *Decoder) next(id int32) string {
	before := d.t.file.decode(d.ids, d.opt)
	d.ids = append(d.ids, id)
	all := d.t.file.decode(d.ids, d.opt)
	if len(d.ids) > neighbours {
		d.ids = append(d.ids[:0], d.ids[1:]...)
	}
	return all[min(len(before), len(all)):]
}

// neighbours is how far back a decoder looks: no kind of them joins more than two.
const neighbours = 4

// Flush returns what is held back, complete or not, and begins anew.
func (d *Decoder) Flush() string {
	s := string(d.held)
	d.held, d.begun, d.ids = d.held[:0], false, nil
	return s
}

// completeUTF8 is the length of b without a character at its end that lacks bytes.
func completeUTF8(b []byte) int {
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if utf8.FullRune(b[i:]) {
				break
			}
			return i
		}
	}
	return len(b)
}
