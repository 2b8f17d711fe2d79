// Package shardfile writes tensors one after another into one or several files
// whose layout is known beforehand. The writers of GGUF and of safetensors files
// are layouts given to it.
//
// The files appear under their names when Close has found all of them complete and
// on the disk: the later ones first, then the first one, then the small files that
// name the others (an index), so that a model of several files can be opened only
// when all of it is there. A Writer is used by one goroutine.
package shardfile

import (
	"errors"
	"fmt"
	"os"

	"github.com/graft-lora/graft/internal/atomicfile"
)

// Shard is the layout of one file. Tensors stand in it in order, with zeros
// between them where their offsets leave room.
type Shard struct {
	Path    string
	Header  []byte  // everything before the data
	First   int     // number of the first tensor, counted over all files
	Offsets []int64 // where each tensor begins in the file
	Size    int64   // bytes of the file
}

// Tensor is what is to be written.
type Tensor struct {
	Name string
	Size int64
}

// Extra is a small file that is written with the others.
type Extra struct {
	Path string
	Data []byte
}

// Writer writes tensors to files; it has the methods of format.Sink.
type Writer struct {
	shards  []Shard
	tensors []Tensor
	files   []*atomicfile.File // of the shards, then of the extras

	shard int              // the one being written
	file  *atomicfile.File // its file
	off   int64            // bytes written to it
	named []string         // files that have their final names
	next  int              // tensor that Begin must name next
	left  int64            // bytes of the present tensor not yet written
	err   error            // the first failure
	done  bool
}

// Create begins the files. The shards together hold all tensors. It fails, and
// leaves nothing behind, if one of the files exists and force is not set, or if
// the disk is known to be too small.
func Create(shards []Shard, tensors []Tensor, extras []Extra, force bool) (*Writer, error) {
	w := &Writer{shards: shards, tensors: tensors, shard: -1}
	if err := w.create(extras, force); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

func (w *Writer) create(extras []Extra, force bool) error {
	for _, s := range w.shards {
		f, err := atomicfile.Create(s.Path, force)
		if err != nil {
			return err
		}
		w.files = append(w.files, f)
	}
	for i, s := range w.shards {
		if err := w.files[i].Reserve(s.Size); err != nil {
			return err
		}
	}
	for _, e := range extras {
		f, err := atomicfile.Create(e.Path, force)
		if err != nil {
			return err
		}
		w.files = append(w.files, f)
		if _, err := f.Write(e.Data); err != nil {
			return err
		}
	}
	return w.nextShard()
}

// nextShard ends the present file and writes the header of the next one.
func (w *Writer) nextShard() error {
	if w.shard >= 0 {
		if err := w.endShard(); err != nil {
			return err
		}
	}
	w.shard++
	w.file, w.off = w.files[w.shard], 0
	return w.write(w.shards[w.shard].Header)
}

func (w *Writer) endShard() error {
	if err := w.padTo(w.shards[w.shard].Size); err != nil {
		return err
	}
	return w.file.Sync()
}

func (w *Writer) write(p []byte) error {
	n, err := w.file.Write(p)
	w.off += int64(n)
	return err
}

// padTo writes zeros until the file has off bytes, never more than an alignment.
func (w *Writer) padTo(off int64) error { return w.write(make([]byte, off-w.off)) }

func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return w.err
}

// Begin starts tensor i. Tensors come in order, each complete.
func (w *Writer) Begin(i int) error {
	switch {
	case w.done && w.err == nil:
		return errors.New("a tensor is begun after the files were closed")
	case w.err != nil:
		return w.err
	case i != w.next || i >= len(w.tensors):
		return w.fail(fmt.Errorf("tensor %d is begun where %d is next", i, w.next))
	case w.left != 0:
		return w.fail(w.missing())
	}
	for i >= w.shards[w.shard].First+len(w.shards[w.shard].Offsets) {
		if err := w.nextShard(); err != nil {
			return w.fail(err)
		}
	}
	s := w.shards[w.shard]
	if err := w.padTo(s.Offsets[i-s.First]); err != nil {
		return w.fail(err)
	}
	w.next, w.left = i+1, w.tensors[i].Size
	return nil
}

func (w *Writer) missing() error {
	return fmt.Errorf("tensor %s: %d bytes are missing", w.tensors[w.next-1].Name, w.left)
}

// Write appends bytes of the tensor begun last.
func (w *Writer) Write(p []byte) (int, error) {
	switch {
	case w.done && w.err == nil:
		return 0, errors.New("a tensor is written after the files were closed")
	case w.err != nil:
		return 0, w.err
	case int64(len(p)) > w.left:
		return 0, w.fail(fmt.Errorf("%d bytes more than the tensor has (tensor %d)", int64(len(p))-w.left, w.next-1))
	}
	n, err := w.file.Write(p)
	w.off += int64(n)
	w.left -= int64(n)
	if err != nil {
		return n, w.fail(err)
	}
	return n, nil
}

// Close checks that every tensor is there, syncs the files and gives them their
// names. After an error the temporary files are gone. Close after Close or Abort
// returns what the first one found.
func (w *Writer) Close() error {
	if w.done {
		return w.err
	}
	if err := w.finish(); err != nil {
		w.fail(err)
		w.Abort()
		return w.err
	}
	n := len(w.shards)
	for i := n - 1; i >= 0 && w.err == nil; i-- {
		w.commit(w.files[i])
	}
	for i := n; i < len(w.files) && w.err == nil; i++ {
		w.commit(w.files[i])
	}
	w.abort() // what an error has left; nothing otherwise
	return w.err
}

// commit gives f its name; if that fails, those that have theirs already lose them,
// since they are worth nothing without the others.
func (w *Writer) commit(f *atomicfile.File) {
	if w.err = f.Commit(); w.err == nil {
		w.named = append(w.named, f.Path())
		return
	}
	for _, path := range w.named {
		os.Remove(path)
	}
}

func (w *Writer) finish() error {
	switch {
	case w.err != nil:
		return w.err
	case w.left != 0:
		return w.missing()
	case w.next != len(w.tensors):
		return fmt.Errorf("tensor %s is missing", w.tensors[w.next].Name)
	}
	for w.shard+1 < len(w.shards) {
		if err := w.nextShard(); err != nil {
			return err
		}
	}
	if err := w.endShard(); err != nil {
		return err
	}
	for _, f := range w.files[len(w.shards):] {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// Abort removes the temporary files. It does nothing after Close.
func (w *Writer) Abort() {
	if w.done {
		return
	}
	w.abort()
	w.fail(errors.New("the files were given up"))
}

func (w *Writer) abort() {
	w.done = true
	for _, f := range w.files {
		f.Abort()
	}
}
