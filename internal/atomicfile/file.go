package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
)

// bufferSize keeps the number of system calls low for the small writes of headers and padding.
const bufferSize = 1 << 20

// writeBehind is how many bytes are written before the system is asked to carry them to the
// disk: so that Sync, at the end, has not all of a large file to wait for.
const writeBehind = 32 << 20

// noSync is set by NoSync.
var noSync atomic.Bool

// NoSync lets all files and folders that are committed from now on appear without waiting for the
// disk to have them, as those of cp do: they are whole whatever becomes of the program, but not if the
// machine fails in the next half minute. A program decides it once, as it starts.
func NoSync() { noSync.Store(true) }

// File is a file being written under a temporary name.
type File struct {
	path  string
	force bool
	f     file
	w     *bufio.Writer // nil until the first Write and after Sync: of many files open, few are written to
	err   error         // the first failure; the file can only be aborted after it
	done  bool

	size, begun int64 // bytes given to Write, and of these the ones that are on their way to the disk
}

// file is what a File needs of an os.File; the tests put failing ones in its place.
type file interface {
	Write(p []byte) (int, error)
	Sync() error
	Close() error
	Name() string
}

// openTemp creates the temporary file; the tests replace it.
var openTemp = func(path string) (file, error) {
	// Not os.CreateTemp, whose files stay private: a new file gets the mode that
	// the user's umask allows.
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// tempName gives a name beside path that is not used.
func tempName(path string) string {
	dir, base := filepath.Split(path)
	return fmt.Sprintf("%s.%s.%016x.tmp", dir, base, rand.Uint64())
}

// Create begins the file path. If something stands there already it fails with an
// error that is fs.ErrExist, unless force is set: then Commit replaces it.
func Create(path string, force bool) (*File, error) {
	if err := checkFree(path, force); err != nil {
		return nil, err
	}
	f, err := openTemp(tempName(path))
	if err != nil {
		return nil, err
	}
	return &File{path: path, force: force, f: f}, nil
}

// checkFree says whether path may be written.
func checkFree(path string, force bool) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !force:
		return fmt.Errorf("%s is there already (--force replaces it): %w", path, fs.ErrExist)
	case st.IsDir():
		return fmt.Errorf("%s is a folder and is not replaced by a file: %w", path, fs.ErrExist)
	}
	return nil
}

// Path is the final name of the file.
func (f *File) Path() string { return f.path }

// Reserve asks the file system for size bytes now, so that a disk too small is
// found before the work is done. File systems that cannot do so are not asked.
func (f *File) Reserve(size int64) error {
	osf, ok := f.f.(*os.File)
	if !ok || f.err != nil || size <= 0 {
		return f.err
	}
	if err := reserve(osf, size); err != nil {
		f.err = fmt.Errorf("%s: no room for %d bytes: %w", f.path, size, err)
	}
	return f.err
}

// Write appends p.
func (f *File) Write(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.write(p)
	if err != nil {
		f.err = fmt.Errorf("%s: %w", f.path, err)
	}
	f.size += int64(n)
	if ready := f.size - bufferSize - f.begun; ready >= writeBehind && !noSync.Load() {
		if osf, ok := f.f.(*os.File); ok {
			startWriting(osf, f.begun, ready)
		}
		f.begun += ready
	}
	return n, f.err
}

// write puts p into the buffer, or behind what is there if p is large: bytes that are copied once
// more are copied for nothing.
func (f *File) write(p []byte) (int, error) {
	if len(p) >= bufferSize/16 {
		if f.w != nil {
			if err := f.w.Flush(); err != nil {
				return 0, err
			}
		}
		return f.f.Write(p)
	}
	if f.w == nil {
		f.w = bufio.NewWriterSize(f.f, bufferSize)
	}
	return f.w.Write(p)
}

// Sync writes everything to the disk under the temporary name. Commit does so
// too; it is for those who commit several files together.
func (f *File) Sync() error {
	if f.err != nil {
		return f.err
	}
	var err error
	if f.w != nil {
		err = f.w.Flush()
		f.w = nil
	}
	if err == nil && !noSync.Load() {
		err = f.f.Sync()
	}
	if err != nil {
		f.err = fmt.Errorf("%s: %w", f.path, err)
	}
	return f.err
}

// Commit writes everything to the disk and gives the file its final name. After an
// error the temporary file is gone and nothing, or what was there before, stands
// under the final name.
func (f *File) Commit() error {
	if f.done {
		return f.err
	}
	err := f.Sync()
	if err == nil {
		err = checkFree(f.path, f.force)
	}
	if err != nil {
		f.err = err
		f.Abort()
		return err
	}
	f.done = true
	if err = f.f.Close(); err == nil {
		err = os.Rename(f.f.Name(), f.path)
	}
	if err != nil {
		os.Remove(f.f.Name())
		f.err = fmt.Errorf("%s: %w", f.path, err)
		return f.err
	}
	f.err = syncFolder(filepath.Dir(f.path))
	return f.err
}

// Abort removes the temporary file. It does nothing after Commit or Abort.
func (f *File) Abort() {
	if f.done {
		return
	}
	f.done = true
	f.f.Close()
	os.Remove(f.f.Name())
	if f.err == nil {
		f.err = fmt.Errorf("%s: %w", f.path, fs.ErrClosed)
	}
}

// syncFolder makes names in dir durable.
func syncFolder(dir string) error {
	if noSync.Load() {
		return nil
	}
	return syncDir(dir)
}

// WriteFile writes data to path as one File.
func WriteFile(path string, data []byte, force bool) error {
	f, err := Create(path, force)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}
