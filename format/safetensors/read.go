package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/mmap"
)

const (
	maxHeader   = 100_000_000 // bytes, as in the reference
	metadataKey = "__metadata__"
)

// File is an open safetensors file, or all files of a sharded folder.
type File struct {
	// Tensors stand in the order of their data, file after file.
	Tensors []*format.Tensor
	// Metadata is what stands under __metadata__ (of several files, what the first
	// one has), nil if there is none; MetadataKeys are its keys in file order.
	Metadata     map[string]string
	MetadataKeys []string
	// Shards are the files, one or more.
	Shards []Shard

	index   map[string]int
	closers []io.Closer
}

// Shard is one file.
type Shard struct {
	Path       string
	Size       int64 // bytes of the file
	DataOffset int64 // where tensor data begins
	Tensors    int   // tensors in it
}

// Open maps the file at path and reads its header.
func Open(path string) (*File, error) {
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

// NewReader reads the header of a file of size bytes, called path in errors, from
// r. r stays the caller's and must remain open; it is used by several goroutines
// at once. Tensors are mapped if r is a [format.Mapper].
func NewReader(r io.ReaderAt, size int64, path string) (*File, error) {
	corrupt := func(off int64, field, msg string, args ...any) error {
		return &format.CorruptError{Path: path, Offset: off, Field: field, Err: fmt.Errorf(msg, args...)}
	}
	if size < 8 {
		return nil, corrupt(0, "header length", "the file has %d bytes: %w", size, io.ErrUnexpectedEOF)
	}
	var head [8]byte
	if err := readFull(r, head[:], 0, path); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(head[:])
	switch {
	case n > maxHeader:
		return nil, corrupt(0, "header length", "%d bytes exceed %d", n, maxHeader)
	case n > uint64(size-8):
		return nil, corrupt(0, "header length", "%d bytes, %d remain: %w", n, size-8, io.ErrUnexpectedEOF)
	}
	header := make([]byte, n)
	if err := readFull(r, header, 8, path); err != nil {
		return nil, err
	}
	h := &headerReader{scanner: scanner{p: header}, f: &File{index: map[string]int{}}, path: path}
	h.read()
	if h.err != nil {
		var unsupported *format.UnsupportedError
		if errors.As(h.err, &unsupported) {
			return nil, h.err
		}
		return nil, corrupt(8+int64(h.errAt), "header", "%w", h.err)
	}
	data := 8 + int64(n)
	if err := h.place(r, size-data, data); err != nil {
		return nil, err
	}
	h.f.Shards = []Shard{{Path: path, Size: size, DataOffset: data, Tensors: len(h.f.Tensors)}}
	return h.f, nil
}

func readFull(r io.ReaderAt, p []byte, off int64, path string) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return &format.CorruptError{Path: path, Offset: off + int64(n), Err: io.ErrUnexpectedEOF}
	}
	return fmt.Errorf("%s: read at byte %d: %w", path, off, err)
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

// headerReader reads a header.
type headerReader struct {
	scanner
	f       *File
	path    string
	entries []entry
}

// entry is a tensor as the header describes it.
type entry struct {
	t          *format.Tensor
	begin, end int64
	at         int // where its name stands in the header
}

func (h *headerReader) read() {
	if !utf8.Valid(h.p) {
		h.fail(0, errors.New("is not UTF-8"))
		return
	}
	seen := map[string]bool{}
	h.object(func(name string, at int) {
		switch {
		case seen[name]:
			h.failf(at, "%q stands there twice", name)
		case name == metadataKey:
			h.metadata()
		default:
			h.tensor(name, at)
		}
		seen[name] = true
	})
	h.end()
}

func (h *headerReader) metadata() {
	if h.peek(); h.word("null") {
		return
	}
	h.f.Metadata = map[string]string{}
	h.object(func(key string, at int) {
		if _, twice := h.f.Metadata[key]; twice {
			h.failf(at, "metadata %q stands there twice", key)
			return
		}
		h.peek()
		h.f.Metadata[key] = h.str()
		h.f.MetadataKeys = append(h.f.MetadataKeys, key)
	})
}

func (h *headerReader) tensor(name string, at int) {
	e := entry{t: &format.Tensor{Name: name, Path: h.path, Shape: []int64{}}, at: at}
	var dtype, shape, offsets int // where they stand, 0 if they do not
	once := func(p *int, field string, at int) {
		if *p != 0 {
			h.failf(at, "tensor %q: %s stands there twice", name, field)
		}
		*p = at
	}
	h.object(func(field string, at int) {
		switch field {
		case "dtype":
			once(&dtype, field, at)
			e.t.Type = h.dtype(name)
		case "shape":
			once(&shape, field, at)
			h.array(func() { e.t.Shape = append(e.t.Shape, h.integer()) })
		case "data_offsets":
			once(&offsets, field, at)
			var v []int64
			h.array(func() {
				if v = append(v, h.integer()); len(v) > 2 {
					h.failf(at, "tensor %q: more than two data_offsets", name)
				}
			})
			if len(v) != 2 {
				h.failf(at, "tensor %q: %d data_offsets instead of two", name, len(v))
				return
			}
			e.begin, e.end = v[0], v[1]
		default: // as the reference does: later versions may say more
			h.skip()
		}
	})
	if h.err == nil && (dtype == 0 || shape == 0 || offsets == 0) {
		h.failf(at, "tensor %q lacks one of dtype, shape and data_offsets", name)
	}
	if h.err != nil {
		return
	}
	n, err := format.Elements(e.t.Shape)
	if err == nil {
		e.t.Size, err = e.t.Type.RowBytes(n)
	}
	if err != nil {
		h.failf(shape, "tensor %q: %w", name, err)
		return
	}
	h.entries = append(h.entries, e)
}

func (h *headerReader) dtype(name string) format.Type {
	h.peek()
	at := h.pos
	s := h.str()
	t, ok := typeByName[s]
	if !ok && h.err == nil {
		h.fail(at, format.Unsupported("%s, byte %d: tensor %q: dtype %q", h.path, 8+at, name, s))
	}
	return t
}

// place puts the tensors in the order of their data and checks that they cover
// the size bytes of it exactly.
func (h *headerReader) place(r io.ReaderAt, size, data int64) error {
	slices.SortStableFunc(h.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	var sum int64
	for _, e := range h.entries {
		var err error
		switch {
		case e.begin != sum:
			err = fmt.Errorf("data_offsets begin at %d where %d must stand, the end of the tensor before it", e.begin, sum)
		case e.end < e.begin || e.end-e.begin != e.t.Size:
			err = fmt.Errorf("data_offsets [%d, %d] for %d bytes of %v %v", e.begin, e.end, e.t.Size, e.t.Type, e.t.Shape)
		case e.end > size:
			err = fmt.Errorf("data_offsets end at %d, the data has %d bytes: %w", e.end, size, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return &format.CorruptError{Path: h.path, Offset: 8 + int64(e.at), Field: "tensor " + e.t.Name, Err: err}
		}
		sum = e.end
		e.t.Source, e.t.Offset = r, data+e.begin
		h.f.index[e.t.Name] = len(h.f.Tensors)
		h.f.Tensors = append(h.f.Tensors, e.t)
	}
	if sum != size {
		return &format.CorruptError{Path: h.path, Offset: data + sum, Field: "data",
			Err: fmt.Errorf("%d bytes belong to no tensor", size-sum)}
	}
	return nil
}
