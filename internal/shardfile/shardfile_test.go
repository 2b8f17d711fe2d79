package shardfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample is a layout of three files: two tensors with a gap, none, one.
func sample(dir string) ([]Shard, []Tensor, []Extra) {
	return []Shard{
			{Path: filepath.Join(dir, "1"), Header: []byte("head"), First: 0, Offsets: []int64{8, 16}, Size: 24},
			{Path: filepath.Join(dir, "2"), Header: []byte("none"), First: 2, Size: 4},
			{Path: filepath.Join(dir, "3"), Header: []byte("more"), First: 2, Offsets: []int64{4}, Size: 6},
		}, []Tensor{{"a", 3}, {"b", 8}, {"c", 2}},
		[]Extra{{Path: filepath.Join(dir, "index"), Data: []byte("{}")}}
}

func fill(w *Writer) error {
	for i, s := range []string{"aaa", "bbbbbbbb", "cc"} {
		if err := w.Begin(i); err != nil {
			return err
		}
		for len(s) > 0 { // in two pieces
			k := (len(s) + 1) / 2
			if _, err := w.Write([]byte(s[:k])); err != nil {
				return err
			}
			s = s[k:]
		}
	}
	return w.Close()
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shards, tensors, extras := sample(dir)
	w, err := Create(shards, tensors, extras, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); strings.Contains(" "+got, " 1") {
		t.Errorf("before Close there is %s", got)
	}
	if err := fill(w); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "1 2 3 index" {
		t.Errorf("the folder holds %s", got)
	}
	for name, want := range map[string]string{
		"1": "head\x00\x00\x00\x00aaa\x00\x00\x00\x00\x00bbbbbbbb", "2": "none", "3": "morecc", "index": "{}",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := Create(shards, tensors, extras, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("existing files: %v", err)
	}
	if w.Begin(0) == nil {
		t.Error("Begin after Close")
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("Write after Close")
	}
	if err := w.Close(); err != nil {
		t.Errorf("Close after Close: %v", err)
	}
}

// TestMisuse: what is incomplete, out of order or too long never gets a name.
func TestMisuse(t *testing.T) {
	t.Parallel()
	for what, use := range map[string]func(w *Writer) error{
		"nothing":         func(w *Writer) error { return w.Close() },
		"order":           func(w *Writer) error { return w.Begin(1) },
		"write first":     func(w *Writer) error { _, err := w.Write([]byte("x")); return err },
		"too long":        func(w *Writer) error { w.Begin(0); _, err := w.Write([]byte("aaaa")); return err },
		"short, next":     func(w *Writer) error { w.Begin(0); w.Write([]byte("a")); return w.Begin(1) },
		"short, close":    func(w *Writer) error { w.Begin(0); w.Write([]byte("a")); return w.Close() },
		"one missing":     func(w *Writer) error { w.Begin(0); w.Write([]byte("aaa")); return w.Close() },
		"after the last":  func(w *Writer) error { w.next = 3; return w.Begin(3) },
		"aborted":         func(w *Writer) error { w.Abort(); return w.Close() },
		"error is sticky": func(w *Writer) error { w.Begin(2); return fill(w) },
	} {
		dir := t.TempDir()
		w, err := createSample(dir)
		if err != nil {
			t.Fatal(err)
		}
		if use(w) == nil {
			t.Errorf("%s: no error", what)
		}
		if w.Close() == nil {
			t.Errorf("%s: Close found nothing", what)
		}
		w.Abort()
		if got := names(t, dir); got != "" {
			t.Errorf("%s: %s is left", what, got)
		}
	}
}

// createSample begins the sample.
func createSample(dir string) (*Writer, error) {
	shards, tensors, extras := sample(dir)
	return Create(shards, tensors, extras, false)
}

// TestLastFileFails: the first file cannot get its name any more, so none keeps its own.
func TestLastFileFails(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"1", "2", "3", "index"} {
		dir := t.TempDir()
		w, err := createSample(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("another program's"), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := fill(w); !errors.Is(err, fs.ErrExist) {
			t.Errorf("file %s: error %v", name, err)
		}
		if got := names(t, dir); got != name {
			t.Errorf("file %s: %s is left", name, got)
		}
	}
}
