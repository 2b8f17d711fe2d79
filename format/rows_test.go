package format

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/internal/mmap"
)

// mappedTensor maps a file of n bytes as one tensor of two rows. The type is one
// whose codec is the test's own.
func mappedTensor(t *testing.T, n int) *Tensor {
	t.Helper()
	codecs[I8] = Codec{Decode: func(dst []float32, src []byte) {
		for i, b := range src {
			dst[i] = float32(int8(b))
		}
	}}
	path := filepath.Join(t.TempDir(), "file")
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i % 101)
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := mmap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return &Tensor{Name: "x", Type: I8, Shape: []int64{2, int64(n / 2)}, Path: path, Source: m, Size: int64(n)}
}

func TestRelease(t *testing.T) {
	x := mappedTensor(t, 10*os.Getpagesize())
	rows, err := StoredRows(x)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOutput("x", I8, x.Shape, rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // what was given back is read again
		got := make([]byte, x.Size)
		if err := o.Fill(got, 0); err != nil {
			t.Fatal(err)
		}
		values := make([]float32, x.Size)
		if err := rows.ReadRows(values, 0); err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i] != byte(i%101) || values[i] != float32(i%101) {
				t.Fatalf("element %d is %d and %v", i, got[i], values[i])
			}
		}
		if err := o.Finish(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTruncatedUnderMap: another program cuts the file while it is being read.
func TestTruncatedUnderMap(t *testing.T) {
	x := mappedTensor(t, 10*os.Getpagesize())
	rows, err := StoredRows(x)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(x.Path, 100); err != nil {
		t.Fatal(err)
	}
	if err := rows.ReadRows(make([]float32, x.Size), 0); err == nil || x.Bytes() != nil && !errors.Is(err, mmap.ErrFault) {
		t.Errorf("ReadRows: %v", err)
	}
	if err := rows.(RawReader).ReadRaw(make([]byte, x.Size), 0); err == nil {
		t.Error("ReadRaw read what is gone")
	}
}
