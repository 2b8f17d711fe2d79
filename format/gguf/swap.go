package gguf

import (
	"io"

	"github.com/graft-lora/graft/format"
)

// field is a run of numbers of more than one byte in a block: count of them, of
// width bytes each, beginning at off.
type field struct{ off, width, count int }

// wideFields says, for each quantized type, which bytes of a block belong to
// numbers of more than one byte and so are reversed in a big endian file. Types
// that pack words in a way that depends on the machine (the iq1, iq2 and iq3
// families) have no agreed big endian form and are missing.
var wideFields = map[format.Type][]field{
	format.Q4_0: {{0, 2, 1}}, format.Q4_1: {{0, 2, 2}},
	format.Q5_0: {{0, 2, 1}, {2, 4, 1}}, format.Q5_1: {{0, 2, 2}, {4, 4, 1}},
	format.Q8_0: {{0, 2, 1}},
	format.Q2_K: {{80, 2, 2}}, format.Q3_K: {{108, 2, 1}},
	format.Q4_K: {{0, 2, 2}}, format.Q5_K: {{0, 2, 2}}, format.Q6_K: {{208, 2, 1}},
	format.IQ4_NL: {{0, 2, 1}}, format.IQ4_XS: {{0, 2, 2}},
	format.TQ1_0: {{52, 2, 1}}, format.TQ2_0: {{64, 2, 1}},
	format.MXFP4: {}, format.NVFP4: {},
	format.Q1_0: {{0, 2, 1}}, format.Q2_0: {{0, 2, 1}},
}

// swapTensors gives the tensors of a big endian file sources that read as little endian.
func (f *File) swapTensors(c *cursor) error {
	for _, t := range f.Tensors {
		fields, ok := wideFields[t.Type]
		if !t.Type.Quantized() {
			fields, ok = []field{{0, t.Type.BlockBytes(), 1}}, true
		}
		if !ok {
			return format.Unsupported("%s: tensor %s: %v in a big endian file", c.path, t.Name, t.Type)
		}
		t.Source = &swapped{r: c.r, begin: t.Offset, size: t.Size, block: int64(t.Type.BlockBytes()), fields: fields}
		t.Offset = 0
	}
	return nil
}

// swapped reads a tensor of a big endian file as if it were little endian. It is
// no Mapper: the bytes as mapped are of no use.
type swapped struct {
	r           io.ReaderAt
	begin, size int64
	block       int64
	fields      []field
}

func (s *swapped) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= s.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	short := int64(len(p)) > s.size-off
	if short {
		p = p[:s.size-off]
	}
	// Only whole blocks can be swapped: when the range is ragged, read round it.
	first := off / s.block * s.block
	last := (off + int64(len(p)) + s.block - 1) / s.block * s.block
	buf := p
	if first != off || last != off+int64(len(p)) {
		buf = make([]byte, last-first)
	}
	if n, err := s.r.ReadAt(buf, s.begin+first); n < len(buf) {
		return 0, err
	}
	for b := int64(0); b < int64(len(buf)); b += s.block {
		swapBlock(buf[b:b+s.block], s.fields)
	}
	if len(buf) != len(p) {
		copy(p, buf[off-first:])
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

func swapBlock(p []byte, fields []field) {
	for _, f := range fields {
		for i := range f.count {
			v := p[f.off+i*f.width:][:f.width]
			for a, z := 0, len(v)-1; a < z; a, z = a+1, z-1 {
				v[a], v[z] = v[z], v[a]
			}
		}
	}
}
