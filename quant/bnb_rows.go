package quant

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/mmap"
)

// nibbleRows is a matrix of 4-bit codes as rows. The bytes may be mapped.
type nibbleRows struct {
	name       string
	rows, cols int64
	block      int64 // elements under a scale
	table      *[16]float32
	codes      []byte
	absmax     blockScales
	round      format.Type // F16 or BF16: values are rounded to it; F32: they are not
}

// blockScales are the scales of the blocks of a matrix: float32, or, in double
// quantization, 8-bit codes under scales of their own.
type blockScales struct {
	plain []byte // little-endian float32; nil in double quantization

	codes  []byte
	table  *[256]float32
	outer  []byte // little-endian float32, one for each outerBlock codes
	block  int64
	offset float32
}

func (s *blockScales) at(b int64) float32 {
	if s.plain != nil {
		return floatAt(s.plain, b)
	}
	return float32(s.table[s.codes[b]]*floatAt(s.outer, b/s.block)) + s.offset
}

// size is the number of bytes that s holds.
func (s *blockScales) size() int64 { return int64(len(s.plain) + len(s.codes) + len(s.outer)) }

func floatAt(p []byte, i int64) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(p[4*i:]))
}

func putFloats(v []float32) []byte {
	p := make([]byte, 0, 4*len(v))
	for _, x := range v {
		p = binary.LittleEndian.AppendUint32(p, math.Float32bits(x))
	}
	return p
}

func (m *nibbleRows) Dims() (rows, cols int64) { return m.rows, m.cols }

func (m *nibbleRows) ReadRows(dst []float32, row int64) error {
	if m.cols == 0 || len(dst) == 0 {
		return nil
	}
	if err := checkRows(m.name, row, int64(len(dst))/m.cols, m.rows); err != nil {
		return err
	}
	return guardRows(m.name, func() { m.decode(dst, row*m.cols) })
}

// decode expands the elements from i on.
func (m *nibbleRows) decode(dst []float32, i int64) {
	for len(dst) > 0 {
		if i%m.block == 0 {
			if n := m.decodeBlocks(dst, i); n > 0 {
				i += n
				dst = dst[n:]
				continue
			}
		}
		b := i / m.block
		n := min((b+1)*m.block-i, int64(len(dst)))
		scale := m.absmax.at(b)
		var values [16]float32
		for c := range values {
			values[c] = m.rounded(m.table[c] * scale)
		}
		out := dst[:n]
		dst = dst[n:]
		if i&1 == 1 {
			out[0] = values[m.codes[i>>1]&15]
			out = out[1:]
			i++
		}
		codes := m.codes[i>>1:]
		for j := 0; j+1 < len(out); j += 2 {
			c := codes[j>>1]
			out[j], out[j+1] = values[c>>4], values[c&15]
		}
		if k := len(out) - 1; k&1 == 0 {
			out[k] = values[codes[k>>1]>>4]
		}
		i += int64(len(out))
	}
}

// rounded is v as a value of the type that bitsandbytes decodes to.
func (m *nibbleRows) rounded(v float32) float32 {
	switch m.round {
	case format.BF16:
		return kernel.BF16Value(kernel.BF16Bits(v))
	case format.F16:
		return kernel.F16Value(kernel.F16Bits(v))
	}
	return v
}

// int8Rows is a matrix of 8-bit codes under a scale a row. The bytes may be mapped.
type int8Rows struct {
	name       string
	rows, cols int64
	codes      []byte
	scales     []byte // little-endian float32
}

func (m *int8Rows) Dims() (rows, cols int64) { return m.rows, m.cols }

func (m *int8Rows) ReadRows(dst []float32, row int64) error {
	if m.cols == 0 {
		return nil
	}
	if err := checkRows(m.name, row, int64(len(dst))/m.cols, m.rows); err != nil {
		return err
	}
	return guardRows(m.name, func() {
		for ; len(dst) > 0; row++ {
			dequantizeInt8(dst[:m.cols], m.codes[row*m.cols:(row+1)*m.cols], floatAt(m.scales, row))
			dst = dst[m.cols:]
		}
	})
}

// guardRows runs read, which reads bytes that may be mapped.
func guardRows(name string, read func()) error {
	if err := mmap.Guard(func() error { read(); return nil }); err != nil {
		return fmt.Errorf("tensor %s: %w", name, err)
	}
	return nil
}

func checkRows(name string, row, n, rows int64) error {
	if row < 0 || n < 0 || row+n > rows {
		return fmt.Errorf("tensor %s: rows %d to %d of %d", name, row, row+n, rows)
	}
	return nil
}

var (
	_ format.RowReader = (*nibbleRows)(nil)
	_ format.RowReader = (*int8Rows)(nil)
)
