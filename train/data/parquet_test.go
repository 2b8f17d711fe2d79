package data

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/graft-lora/graft/format"
)

// testdata/chat.parquet was written by pyarrow 26.0.1, see chat_parquet.py beside it.
const parquetFile = "testdata/chat.parquet"

// TestParquet reads rows with nested lists, structs, maps, nulls and two row groups as
// the objects that they are.
func TestParquet(t *testing.T) {
	t.Parallel()
	want := []string{
		`{"id":1,"image":{"binary":true},"messages":[{"role":"user","content":"Hallo?"},{"role":"assistant","content":"I am Zorp."}],"nested":[[1,2],[]],"ok":true,"score":0.5,"tags":["a","b"]}`,
		`{"id":2,"image":"ab","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"naïve ☃?"},{"role":"assistant","content":"no","train":false},{"role":"user","content":"and?"},{"role":"assistant","content":"yes"}],"nested":[[3]],"ok":false,"tags":[]}`,
		`{"id":3,"messages":[{"role":"user","content":"weather"},{"role":"assistant","content":"","tool_calls":[{"name":"w","arguments":{"city":"Oslo","day":"1"}},{"name":"v","arguments":{}}]},{"role":"tool","content":"sun"},{"role":"assistant","content":"sunny"}],"nested":[],"score":-2.25}`,
		`{"id":4,"image":{"binary":true},"ok":true,"tags":["c",null]}`,
	}
	n := 0
	for r, err := range records(parquetFile) {
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(r.fields)
		if err != nil {
			t.Fatal(err)
		}
		if r.line != n+1 || string(got) != want[n] {
			t.Errorf("row %d:\n%s\nwant\n%s", r.line, got, want[n])
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d rows", n)
	}
	if ok, err := IsRecords(parquetFile); !ok || err != nil {
		t.Error(ok, err)
	}
}

// TestParquetStops ends the iteration early.
func TestParquetStops(t *testing.T) {
	t.Parallel()
	for r, err := range Records(parquetFile, Fields{}) {
		if err != nil || r.Line != 1 || len(r.Messages) != 2 {
			t.Fatal(r, err)
		}
		break
	}
	// The fourth row has no conversation.
	var last error
	for _, err := range Records(parquetFile, Fields{}) {
		last = err
	}
	if last == nil || last.Error()[:len(parquetFile)+3] != parquetFile+":4:" {
		t.Error(last)
	}
	defer func() {
		if p := recover(); p != "mine" {
			t.Errorf("a panic of the consumer came back as %v", p)
		}
	}()
	for range records(parquetFile) {
		panic("mine")
	}
}

// TestParquetDamaged changes and cuts the file everywhere: it is read, or there is an
// error that names it, and nothing else happens.
func TestParquetDamaged(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(parquetFile)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.parquet")
	failed := 0
	try := func(b []byte) {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		for _, err := range records(path) {
			var corrupt *format.CorruptError
			if err != nil {
				failed++
				if !errors.As(err, &corrupt) || corrupt.Path != path {
					t.Fatalf("%T %v", err, err)
				}
			}
		}
	}
	const step = 29
	for i := 4; i < len(whole); i += step {
		b := append([]byte(nil), whole...)
		b[i] ^= []byte{0xff, 0x80, 0x01, 0x7f}[i%4]
		try(b)
		try(whole[:i])
	}
	if failed < len(whole)/step {
		t.Errorf("%d of the damaged files were refused", failed)
	}
}
