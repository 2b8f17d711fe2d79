package arch

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/graft-lora/graft/format"
)

// mapRows gives the rows of src in another order, or some of them: row i of the
// result is row at(i) of src. It is a RawReader when src is one.
func mapRows(src format.RowReader, rows int64, at func(int64) int64) format.RowReader {
	m := rowMap{src: src, rows: rows, at: at}
	if raw, ok := src.(format.RawReader); ok {
		_, cols := src.Dims()
		if n, err := raw.RawType().RowBytes(cols); err == nil {
			return &rawRowMap{rowMap: m, raw: raw, rowBytes: n}
		}
	}
	return &m
}

type rowMap struct {
	src  format.RowReader
	rows int64
	at   func(int64) int64
}

func (m *rowMap) Dims() (rows, cols int64) {
	_, cols = m.src.Dims()
	return m.rows, cols
}

func (m *rowMap) ReadRows(dst []float32, row int64) error {
	_, cols := m.src.Dims()
	if cols == 0 {
		return nil
	}
	return m.runs(row, int64(len(dst))/cols, func(at, from, n int64) error {
		return m.src.ReadRows(dst[at*cols:(at+n)*cols], from)
	})
}

// runs calls read for each run of rows that are consecutive in src: n rows from
// row from of src, which are rows at and following of those asked for.
func (m *rowMap) runs(row, rows int64, read func(at, from, n int64) error) error {
	if row < 0 || rows < 0 || row+rows > m.rows {
		return fmt.Errorf("rows %d to %d of %d", row, row+rows, m.rows)
	}
	for i := int64(0); i < rows; {
		from := m.at(row + i)
		n := int64(1)
		for i+n < rows && m.at(row+i+n) == from+n {
			n++
		}
		if err := read(i, from, n); err != nil {
			return err
		}
		i += n
	}
	return nil
}

type rawRowMap struct {
	rowMap
	raw      format.RawReader
	rowBytes int64
}

func (m *rawRowMap) RawType() format.Type { return m.raw.RawType() }

func (m *rawRowMap) ReadRaw(dst []byte, row int64) error {
	if m.rowBytes == 0 {
		return nil
	}
	return m.runs(row, int64(len(dst))/m.rowBytes, func(at, from, n int64) error {
		return m.raw.ReadRaw(dst[at*m.rowBytes:(at+n)*m.rowBytes], from)
	})
}

// mapCols gives the elements of each row of src in another order: column j of the
// result is column at(j) of src. It is meant for vectors (biases), so it holds a
// row twice. It is a RawReader when src is one of a type without blocks.
func mapCols(src format.RowReader, at func(int64) int64) format.RowReader {
	m := colMap{src: src, at: at}
	if raw, ok := src.(format.RawReader); ok {
		if info, ok := raw.RawType().Info(); ok && info.Block == 1 && info.Bits%8 == 0 {
			return &rawColMap{colMap: m, raw: raw, size: int64(info.Bits / 8)}
		}
	}
	return &m
}

type colMap struct {
	src format.RowReader
	at  func(int64) int64
}

func (m *colMap) Dims() (rows, cols int64) { return m.src.Dims() }

func (m *colMap) ReadRows(dst []float32, row int64) error {
	_, cols := m.src.Dims()
	tmp := make([]float32, len(dst))
	if err := m.src.ReadRows(tmp, row); err != nil {
		return err
	}
	for i := int64(0); i < int64(len(dst)); i += cols {
		for j := range cols {
			dst[i+j] = tmp[i+m.at(j)]
		}
	}
	return nil
}

type rawColMap struct {
	colMap
	raw  format.RawReader
	size int64 // bytes of an element
}

func (m *rawColMap) RawType() format.Type { return m.raw.RawType() }

func (m *rawColMap) ReadRaw(dst []byte, row int64) error {
	_, cols := m.src.Dims()
	tmp := make([]byte, len(dst))
	if err := m.raw.ReadRaw(tmp, row); err != nil {
		return err
	}
	rowBytes := cols * m.size
	for i := int64(0); i < int64(len(dst)); i += rowBytes {
		for j := range cols {
			from := i + m.at(j)*m.size
			copy(dst[i+j*m.size:i+(j+1)*m.size], tmp[from:from+m.size])
		}
	}
	return nil
}

// stackRows puts the rows of several matrices of the same width below each other,
// in order. It is a RawReader when all of them are, of one type.
func stackRows(parts []format.RowReader) format.RowReader {
	s := stack{parts: parts}
	for _, p := range parts {
		rows, cols := p.Dims()
		s.rows += rows
		s.cols = cols
	}
	raw := rawStack{stack: s}
	for i, p := range parts {
		r, ok := p.(format.RawReader)
		if !ok || i > 0 && r.RawType() != raw.typ {
			return &s
		}
		raw.typ = r.RawType()
	}
	n, err := raw.typ.RowBytes(s.cols)
	if err != nil {
		return &s
	}
	raw.rowBytes = n
	return &raw
}

type stack struct {
	parts      []format.RowReader
	rows, cols int64
}

func (s *stack) Dims() (rows, cols int64) { return s.rows, s.cols }

// each calls read for each part that holds some of the rows asked for: n rows
// from row from of the part, which are rows at and following of those asked for.
func (s *stack) each(row, rows int64, read func(part format.RowReader, at, from, n int64) error) error {
	if row < 0 || rows < 0 || row+rows > s.rows {
		return fmt.Errorf("rows %d to %d of %d", row, row+rows, s.rows)
	}
	var base, done int64
	for _, p := range s.parts {
		if done == rows {
			break
		}
		have, _ := p.Dims()
		if from := row + done - base; from < have {
			n := min(have-from, rows-done)
			if err := read(p, done, from, n); err != nil {
				return err
			}
			done += n
		}
		base += have
	}
	return nil
}

func (s *stack) ReadRows(dst []float32, row int64) error {
	if s.cols == 0 {
		return nil
	}
	return s.each(row, int64(len(dst))/s.cols, func(p format.RowReader, at, from, n int64) error {
		return p.ReadRows(dst[at*s.cols:(at+n)*s.cols], from)
	})
}

type rawStack struct {
	stack
	typ      format.Type
	rowBytes int64
}

func (s *rawStack) RawType() format.Type { return s.typ }

func (s *rawStack) ReadRaw(dst []byte, row int64) error {
	if s.rowBytes == 0 {
		return nil
	}
	return s.each(row, int64(len(dst))/s.rowBytes, func(p format.RowReader, at, from, n int64) error {
		return p.(format.RawReader).ReadRaw(dst[at*s.rowBytes:(at+n)*s.rowBytes], from)
	})
}

// plus adds a constant to every element of src, in float32.
type plus struct {
	src format.RowReader
	c   float32
}

func (p *plus) Dims() (rows, cols int64) { return p.src.Dims() }

func (p *plus) ReadRows(dst []float32, row int64) error {
	if err := p.src.ReadRows(dst, row); err != nil {
		return err
	}
	for i := range dst {
		dst[i] += p.c
	}
	return nil
}

// vector is a tensor of one row that exists in memory only, as float32.
type vector []float32

func (v vector) Dims() (rows, cols int64) { return 1, int64(len(v)) }

func (v vector) ReadRows(dst []float32, row int64) error {
	if row != 0 || len(dst) > len(v) {
		return fmt.Errorf("rows %d and following of 1", row)
	}
	copy(dst, v)
	return nil
}

func (v vector) RawType() format.Type { return format.F32 }

func (v vector) ReadRaw(dst []byte, row int64) error {
	if row != 0 || len(dst) > 4*len(v) {
		return fmt.Errorf("rows %d and following of 1", row)
	}
	for i := range len(dst) / 4 {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v[i]))
	}
	return nil
}

// toRope says where row i of a query or key matrix in GGUF's order (the two
// elements of a rotated pair next to each other) stands in Hugging Face's (the
// pair half a head apart). The head's size is rows / heads, and even.
func toRope(rows, heads int64) func(int64) int64 {
	d := rows / heads
	half := d / 2
	return func(i int64) int64 {
		h, r := i/d, i%d
		return h*d + r%2*half + r/2
	}
}

// fromRope is the inverse of toRope.
func fromRope(rows, heads int64) func(int64) int64 {
	d := rows / heads
	half := d / 2
	return func(i int64) int64 {
		h, r := i/d, i%d
		return h*d + r%half*2 + r/half
	}
}
