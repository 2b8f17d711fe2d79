package format

import (
	"fmt"

	"github.com/graft-lora/graft/internal/mmap"
)

// RowReader is a matrix that can produce its rows as float32. Transformations
// (permuting rows, adding one to a norm, adding s*B*A) are RowReaders round
// RowReaders, so that a tensor of any size costs only the rows in flight.
//
// Implementations are safe for concurrent use.
type RowReader interface {
	// Dims returns the number of rows and columns.
	Dims() (rows, cols int64)
	// ReadRows decodes len(dst)/cols rows, beginning with row, into dst.
	// len(dst) is a multiple of cols.
	ReadRows(dst []float32, row int64) error
}

// RawReader is a RowReader whose rows can also be had as stored bytes of one
// type, unchanged or only reordered. Rows of a tensor that keeps its type are
// copied this way and never go through float32.
type RawReader interface {
	RowReader
	// RawType is the type of the bytes that ReadRaw gives.
	RawType() Type
	// ReadRaw copies whole rows, beginning with row, into dst, whose length is a
	// multiple of the bytes of a row.
	ReadRaw(dst []byte, row int64) error
}

// Codec turns blocks of a type into float32 and back. Package quant registers
// the codecs of all types it has; import it for its effect.
type Codec struct {
	// Decode expands all of src, whole blocks, into dst.
	Decode func(dst []float32, src []byte)
	// Encode packs one row or several whole rows of cols columns into dst. weights
	// is the importance of each column (len cols) or nil; types that ignore
	// it accept it. A nil Encode means the type can only be read. Non-finite input
	// is an error.
	Encode func(dst []byte, src []float32, cols int, weights []float32) error
}

var codecs = map[Type]Codec{}

// RegisterCodec makes the codec of t known. It is called from init functions only.
func RegisterCodec(t Type, c Codec) { codecs[t] = c }

// CodecOf returns the codec of t, or an UnsupportedError.
func CodecOf(t Type) (Codec, error) {
	c, ok := codecs[t]
	if !ok {
		return Codec{}, Unsupported("values of type %v cannot be decoded", t)
	}
	return c, nil
}

// EncoderOf returns the codec of t if it can encode, or an UnsupportedError.
func EncoderOf(t Type) (Codec, error) {
	c, err := CodecOf(t)
	if err != nil {
		return Codec{}, err
	}
	if c.Encode == nil {
		return Codec{}, Unsupported("values cannot be encoded as %v", t)
	}
	return c, nil
}

// StoredRows returns the rows of a stored tensor, decoded by its type's codec.
// The result is a [RawReader]. It is an error if rows are not whole blocks or the
// type has no codec.
func StoredRows(t *Tensor) (RowReader, error) {
	c, err := CodecOf(t.Type)
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
	}
	rowBytes, err := t.Type.RowBytes(t.Cols())
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
	}
	return &storedRows{t: t, codec: c, rowBytes: rowBytes, mapped: t.Bytes()}, nil
}

type storedRows struct {
	t        *Tensor
	codec    Codec
	rowBytes int64
	mapped   []byte
}

func (s *storedRows) Dims() (rows, cols int64) { return s.t.Rows(), s.t.Cols() }
func (s *storedRows) RawType() Type            { return s.t.Type }

func (s *storedRows) ReadRows(dst []float32, row int64) error {
	cols := s.t.Cols()
	if cols == 0 {
		return nil
	}
	n := int64(len(dst)) / cols
	if err := s.check(row, n); err != nil {
		return err
	}
	if s.mapped != nil {
		err := mmap.Guard(func() error {
			s.codec.Decode(dst, s.mapped[row*s.rowBytes:(row+n)*s.rowBytes])
			return nil
		})
		if err != nil { // another program has truncated the file
			return fmt.Errorf("%s: tensor %s: %w", s.t.Path, s.t.Name, err)
		}
		return nil
	}
	buf := make([]byte, n*s.rowBytes)
	if _, err := s.t.ReadAt(buf, row*s.rowBytes); err != nil {
		return err
	}
	s.codec.Decode(dst, buf)
	return nil
}

func (s *storedRows) ReadRaw(dst []byte, row int64) error {
	if s.rowBytes == 0 {
		return nil
	}
	if err := s.check(row, int64(len(dst))/s.rowBytes); err != nil {
		return err
	}
	// Not from the mapping, whose pages would count as memory of the program.
	_, err := s.t.ReadAt(dst, row*s.rowBytes)
	return err
}

// Release gives back the mapped pages; see [Tensor.Release].
func (s *storedRows) Release() { s.t.Release() }

func (s *storedRows) check(row, n int64) error {
	if row < 0 || n < 0 || row+n > s.t.Rows() {
		return fmt.Errorf("tensor %s: rows %d to %d of %d", s.t.Name, row, row+n, s.t.Rows())
	}
	return nil
}
