package mmap

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// Advice tells the system how a part of a file is going to be read.
type Advice int

// The advices. They never change what is read.
const (
	Normal     Advice = iota
	Sequential        // read ahead generously, forget early
	WillNeed          // start reading now
	DontNeed          // the pages can be dropped; they are read again when needed
)

// ErrFault is the error of [Guard] for mapped bytes that are no longer there.
var ErrFault = errors.New("mapped file cannot be read here (truncated by another program, or a disk error)")

// File is a file open for reading, mapped where the system allows it.
type File struct {
	f    *os.File
	data []byte // nil if not mapped
	size int64

	once sync.Once
	err  error // of Close
}

// Open opens a regular file and maps it. A file that cannot be mapped is still
// opened: it is read through ReadAt only.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	m := &File{f: f, size: st.Size()}
	switch {
	case m.size == 0:
		m.data = []byte{}
	case int64(int(m.size)) == m.size:
		m.data = mapFile(f, int(m.size))
	}
	return m, nil
}

// Size is the size of the file when it was opened, in bytes.
func (m *File) Size() int64 { return m.size }

// ReadAt reads from the file itself, not from the mapping.
func (m *File) ReadAt(p []byte, off int64) (int, error) { return m.f.ReadAt(p, off) }

// Map returns the n bytes at off without copying: valid until Close, not to be
// written to. It returns nil if the file is not mapped or the range is not inside it.
func (m *File) Map(off, n int64) []byte {
	if m.data == nil || off < 0 || n < 0 || off > m.size || n > m.size-off {
		return nil
	}
	return m.data[off : off+n : off+n]
}

// Advise tells the system how the n bytes at off are going to be read. It does
// nothing where it cannot.
func (m *File) Advise(off, n int64, a Advice) {
	if m.data == nil || off < 0 || n <= 0 || off >= m.size {
		return
	}
	end := min(off+n, m.size)
	page := int64(os.Getpagesize())
	begin := off / page * page // the system wants whole pages
	if a == DontNeed {         // and must not drop what a neighbour is using
		begin = (off + page - 1) / page * page
		if end != m.size {
			end = end / page * page
		}
	}
	if begin < end {
		advise(m.data[begin:end], a)
	}
}

// Close unmaps and closes the file. Slices from Map must not be used any more.
func (m *File) Close() error {
	m.once.Do(func() {
		if len(m.data) > 0 {
			m.err = unmap(m.data)
		}
		m.data = nil
		if err := m.f.Close(); m.err == nil {
			m.err = err
		}
	})
	return m.err
}

// Guard runs fn, which reads mapped bytes in its own goroutine, and returns
// [ErrFault] instead of crashing the program if the system cannot supply them.
func Guard(fn func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		switch e := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			err = ErrFault
		default:
			panic(e)
		}
	}()
	return fn()
}
