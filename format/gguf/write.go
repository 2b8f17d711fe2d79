package gguf

import (
	"errors"
	"fmt"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/atomicfile"
)

// Writer writes the tensors of a plan to one or several files. It is a
// [format.Sink]. The files get their names when Close has found all of them
// complete and has synced them; the first shard, without which nothing can be
// loaded, gets its name last.
type Writer struct {
	plan   *format.Plan
	layout *Layout

	shard int              // index of the shard being written
	file  *atomicfile.File // that shard
	files []*atomicfile.File
	next  int   // tensor that Begin must name next
	left  int64 // bytes of the present tensor not yet written
	off   int64 // bytes of the present file
	err   error // the first failure
	done  bool
}

// Create begins the files of plan under path, with the metadata meta; see
// [LayoutOf]. It fails if one of them exists and opt does not say Force.
func Create(path string, meta *Meta, plan *format.Plan, opt WriteOptions) (*Writer, error) {
	l, err := LayoutOf(path, meta, plan, opt)
	if err != nil {
		return nil, err
	}
	w := &Writer{plan: plan, layout: l, shard: -1}
	for _, s := range l.Shards {
		f, err := atomicfile.Create(s.Path, opt.Force)
		if err != nil {
			w.Abort()
			return nil, err
		}
		w.files = append(w.files, f)
	}
	for i, s := range l.Shards {
		if err := w.files[i].Reserve(s.Size); err != nil {
			w.Abort()
			return nil, err
		}
	}
	if err := w.nextShard(); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// Layout is where everything goes.
func (w *Writer) Layout() *Layout { return w.layout }

// nextShard ends the present file and writes the header of the next one.
func (w *Writer) nextShard() error {
	if w.shard >= 0 {
		if err := w.padTo(w.layout.Shards[w.shard].Size); err != nil {
			return err
		}
		if err := w.file.Sync(); err != nil {
			return err
		}
	}
	w.shard++
	w.file, w.off = w.files[w.shard], 0
	return w.write(w.layout.Shards[w.shard].Header)
}

func (w *Writer) write(p []byte) error {
	n, err := w.file.Write(p)
	w.off += int64(n)
	return err
}

// padTo writes zeros until the file has off bytes; never more than an alignment.
func (w *Writer) padTo(off int64) error {
	return w.write(make([]byte, off-w.off))
}

// fail remembers the first failure.
func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return w.err
}

// Begin starts the i-th tensor of the plan. Tensors come in order, each complete.
func (w *Writer) Begin(i int) error {
	switch {
	case w.err != nil:
		return w.err
	case w.done:
		return errors.New("gguf: Begin after Close")
	case i != w.next || i >= len(w.plan.Outputs):
		return w.fail(fmt.Errorf("gguf: tensor %d begun where %d is next", i, w.next))
	case w.left != 0:
		return w.fail(fmt.Errorf("gguf: tensor %s: %d bytes are missing", w.plan.Outputs[i-1].Name, w.left))
	}
	for w.shard+1 < len(w.files) && i >= w.layout.Shards[w.shard].First+len(w.layout.Shards[w.shard].Offsets) {
		if err := w.nextShard(); err != nil {
			return w.fail(err)
		}
	}
	s := w.layout.Shards[w.shard]
	if err := w.padTo(s.Offsets[i-s.First]); err != nil {
		return w.fail(err)
	}
	w.next, w.left = i+1, w.plan.Outputs[i].Size()
	return nil
}

// Write appends bytes of the tensor begun last.
func (w *Writer) Write(p []byte) (int, error) {
	switch {
	case w.err != nil:
		return 0, w.err
	case w.done:
		return 0, errors.New("gguf: Write after Close")
	case int64(len(p)) > w.left:
		return 0, w.fail(fmt.Errorf("gguf: %d bytes more than tensor %d has", int64(len(p))-w.left, w.next-1))
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
	w.done = true
	for i := len(w.files) - 1; i >= 0; i-- {
		if err := w.files[i].Commit(); err != nil {
			w.fail(err)
			for _, f := range w.files[:i] {
				f.Abort()
			}
			return w.err
		}
	}
	return nil
}

func (w *Writer) finish() error {
	switch {
	case w.err != nil:
		return w.err
	case w.left != 0:
		return fmt.Errorf("gguf: tensor %s: %d bytes are missing", w.plan.Outputs[w.next-1].Name, w.left)
	case w.next != len(w.plan.Outputs):
		return fmt.Errorf("gguf: tensor %s is missing", w.plan.Outputs[w.next].Name)
	}
	for w.shard+1 < len(w.files) {
		if err := w.nextShard(); err != nil {
			return err
		}
	}
	if err := w.padTo(w.layout.Shards[w.shard].Size); err != nil {
		return err
	}
	return w.file.Sync()
}

// Abort removes the temporary files. It does nothing after Close.
func (w *Writer) Abort() {
	if w.done {
		return
	}
	w.done = true
	for _, f := range w.files {
		f.Abort()
	}
	if w.err == nil {
		w.err = errors.New("gguf: writing was aborted")
	}
}
