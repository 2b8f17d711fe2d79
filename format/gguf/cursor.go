package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/graft-lora/graft/format"
)

const (
	windowSize  = 1 << 18
	maxString   = 1 << 30 // bytes, as in the reference reader
	maxElements = 1 << 30 // of an array
)

// cursor reads a file from the front through one buffered window. Its methods
// report the first failure through err and give zeros after it.
type cursor struct {
	r     io.ReaderAt
	path  string
	size  int64
	order binary.ByteOrder

	buf  []byte // window; buf[pos:end] is not consumed yet
	pos  int
	end  int
	off  int64  // file offset of buf[pos]
	what string // what is being read, for errors: "metadata key 3"
	err  error
}

func newCursor(r io.ReaderAt, size int64, path string) *cursor {
	return &cursor{r: r, path: path, size: size, order: binary.LittleEndian, buf: make([]byte, min(windowSize, max(size, 64)))}
}

func (c *cursor) remaining() int64 { return c.size - c.off }

// fail records that the file is wrong at byte off.
func (c *cursor) fail(off int64, field string, err error) {
	if c.err == nil {
		c.err = &format.CorruptError{Path: c.path, Offset: off, Field: join(c.what, field), Err: err}
	}
}

func (c *cursor) failf(off int64, field, f string, args ...any) {
	if c.err == nil {
		c.fail(off, field, fmt.Errorf(f, args...))
	}
}

// unsupportedf records that graft does not read what stands at byte off.
func (c *cursor) unsupportedf(off int64, field, f string, args ...any) {
	if c.err == nil {
		c.err = format.Unsupported("%s, byte %d: %s: %s", c.path, off, join(c.what, field), fmt.Sprintf(f, args...))
	}
}

func join(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "":
		return a
	}
	return a + ": " + b
}

// take consumes n bytes, n <= len(c.buf), and returns them; they are valid until
// the next call. It returns nil after a failure.
func (c *cursor) take(n int, field string) []byte {
	if c.err != nil {
		return nil
	}
	if c.end-c.pos < n {
		if int64(n) > c.remaining() {
			c.failf(c.off, field, "%d bytes wanted, %d remain: %w", n, c.remaining(), io.ErrUnexpectedEOF)
			return nil
		}
		if !c.fill() {
			return nil
		}
	}
	p := c.buf[c.pos : c.pos+n]
	c.pos += n
	c.off += int64(n)
	return p
}

// fill moves the window so that it begins at off and is as full as the file allows.
func (c *cursor) fill() bool {
	kept := copy(c.buf, c.buf[c.pos:c.end])
	c.pos = 0
	c.end = kept + int(min(int64(len(c.buf)-kept), c.remaining()-int64(kept)))
	return c.read(c.buf[kept:c.end], c.off+int64(kept))
}

// read fills p from offset off. Failing is an error of the disk, not of the file,
// unless the file ends before its size.
func (c *cursor) read(p []byte, off int64) bool {
	n, err := c.r.ReadAt(p, off)
	if n == len(p) {
		return true
	}
	if err == nil || errors.Is(err, io.EOF) {
		c.fail(off+int64(n), "", io.ErrUnexpectedEOF)
	} else {
		c.err = fmt.Errorf("%s: read at byte %d: %w", c.path, off, err)
	}
	return false
}

func (c *cursor) u32(field string) uint32 {
	if p := c.take(4, field); p != nil {
		return c.order.Uint32(p)
	}
	return 0
}

func (c *cursor) u64(field string) uint64 {
	if p := c.take(8, field); p != nil {
		return c.order.Uint64(p)
	}
	return 0
}

// str reads a string; its bytes need not be UTF-8.
func (c *cursor) str(field string) string {
	off := c.off
	n := c.u64(field)
	switch {
	case c.err != nil:
		return ""
	case n > maxString:
		c.failf(off, field, "length %d of a string exceeds %d", n, maxString)
		return ""
	case n > uint64(c.remaining()):
		c.failf(off, field, "length %d of a string exceeds the %d bytes that remain", n, c.remaining())
		return ""
	case int(n) <= len(c.buf):
		return string(c.take(int(n), field))
	}
	p := make([]byte, n)
	if !c.read(p, c.off) {
		return ""
	}
	c.off += int64(n)
	c.pos, c.end = 0, 0
	return string(p)
}

// name reads a string that must be UTF-8.
func (c *cursor) name(field string) string {
	off := c.off
	s := c.str(field)
	if !utf8.ValidString(s) {
		c.failf(off, field, "%q is not UTF-8", s)
	}
	return s
}

// value reads a value of type t.
func (c *cursor) value(t ValueType) Value {
	off := c.off
	switch t {
	case Uint8:
		return decodeU8(c.order, c.take(1, "value"))
	case Int8:
		return int8(decodeU8(c.order, c.take(1, "value")))
	case Uint16:
		return decodeU16(c.order, c.take(2, "value"))
	case Int16:
		return int16(decodeU16(c.order, c.take(2, "value")))
	case Uint32:
		return c.u32("value")
	case Int32:
		return int32(c.u32("value"))
	case Float32:
		return math.Float32frombits(c.u32("value"))
	case Bool:
		return c.boolean(decodeU8(c.order, c.take(1, "value")), off)
	case String:
		return c.str("value")
	case Uint64:
		return c.u64("value")
	case Int64:
		return int64(c.u64("value"))
	case Float64:
		return math.Float64frombits(c.u64("value"))
	case Array:
		return c.array()
	}
	return nil
}

func (c *cursor) boolean(b uint8, off int64) bool {
	if b > 1 {
		c.failf(off, "value", "%d is no bool", b)
	}
	return b == 1
}

func decodeU8(_ binary.ByteOrder, p []byte) uint8 {
	if p == nil {
		return 0
	}
	return p[0]
}

func decodeU16(order binary.ByteOrder, p []byte) uint16 {
	if p == nil {
		return 0
	}
	return order.Uint16(p)
}

func (c *cursor) array() Value {
	typeOff := c.off
	t := ValueType(c.u32("element type"))
	off := c.off
	n := c.u64("array length")
	if c.err != nil {
		return nil
	}
	size, ok := valueSize(t)
	switch {
	case t == Array:
		c.unsupportedf(typeOff, "element type", "arrays of arrays, which no other program reads either")
	case !ok:
		c.failf(typeOff, "element type", "%d is no value type", uint32(t))
	case n > maxElements:
		c.failf(off, "array length", "%d elements exceed %d", n, maxElements)
	case int64(n) > c.remaining()/size:
		c.failf(off, "array length", "%d elements of %v do not fit into the %d bytes that remain", n, t, c.remaining())
	}
	if c.err != nil {
		return nil
	}
	count := int(n)
	switch t {
	case Uint8:
		return elements(c, count, 1, decodeU8)
	case Int8:
		return elements(c, count, 1, func(o binary.ByteOrder, p []byte) int8 { return int8(p[0]) })
	case Uint16:
		return elements(c, count, 2, binary.ByteOrder.Uint16)
	case Int16:
		return elements(c, count, 2, func(o binary.ByteOrder, p []byte) int16 { return int16(o.Uint16(p)) })
	case Uint32:
		return elements(c, count, 4, binary.ByteOrder.Uint32)
	case Int32:
		return elements(c, count, 4, func(o binary.ByteOrder, p []byte) int32 { return int32(o.Uint32(p)) })
	case Float32:
		return elements(c, count, 4, func(o binary.ByteOrder, p []byte) float32 { return math.Float32frombits(o.Uint32(p)) })
	case Uint64:
		return elements(c, count, 8, binary.ByteOrder.Uint64)
	case Int64:
		return elements(c, count, 8, func(o binary.ByteOrder, p []byte) int64 { return int64(o.Uint64(p)) })
	case Float64:
		return elements(c, count, 8, func(o binary.ByteOrder, p []byte) float64 { return math.Float64frombits(o.Uint64(p)) })
	case Bool:
		base := c.off
		raw := elements(c, count, 1, decodeU8)
		v := make([]bool, len(raw))
		for i, b := range raw {
			v[i] = c.boolean(b, base+int64(i))
		}
		return v
	default: // String
		v := make([]string, count)
		for i := range v {
			if v[i] = c.str("array element"); c.err != nil {
				return nil
			}
		}
		return v
	}
}

// elements reads n values of size bytes each.
func elements[T any](c *cursor, n, size int, decode func(binary.ByteOrder, []byte) T) []T {
	v := make([]T, 0, n)
	for n > 0 {
		k := min(n, len(c.buf)/size)
		p := c.take(k*size, "array element")
		if p == nil {
			return nil
		}
		for ; k > 0; k-- {
			v = append(v, decode(c.order, p[:size]))
			p = p[size:]
			n--
		}
	}
	return v
}

// valueSize is the least number of bytes that a value of type t takes; ok is
// false for what is no type of an array's elements.
func valueSize(t ValueType) (size int64, ok bool) {
	switch t {
	case Uint8, Int8, Bool:
		return 1, true
	case Uint16, Int16:
		return 2, true
	case Uint32, Int32, Float32:
		return 4, true
	case Uint64, Int64, Float64, String:
		return 8, true
	}
	return 0, false
}
