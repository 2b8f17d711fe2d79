package format

import (
	"context"
	"fmt"
	"io"

	"github.com/graft-lora/graft/internal/mmap"
)

// Tensor is a tensor as it stands in a file. It is created by the readers
// (format/gguf, format/safetensors), which have checked that Offset and Size lie
// inside the file and agree with Type and Shape.
type Tensor struct {
	Name   string
	Type   Type
	Shape  []int64     // row-major; empty for a scalar
	Path   string      // file the bytes are in
	Source io.ReaderAt // that file, open; owned by the reader that made the Tensor
	Offset int64       // first byte in Source
	Size   int64       // bytes
}

// Mapper is implemented by sources that are mapped into memory. Map returns the
// n bytes at off without copying, valid until the source is closed and not to be
// written to; nil if they are not mapped.
type Mapper interface {
	Map(off, n int64) []byte
}

// Bytes returns the mapped bytes of t, or nil if its source is not mapped.
func (t *Tensor) Bytes() []byte {
	if m, ok := t.Source.(Mapper); ok {
		return m.Map(t.Offset, t.Size)
	}
	return nil
}

// Release tells the system that the mapped pages of t are not needed for now, so
// that a file that is read through once does not stay in memory. What Bytes
// returned stays valid: it is read again from the file.
func (t *Tensor) Release() { t.advise(mmap.DontNeed) }

// Prefetch tells the system that the bytes of t will be needed soon.
func (t *Tensor) Prefetch() { t.advise(mmap.WillNeed) }

func (t *Tensor) advise(a mmap.Advice) {
	if m, ok := t.Source.(interface {
		Advise(off, n int64, a mmap.Advice)
	}); ok {
		m.Advise(t.Offset, t.Size, a)
	}
}

// ReadAt reads len(p) bytes of t, beginning off bytes into it. Unlike most
// ReaderAts it never reads short without an error.
func (t *Tensor) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > t.Size {
		return 0, fmt.Errorf("%s: tensor %s: read of %d bytes at %d is outside its %d bytes", t.Path, t.Name, len(p), off, t.Size)
	}
	n, err := t.Source.ReadAt(p, t.Offset+off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("%s: tensor %s: %w", t.Path, t.Name, err)
}

// Copy writes the bytes of t to w, a part at a time, until ctx ends.
func (t *Tensor) Copy(ctx context.Context, w io.Writer) error {
	buf := make([]byte, min(t.Size, 1<<20))
	for off := int64(0); off < t.Size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf = buf[:min(int64(len(buf)), t.Size-off)]
		if _, err := t.ReadAt(buf, off); err != nil {
			return err
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// Rows and Cols give t as a matrix: Cols is the last dimension, Rows the product
// of the others. A scalar is 1 x 1.
func (t *Tensor) Rows() int64 { return shapeRows(t.Shape) }
func (t *Tensor) Cols() int64 { return shapeCols(t.Shape) }

func shapeRows(shape []int64) int64 {
	n := int64(1)
	for i := 0; i < len(shape)-1; i++ {
		n *= shape[i]
	}
	return n
}

func shapeCols(shape []int64) int64 {
	if len(shape) == 0 {
		return 1
	}
	return shape[len(shape)-1]
}

// View is a tensor as graft sees it: under its GGUF name, in GGUF's layout (heads
// permuted where the architecture wants it, norms with their one added), whatever
// file or group of files it comes from. format/arch makes views.
type View struct {
	Name  string  // GGUF name, "blk.3.attn_q.weight"
	Type  Type    // how the source stores it; what "same type" means for an output
	Shape []int64 // row-major
	Rows  RowReader
	From  []*Tensor // the stored tensors it is made of
	Why   string    // how it is made from them, for people: "rows permuted for rope"; "" if as stored
}
