package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/mmap"
)

const (
	magic            = "GGUF"
	defaultAlignment = 32
	keyAlignment     = "general.alignment"
	maxNameBytes     = 63
	maxDims          = 4
)

// File is an open GGUF model: one file, or all shards of a split one.
type File struct {
	// Meta is the metadata, in file order; of a split model that of its first shard
	// without the keys of the split.
	Meta *Meta
	// Tensors are all tensors in file order, shard after shard.
	Tensors []*format.Tensor
	// Shards are the files, one or more.
	Shards []Shard

	Version   uint32
	ByteOrder binary.ByteOrder
	Alignment int64 // of tensor data, in bytes

	index   map[string]int
	closers []io.Closer
}

// Shard is one file of a model.
type Shard struct {
	Path       string
	Size       int64 // bytes of the file
	DataOffset int64 // where tensor data begins
	Tensors    int   // tensors in it
	Trailing   int64 // bytes after the last tensor and its padding, which nobody reads
}

// Open maps the file at path and reads its header. If it is a shard of a split
// model, all shards are opened and checked against each other.
func Open(path string) (*File, error) {
	f, err := OpenShard(path)
	if err != nil {
		return nil, err
	}
	s, err := splitOf(f)
	if err == nil && s.count > 1 {
		first := f
		if f, err = openSplit(path, s); err == nil {
			err = first.Close()
		} else {
			f = first
		}
	} else if err == nil {
		f.dropSplitKeys()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// OpenShard maps the file at path and reads its header as it stands, without
// looking for other shards.
func OpenShard(path string) (*File, error) {
	m, err := mmap.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := NewReader(m, m.Size(), path)
	if err != nil {
		m.Close()
		return nil, err
	}
	f.closers = append(f.closers, m)
	return f, nil
}

// NewReader reads the header of a single file of size bytes, called path in
// errors, from r. r stays the caller's and must remain open; it is used by
// several goroutines at once. Tensors are mapped if r is a [format.Mapper].
func NewReader(r io.ReaderAt, size int64, path string) (*File, error) {
	c := newCursor(r, size, path)
	f := &File{Meta: &Meta{}, Alignment: defaultAlignment, ByteOrder: binary.LittleEndian, index: map[string]int{}}
	tensors, keys := f.readHead(c)
	f.readMeta(c, keys)
	offsets := f.readInfos(c, tensors)
	if c.err != nil {
		return nil, c.err
	}
	if err := f.place(c, offsets); err != nil {
		return nil, err
	}
	return f, nil
}

// Tensor returns the tensor called name, or nil.
func (f *File) Tensor(name string) *format.Tensor {
	if i, ok := f.index[name]; ok {
		return f.Tensors[i]
	}
	return nil
}

// Close closes what Open opened. Mapped bytes must not be used after it.
func (f *File) Close() error {
	var errs []error
	for _, c := range f.closers {
		errs = append(errs, c.Close())
	}
	f.closers = nil
	return errors.Join(errs...)
}

func (f *File) readHead(c *cursor) (tensors, keys int64) {
	if p := c.take(len(magic), "magic"); p != nil && string(p) != magic {
		c.failf(0, "magic", "%q instead of %q", p, magic)
	}
	off := c.off
	f.Version = c.u32("version")
	// The byte order is not stated; a version that is small only when its bytes are swapped tells it.
	if f.Version != 0 && f.Version&0xffff == 0 {
		f.ByteOrder = binary.BigEndian
		c.order = f.ByteOrder
		f.Version = f.Version>>24 | f.Version>>8&0xff00
	}
	switch {
	case c.err != nil:
	case f.Version == 1:
		c.unsupportedf(off, "version", "GGUF version 1, which nothing has written since 2023: convert the model anew")
	case f.Version == 0 || f.Version > 3:
		c.failf(off, "version", "%d is not a version of GGUF that exists (2 and 3 do)", f.Version)
	}
	off = c.off
	tensors = int64(c.u64("number of tensors"))
	// The smallest tensor info has an empty name and no dimension, the smallest key one letter and one byte.
	if tensors < 0 || tensors > c.remaining()/24 {
		c.failf(off, "number of tensors", "%d do not fit into the %d bytes that remain", tensors, c.remaining())
	}
	off = c.off
	keys = int64(c.u64("number of metadata keys"))
	if keys < 0 || keys > c.remaining()/14 {
		c.failf(off, "number of metadata keys", "%d do not fit into the %d bytes that remain", keys, c.remaining())
	}
	return tensors, keys
}

func (f *File) readMeta(c *cursor, keys int64) {
	for i := int64(0); i < keys && c.err == nil; i++ {
		off := c.off
		c.what = fmt.Sprintf("metadata key %d of %d", i+1, keys)
		key := c.name("name")
		switch {
		case c.err != nil:
			return
		case key == "":
			c.failf(off, "name", "is empty")
			return
		case f.Meta.Has(key):
			c.failf(off, "name", "%q stands there twice", key)
			return
		}
		c.what = "metadata " + key
		off = c.off
		t := ValueType(c.u32("value type"))
		if t > Float64 {
			c.failf(off, "value type", "%d is no value type", uint32(t))
		}
		valueOff := c.off
		v := c.value(t)
		if c.err != nil {
			return
		}
		f.Meta.Set(key, v)
		if key == keyAlignment {
			f.setAlignment(c, valueOff, v)
		}
	}
}

func (f *File) setAlignment(c *cursor, off int64, v Value) {
	a, ok := v.(uint32)
	switch {
	case !ok:
		t, _, _ := TypeOf(v)
		c.failf(off, "", "is %v instead of u32", t)
	case a == 0 || a&(a-1) != 0:
		c.failf(off, "", "%d is not a power of two", a)
	}
	f.Alignment = int64(a)
}

// readInfos reads the tensor infos. The offsets it returns are those of the file,
// counted from the beginning of the data.
func (f *File) readInfos(c *cursor, tensors int64) (offsets []info) {
	if c.err != nil {
		return nil
	}
	f.Tensors = make([]*format.Tensor, 0, tensors)
	offsets = make([]info, 0, tensors)
	for i := int64(0); i < tensors; i++ {
		c.what = fmt.Sprintf("tensor %d of %d", i+1, tensors)
		t, in := f.readInfo(c)
		if c.err != nil {
			return nil
		}
		f.index[t.Name] = len(f.Tensors)
		f.Tensors = append(f.Tensors, t)
		offsets = append(offsets, in)
	}
	return offsets
}

// info is what a tensor info says about the place of the data.
type info struct {
	at     int64  // where the offset stands in the file
	offset uint64 // from the beginning of the data
}

func (f *File) readInfo(c *cursor) (*format.Tensor, info) {
	off := c.off
	name := c.name("name")
	if c.err != nil {
		return nil, info{}
	}
	_, twice := f.index[name]
	switch {
	case len(name) > maxNameBytes:
		c.failf(off, "name", "%q has %d bytes, more than %d", name, len(name), maxNameBytes)
	case strings.IndexByte(name, 0) >= 0:
		c.failf(off, "name", "%q has a zero byte", name)
	case twice:
		c.failf(off, "name", "%q stands there twice", name)
	}
	c.what = "tensor " + name
	off = c.off
	dims := c.u32("number of dimensions")
	if dims > maxDims {
		c.failf(off, "number of dimensions", "%d, more than %d", dims, maxDims)
	}
	if c.err != nil {
		return nil, info{}
	}
	shapeOff := c.off
	shape := make([]int64, dims)
	for i := range shape {
		shape[len(shape)-1-i] = int64(c.u64("dimension"))
	}
	typeOff := c.off
	typ := format.Type(c.u32("type"))
	in := info{at: c.off}
	in.offset = c.u64("offset")
	if c.err != nil {
		return nil, info{}
	}
	n, err := format.Elements(shape)
	if err == nil && n == math.MaxInt64 {
		err = fmt.Errorf("shape %v overflows", shape)
	}
	if err != nil {
		c.fail(shapeOff, "shape", err)
		return nil, info{}
	}
	t := &format.Tensor{Name: name, Type: typ, Shape: shape, Path: c.path}
	if !typ.GGML() {
		f.refuseType(c, typeOff, typ)
		return nil, info{}
	}
	if _, err = typ.RowBytes(t.Cols()); err == nil {
		t.Size, err = typ.RowBytes(n)
	}
	if err != nil {
		c.fail(shapeOff, "shape", err)
		return nil, info{}
	}
	return t, in
}

func (f *File) refuseType(c *cursor, off int64, typ format.Type) {
	if foreign, ok := format.ForeignTypeName(uint32(typ)); ok {
		c.unsupportedf(off, "type", "id %d is %s", uint32(typ), foreign)
	} else if info, ok := typ.Info(); ok && typ < 1000 {
		c.unsupportedf(off, "type", "%s is a type of activations, not of files", info.Name)
	} else {
		c.failf(off, "type", "no type has id %d", uint32(typ))
	}
}

// place checks the offsets: they must follow each other without a hole, each
// padded to the alignment, inside the file.
func (f *File) place(c *cursor, infos []info) error {
	data, err := pad(c.off, f.Alignment)
	if err != nil {
		return &format.CorruptError{Path: c.path, Offset: c.off, Field: keyAlignment, Err: err}
	}
	s := Shard{Path: c.path, Size: c.size, DataOffset: data, Tensors: len(f.Tensors)}
	var sum int64
	for i, t := range f.Tensors {
		c.what = "tensor " + t.Name
		if infos[i].offset != uint64(sum) {
			c.failf(infos[i].at, "offset", "%d where %d must stand, the end of the tensor before it", infos[i].offset, sum)
			return c.err
		}
		end, err := add(sum, t.Size)
		if err == nil && t.Size > 0 && (data > c.size || end > c.size-data) {
			err = fmt.Errorf("its %d bytes at %d end after the file, which has %d: %w", t.Size, data+sum, c.size, io.ErrUnexpectedEOF)
		}
		if err == nil {
			t.Source, t.Offset = c.r, data+sum
			sum, err = pad(end, f.Alignment)
		}
		if err != nil {
			c.fail(infos[i].at, "data", err)
			return c.err
		}
	}
	s.Trailing = max(c.size-data-sum, 0)
	f.Shards = []Shard{s}
	if f.ByteOrder == binary.BigEndian {
		return f.swapTensors(c)
	}
	return nil
}

// pad rounds n up to a multiple of alignment.
func pad(n, alignment int64) (int64, error) {
	n, err := add(n, alignment-1)
	return n &^ (alignment - 1), err
}

func add(a, b int64) (int64, error) {
	if a > math.MaxInt64-b {
		return 0, errors.New("the size overflows")
	}
	return a + b, nil
}

// dropSplitKeys removes from the metadata what only tells how the model was cut.
func (f *File) dropSplitKeys() {
	for _, kv := range slices.Clone(f.Meta.All()) {
		if strings.HasPrefix(kv.Key, "split.") {
			f.Meta.Delete(kv.Key)
		}
	}
}
