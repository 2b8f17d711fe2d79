package convert

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/graft-lora/graft/internal/tokenizer"
)

// sentencePieceModel makes a tokenizer.model: the pieces with scores and types, and
// the settings of trainer and normalizer that a reader uses. What trained the model
// is not known to a GGUF file and stays out.
func (r *rebuilder) sentencePieceModel() []byte {
	var b []byte
	last := len(r.spec.Tokens)
	for last > 0 && r.skip[last-1] {
		last--
	}
	for i, t := range r.spec.Tokens[:last] {
		typ := r.spec.Type(int32(i))
		if typ == tokenizer.UserDefined {
			t = strings.ReplaceAll(t, " ", "▁")
		}
		var p []byte
		p = appendBytes(p, 1, []byte(t))
		p = binary.AppendUvarint(p, 2<<3|5)
		p = binary.LittleEndian.AppendUint32(p, math.Float32bits(r.spec.Score(int32(i))))
		if typ != tokenizer.Normal {
			p = appendNumber(p, 3, uint64(typ))
		}
		b = appendBytes(b, 1, p)
	}
	// trainer_spec: BPE with byte fallback, the size, ids and pieces of the special
	// tokens.
	var t []byte
	t = appendNumber(t, 3, 2)
	t = appendNumber(t, 4, uint64(last))
	t = appendNumber(t, 35, 1)
	for i, id := range []int32{r.tk.UNK(), r.spec.BOS, r.spec.EOS, r.spec.PAD} {
		t = appendNumber(t, 40+i, uint64(int64(id)))
		if id >= 0 && int(id) < last {
			t = appendBytes(t, 45+i, []byte(r.spec.Tokens[id])) // by which readers find it
		}
	}
	b = appendBytes(b, 2, t)
	// normalizer_spec: no rules; the space before the text; spaces stay as they are.
	prefix := uint64(1)
	if r.spec.AddSpacePrefix != nil && !*r.spec.AddSpacePrefix {
		prefix = 0
	}
	var n []byte
	n = appendBytes(n, 1, []byte("identity"))
	n = appendNumber(n, 3, prefix)
	n = appendNumber(n, 4, 0)
	n = appendNumber(n, 5, 1)
	return appendBytes(b, 3, n)
}

// appendBytes appends a length-delimited field of a protocol-buffer message.
func appendBytes(b []byte, field int, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

// appendNumber appends a varint field.
func appendNumber(b []byte, field int, n uint64) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3)
	return binary.AppendUvarint(b, n)
}
