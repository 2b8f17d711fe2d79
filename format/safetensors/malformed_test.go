package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	oracle "github.com/nlpodyssey/safetensors"

	"github.com/graft-lora/graft/format"
)

// file makes a file of a header and n bytes of data.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range n {
		b = append(b, byte(i))
	}
	return b
}

func read(b []byte) (*File, error) {
	return NewReader(bytes.NewReader(b), int64(len(b)), "test.safetensors")
}

// tensor is an entry of a header.
func tensor(name, dtype, shape string, begin, end int64) string {
	return fmt.Sprintf(`"%s":{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, name, dtype, shape, begin, end)
}

// TestMalformed has the cases of the reference's tests and of its attack scripts,
// and those where JSON parsers disagree.
func TestMalformed(t *testing.T) {
	t.Parallel()
	f32 := func(name string, begin, end int64) string { return tensor(name, "F32", "[2]", begin, end) }
	huge := binary.LittleEndian.AppendUint64(nil, 100_000_001)
	for _, c := range []struct {
		name string
		b    []byte
		at   int64
		want string
	}{
		{"empty", nil, 0, "header length"},
		{"seven bytes", make([]byte, 7), 0, "header length"},
		{"no header", binary.LittleEndian.AppendUint64(nil, 60), 0, "60 bytes"},
		{"header of zero bytes", make([]byte, 8), 8, "JSON ends"},
		{"huge header", append(huge, '{'), 0, "exceed"},
		{"largest length", bytes.Repeat([]byte{0xff}, 16), 0, "exceed"},
		{"not UTF-8", file("\xff", 0), 8, "UTF-8"},
		{"open brace", file("{", 0), 9, "JSON ends"},
		{"null", file("null", 0), 8, "'n'"},
		{"list", file("[]", 0), 8, "'['"},
		{"after the end", file(`{} x`, 0), 11, "after the end"},
		{"second object", file(`{}{}`, 0), 10, "after the end"},
		{"comma at the end", file(`{`+f32("a", 0, 8)+`,}`, 8), -1, ""},
		{"missing data", file(`{`+f32("a", 0, 8)+`}`, 7), 9, "end at 8"},
		{"extra data", file(`{`+f32("a", 0, 8)+`}`, 9), 70, "1 bytes belong to no tensor"},
		{"data but no tensor", file(`{}`, 1), 10, "1 bytes belong to no tensor"},
		{"too few bytes", file(`{`+f32("a", 0, 4)+`}`, 4), 9, "8 bytes"},
		{"backwards", file(`{`+f32("a", 8, 0)+`}`, 8), 9, "begin at 8"},
		{"hole at the front", file(`{`+f32("a", 8, 16)+`}`, 16), 9, "begin at 8"},
		{"hole", file(`{`+f32("a", 0, 8)+`,`+f32("b", 16, 24)+`}`, 24), 62, "begin at 16"},
		{"overlap", file(`{`+f32("a", 0, 8)+`,`+f32("b", 4, 12)+`}`, 12), 62, "begin at 4"},
		{"same range", file(`{`+f32("a", 0, 8)+`,`+f32("b", 0, 8)+`}`, 8), 62, "begin at 0"},
		{"shape overflows", file(`{`+tensor("a", "F32", "[4294967296,4294967296]", 0, 8)+`}`, 8), -1, "overflows"},
		{"size overflows", file(`{`+tensor("a", "F32", "[4611686018427387903]", 0, 8)+`}`, 8), -1, "overflow"},
		{"dimension over int64", file(`{`+tensor("a", "F32", "[18446744073709551615]", 0, 8)+`}`, 8), -1, "whole number"},
		{"negative dimension", file(`{`+tensor("a", "F32", "[-2]", 0, 8)+`}`, 8), -1, "whole number"},
		{"dimension of 2.0", file(`{`+tensor("a", "F32", "[2.0]", 0, 8)+`}`, 8), -1, "whole number"},
		{"dimension of 2e0", file(`{`+tensor("a", "F32", "[2e0]", 0, 8)+`}`, 8), -1, "whole number"},
		{"dimension of 02", file(`{`+tensor("a", "F32", "[02]", 0, 8)+`}`, 8), -1, "wanted"},
		{"dimension in quotes", file(`{`+tensor("a", "F32", `["2"]`, 0, 8)+`}`, 8), -1, "digit"},
		{"odd number of F4", file(`{`+tensor("a", "F4", "[3]", 0, 1)+`}`, 1), -1, "whole bytes"},
		{"two F6", file(`{`+tensor("a", "F6_E2M3", "[2]", 0, 1)+`}`, 1), -1, "whole bytes"},
		{"three offsets", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}`, 8), -1, "more than two"},
		{"one offset", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[8]}}`, 8), -1, "1 data_offsets"},
		{"no dtype", file(`{"a":{"shape":[2],"data_offsets":[0,8]}}`, 8), 9, "lacks"},
		{"no shape", file(`{"a":{"dtype":"F32","data_offsets":[0,8]}}`, 8), 9, "lacks"},
		{"no offsets", file(`{"a":{"dtype":"F32","shape":[2]}}`, 8), 9, "lacks"},
		{"null tensor", file(`{"a":null}`, 0), -1, "'n'"},
		{"duplicate tensor", file(`{`+f32("a", 0, 8)+`,`+f32("a", 8, 16)+`}`, 16), 62, "twice"},
		{"duplicate by escape", file(`{`+f32("a", 0, 8)+`,`+f32(`\u0061`, 8, 16)+`}`, 16), 62, "twice"},
		{"duplicate dtype", file(`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), -1, "twice"},
		{"duplicate shape", file(`{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}`, 8), -1, "twice"},
		{"duplicate offsets", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]}}`, 8), -1, "twice"},
		{"duplicate metadata", file(`{"__metadata__":{},"__metadata__":{}}`, 0), -1, "twice"},
		{"duplicate metadata key", file(`{"__metadata__":{"k":"1","k":"2"}}`, 0), -1, "twice"},
		{"metadata number", file(`{"__metadata__":{"k":1}}`, 0), -1, "'1'"},
		{"metadata is a tensor", file(`{`+f32("__metadata__", 0, 8)+`}`, 8), -1, ""},
		{"control character", file("{\"a\nb\":{}}", 0), -1, "control"},
		{"wrong escape", file(`{"a\x":{}}`, 0), -1, "escape"},
		{"half a surrogate pair", file(`{`+f32(`\ud800`, 0, 8)+`}`, 8), -1, "escape"},
		{"two high halves", file(`{`+f32(`\ud800\ud800`, 0, 8)+`}`, 8), -1, "escape"},
		{"nested too deeply", file(`{"a":{"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`}}`, 0), -1, "deeply"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := read(c.b)
			var corrupt *format.CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("error %v", err)
			}
			if c.at >= 0 && corrupt.Offset != c.at || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want byte %d and %q", err, c.at, c.want)
			}
		})
	}
	var unsupported *format.UnsupportedError
	if _, err := read(file(`{`+tensor("a", "F5", "[2]", 0, 8)+`}`, 8)); !errors.As(err, &unsupported) {
		t.Errorf("an unknown dtype: %v", err)
	}
}

// TestMustPass has the odd files that the reference accepts.
func TestMustPass(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		b     []byte
		names string // in order
	}{
		"nothing":            {file(`{}`, 0), ""},
		"spaces":             {file("\n {} \t\r\n", 0), ""},
		"metadata only":      {file(`{"__metadata__":{"a":"b"}}`, 0), ""},
		"metadata null":      {file(`{"__metadata__":null}`, 0), ""},
		"scalar":             {file(`{`+tensor("a", "F32", "[]", 0, 4)+`}`, 4), "a"},
		"zero size":          {file(`{`+tensor("a", "F32", "[2,0]", 0, 0)+`,`+tensor("b", "F32", "[1]", 0, 4)+`}`, 4), "a b"},
		"zero size, huge":    {file(`{`+tensor("a", "F32", "[0,9223372036854775807]", 0, 0)+`}`, 0), "a"},
		"reordered":          {file(`{`+tensor("a", "U8", "[2]", 3, 5)+`,`+tensor("b", "U8", "[3]", 0, 3)+`}`, 5), "b a"},
		"members in a mess":  {file(`{"a":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}}`, 8), "a"},
		"more members":       {file(`{"a":{"dtype":"F32","more":[1.5e-3,{"x":null}],"shape":[2],"data_offsets":[0,8]}}`, 8), "a"},
		"escapes":            {file(`{`+tensor(`\ud83d\ude00\n\/A`, "U8", "[1]", 0, 1)+`}`, 1), "😀\n/A"},
		"no name":            {file(`{`+tensor(``, "U8", "[1]", 0, 1)+`}`, 1), ""},
		"unaligned":          {file(`{`+tensor("a", "U8", "[1]", 0, 1)+`,`+tensor("b", "F64", "[1]", 1, 9)+`}`, 9), "a b"},
		"F4":                 {file(`{`+tensor("a", "F4", "[4]", 0, 2)+`}`, 2), "a"},
		"F6":                 {file(`{`+tensor("a", "F6_E3M2", "[2,2]", 0, 3)+`}`, 3), "a"},
		"complex":            {file(`{`+tensor("a", "C64", "[1]", 0, 8)+`}`, 8), "a"},
		"float8":             {file(`{`+tensor("a", "F8_E8M0", "[1]", 0, 1)+`}`, 1), "a"},
		"space in the JSON":  {file("{ \"a\" :\n{ \"dtype\": \"U8\", \"shape\": [ 1 ], \"data_offsets\": [ 0, 1 ] } }", 1), "a"},
		"a name like a word": {file(`{`+tensor("dtype", "U8", "[1]", 0, 1)+`}`, 1), "dtype"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := read(c.b)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, x := range f.Tensors {
				names = append(names, x.Name)
				if _, err := x.ReadAt(make([]byte, x.Size), 0); err != nil {
					t.Error(err)
				}
			}
			if got := strings.Join(names, " "); got != c.names {
				t.Errorf("tensors %q, want %q", got, c.names)
			}
		})
	}
}

// sample has a tensor of every dtype and metadata.
func sample() []byte {
	h := `{"__metadata__":{"format":"pt","note":"a \"b\" \\ \u0001 <é>"}`
	var at int64
	for _, d := range dtypes {
		n, err := d.typ.RowBytes(8)
		if err != nil {
			panic(err)
		}
		h += "," + tensor("t."+d.name, d.name, "[2,4]", at, at+n)
		at += n
	}
	return file(h+"}", int(at))
}

// TestTruncated cuts a file at every byte of its header and its data.
func TestTruncated(t *testing.T) {
	t.Parallel()
	all := sample()
	for n := range all {
		var corrupt *format.CorruptError
		if _, err := read(all[:n]); !errors.As(err, &corrupt) {
			t.Fatalf("%d of %d bytes: error %v", n, len(all), err)
		}
	}
	f, err := read(all)
	if err != nil || len(f.Tensors) != 22 {
		t.Fatalf("%v, %d tensors", err, len(f.Tensors))
	}
	if f.Metadata["note"] != "a \"b\" \\ \x01 <é>" || strings.Join(f.MetadataKeys, " ") != "format note" {
		t.Errorf("metadata %q", f.Metadata)
	}
}

// agree reads b with both readers. Where ours accepts what the other knows, the
// other does too and finds the same.
func agree(t *testing.T, b []byte) *File {
	t.Helper()
	f, err := read(b)
	if err != nil {
		return nil
	}
	st, otherErr := oracle.Deserialize(b)
	if otherErr == nil {
		compare(t, f, st)
		return f
	}
	// It knows 13 dtypes, computes in int, and reads neither null for the metadata nor further members.
	for _, known := range []string{"DType", "overflow", "metadata", "unexpected", "invalid header deserialization"} {
		if strings.Contains(otherErr.Error(), known) {
			return f
		}
	}
	t.Errorf("the other reader refuses: %v\n%.300q", otherErr, b)
	return f
}

// TestFlipped changes each byte in turn: errors or not, no panic, and the other
// reader finds the same where both read.
func TestFlipped(t *testing.T) {
	t.Parallel()
	all := file(`{"__metadata__":{"k":"v"},`+tensor("a", "F32", "[2]", 0, 8)+`,`+tensor("b", "U8", "[1,3]", 8, 11)+`}`, 11)
	for i := range all {
		for _, v := range []byte("\x00\t\n \"',-./0123489:AFUZ[\\]aetuz{}\x7f\x80\xff") {
			b := bytes.Clone(all)
			b[i] = v
			agree(t, b)
		}
	}
}

// FuzzRead: no bytes panic, both readers agree, and what reads can be written and
// read again.
func FuzzRead(f *testing.F) {
	f.Add(sample())
	f.Add(file(`{`+tensor("a", "F32", "[2]", 0, 8)+`,`+tensor("b", "I64", "[1,1]", 8, 16)+`}`, 16))
	f.Add(file(` {"__metadata__":null,`+tensor(`\ud83d\ude00`, "F4", "[0,2]", 0, 0)+`} `, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := agree(t, b)
		if file == nil {
			return
		}
		plan := rewritePlan(file)
		l, err := LayoutOf("x", plan, file.Metadata, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		data := append(bytes.Clone(l.Shards[0].Header), make([]byte, l.Size()-int64(len(l.Shards[0].Header)))...)
		again, err := read(data)
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Tensors) != len(file.Tensors) || len(again.Metadata) != len(file.Metadata) {
			t.Fatal("tensors or metadata were lost")
		}
	})
}

// FuzzIndex: no index panics, and none names a file outside its folder.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":1},"weight_map":{"a":"model-00001-of-00002.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		where, err := parseIndex("index", b)
		if err != nil {
			return
		}
		for _, file := range where {
			if strings.ContainsAny(file, "/") || file == ".." {
				t.Errorf("file %q", file)
			}
		}
	})
}
