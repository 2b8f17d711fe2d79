package mmap

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func create(t *testing.T, size int) (path string, data []byte) {
	t.Helper()
	data = make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7)
	}
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func TestMap(t *testing.T) {
	t.Parallel()
	path, data := create(t, 3*os.Getpagesize()+17)
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(len(data))
	if m.Size() != n {
		t.Errorf("size %d, want %d", m.Size(), n)
	}
	for _, r := range [][2]int64{{0, n}, {5, 0}, {n, 0}, {4097, 100}, {n - 1, 1}} {
		for a := Normal; a <= DontNeed; a++ {
			m.Advise(r[0], r[1], a)
		}
		if got := m.Map(r[0], r[1]); got == nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
			t.Errorf("Map(%d, %d) is not the file's bytes", r[0], r[1])
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, n + 1}, {n, 1}, {n + 1, 0}, {1, 1<<63 - 1}} {
		m.Advise(r[0], r[1], WillNeed)
		if m.Map(r[0], r[1]) != nil {
			t.Errorf("Map(%d, %d) is outside the file", r[0], r[1])
		}
	}
	got := make([]byte, 10)
	if _, err := m.ReadAt(got, 4090); err != nil || !bytes.Equal(got, data[4090:4100]) {
		t.Errorf("ReadAt: %v", err)
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if m.Map(0, 1) != nil {
		t.Error("Map after Close")
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	path, _ := create(t, 0)
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Size() != 0 || m.Map(0, 0) == nil || m.Map(0, 1) != nil {
		t.Error("an empty file has an empty mapping")
	}
}

func TestNotRegular(t *testing.T) {
	t.Parallel()
	if m, err := Open(t.TempDir()); err == nil {
		m.Close()
		t.Error("a folder was mapped")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
}

// TestTruncated cuts a mapped file and reads what is gone.
func TestTruncated(t *testing.T) {
	t.Parallel()
	path, _ := create(t, 4*os.Getpagesize())
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p := m.Map(0, m.Size())
	if p == nil {
		t.Skip("files are not mapped on this system")
	}
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	sum := 0
	err = Guard(func() error {
		for _, b := range p {
			sum += int(b)
		}
		return nil
	})
	if !errors.Is(err, ErrFault) {
		t.Errorf("error %v after %d", err, sum)
	}
	if err := Guard(func() error { return os.ErrInvalid }); err != os.ErrInvalid {
		t.Errorf("an error of the function itself: %v", err)
	}
}

// TestGuardPanics: what is not a fault of memory stays a panic.
func TestGuardPanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("the panic was swallowed")
		}
	}()
	_ = Guard(func() error { var p *int; *p = 1; return nil })
}
