package quant

import (
	"fmt"

	"github.com/graft-lora/graft/format"
)

// HoldOptions says how a matrix is held in 4 bits. The zero value is what
// bitsandbytes does by default.
type HoldOptions struct {
	Block  int64 // elements under one scale: a power of two from 32 to 4096; 0 means 64
	Nested bool  // double quantization: the scales are quantized too
}

const (
	defaultBlock = 64
	holdChunk    = 1 << 18 // elements decoded at a time while quantizing
)

// HoldNF4 quantizes rows to NF4 as bitsandbytes does and holds the result in
// memory, size bytes of it. The codes are those of its CPU backend; in double
// quantization the mean of the scales is summed in double precision.
func HoldNF4(rows format.RowReader, opt HoldOptions) (held format.RowReader, size int64, err error) {
	return hold4(rows, nf4, opt)
}

// HoldFP4 is [HoldNF4] with the 4-bit floats of bitsandbytes.
func HoldFP4(rows format.RowReader, opt HoldOptions) (held format.RowReader, size int64, err error) {
	return hold4(rows, fp4, opt)
}

func hold4(src format.RowReader, n *nibble, opt HoldOptions) (format.RowReader, int64, error) {
	m, err := quantize4(src, n, opt, nil)
	if err != nil {
		return nil, 0, err
	}
	return m, int64(len(m.codes)) + m.absmax.size(), nil
}

// quantize4 quantizes all of src. offset, if not nil, is taken for the mean of the
// scales in double quantization.
func quantize4(src format.RowReader, n *nibble, opt HoldOptions, offset *float32) (*nibbleRows, error) {
	if opt.Block == 0 {
		opt.Block = defaultBlock
	}
	if !validBlock(opt.Block) {
		return nil, format.Usagef("blocks of %d elements: bitsandbytes has powers of two from 32 to 4096", opt.Block)
	}
	rows, cols := src.Dims()
	count := rows * cols
	m := &nibbleRows{rows: rows, cols: cols, block: opt.Block, table: &n.table, round: format.F32, codes: make([]byte, (count+1)/2)}
	scales := make([]float32, (count+opt.Block-1)/opt.Block)
	if count > 0 {
		if err := m.fill(src, n, scales); err != nil {
			return nil, err
		}
	}
	if !opt.Nested {
		m.absmax.plain = putFloats(scales)
		return m, nil
	}
	m.absmax = blockScales{codes: make([]byte, len(scales)), table: &dynamicMap, block: nestedBlock, offset: meanOf(scales)}
	if offset != nil {
		m.absmax.offset = *offset
	}
	outer := make([]float32, (len(scales)+nestedBlock-1)/nestedBlock)
	quantizeScales(m.absmax.codes, outer, scales, m.absmax.offset)
	m.absmax.outer = putFloats(outer)
	return m, nil
}

func validBlock(n int64) bool { return n >= 32 && n <= 4096 && n&(n-1) == 0 }

// fill quantizes the rows of src, some at a time. Rows need not be whole blocks:
// the rest of one read is carried over to the next.
func (m *nibbleRows) fill(src format.RowReader, n *nibble, scales []float32) error {
	step := max(holdChunk/m.cols, 1)
	buf := make([]float32, 0, m.block+min(step, m.rows)*m.cols)
	done := int64(0) // elements quantized
	for row := int64(0); row < m.rows; row += step {
		k := min(step, m.rows-row)
		rest := len(buf)
		buf = buf[:rest+int(k*m.cols)]
		if err := src.ReadRows(buf[rest:], row); err != nil {
			return err
		}
		whole := int64(len(buf))
		if row+k < m.rows {
			whole = whole / m.block * m.block
		}
		b := done / m.block
		err := n.quantize(m.codes[done/2:(done+whole+1)/2], scales[b:], buf[:whole], int(m.block))
		if err != nil {
			return fmt.Errorf("rows from %d: %w", row, err)
		}
		done += whole
		buf = buf[:copy(buf, buf[whole:])]
	}
	return nil
}

// HoldINT8 quantizes rows to LLM.int8 as bitsandbytes does and holds the result in
// memory, size bytes of it. Values that half precision does not hold are an error.
func HoldINT8(src format.RowReader) (held format.RowReader, size int64, err error) {
	m, err := quantize8(src)
	if err != nil {
		return nil, 0, err
	}
	return m, int64(len(m.codes) + len(m.scales)), nil
}

func quantize8(src format.RowReader) (*int8Rows, error) {
	rows, cols := src.Dims()
	m := &int8Rows{rows: rows, cols: cols, codes: make([]byte, rows*cols)}
	scales := make([]float32, rows)
	step := max(holdChunk/max(cols, 1), 1)
	buf := make([]float32, min(step, rows)*cols)
	for row := int64(0); row < rows && cols > 0; row += step {
		part := buf[:min(step, rows-row)*cols]
		if err := src.ReadRows(part, row); err != nil {
			return nil, err
		}
		for r := row; len(part) > 0; r++ {
			var err error
			if scales[r], err = quantizeInt8(m.codes[r*cols:(r+1)*cols], part[:cols]); err != nil {
				return nil, fmt.Errorf("row %d: %w", r, err)
			}
			part = part[cols:]
		}
	}
	m.scales = putFloats(scales)
	return m, nil
}
