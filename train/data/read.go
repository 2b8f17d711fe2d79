package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/graft-lora/graft/format"
	"github.com/klauspost/compress/zstd"
)

// maxLine is the longest JSONL record that is read: a bound on memory.
const maxLine = 256 << 20

// open opens a file that may be compressed, which its first bytes say.
func open(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b := bufio.NewReaderSize(f, 1<<16)
	head, _ := b.Peek(4)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			f.Close()
			return nil, &format.CorruptError{Path: path, Offset: 0, Field: "gzip header", Err: err}
		}
		return &readCloser{z, f.Close}, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			f.Close()
			return nil, err
		}
		return &readCloser{z, func() error { z.Close(); return f.Close() }}, nil
	}
	return &readCloser{b, f.Close}, nil
}

type readCloser struct {
	io.Reader
	close func() error
}

func (r *readCloser) Close() error { return r.close() }

// ReadText reads a whole file of plain text, uncompressing it if need be. Text that
// is not UTF-8 is an error that gives the offset.
func ReadText(path string) (string, error) {
	r, err := open(path)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	text := string(b)
	if !utf8.ValidString(text) {
		off := 0
		for off < len(text) {
			c, n := utf8.DecodeRuneInString(text[off:])
			if c == utf8.RuneError && n == 1 {
				break
			}
			off += n
		}
		return "", &format.CorruptError{Path: path, Offset: int64(off), Field: "text", Err: errors.New("it is not UTF-8")}
	}
	return text, nil
}

// IsRecords says whether the file at path holds records: it is a Parquet file, or its
// first character that is no space is a brace or bracket that opens a JSON value of records.
func IsRecords(path string) (bool, error) {
	if ok, err := isParquet(path); ok || err != nil {
		return ok, err
	}
	r, err := open(path)
	if err != nil {
		return false, err
	}
	defer r.Close()
	b := make([]byte, 4096)
	n, err := io.ReadFull(r, b)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	s := bytes.TrimLeft(bytes.TrimPrefix(b[:n], []byte("\ufeff")), " \t\r\n")
	if len(s) == 0 {
		return false, nil
	}
	base := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(path), ".gz"), ".zst")
	named := strings.HasSuffix(base, ".jsonl") || strings.HasSuffix(base, ".ndjson") || strings.HasSuffix(base, ".json")
	switch s[0] {
	case '{':
		s = bytes.TrimLeft(s[1:], " \t\r\n")
		return named || len(s) > 0 && (s[0] == '"' || s[0] == '}'), nil
	case '[':
		s = bytes.TrimLeft(s[1:], " \t\r\n")
		return named || len(s) > 0 && s[0] == '{', nil
	}
	return named, nil
}

// raw is a JSON object as it stands in a file.
type raw struct {
	line   int // of its first byte, from 1; for an array, that of the record; for Parquet, the row
	fields map[string]json.RawMessage
}

// records iterates over the JSON objects of a file, one per line or in one array, or
// over the rows of a Parquet file.
// Empty lines are skipped; anything else that is no object is an error with its line.
func records(path string) iter.Seq2[raw, error] {
	return func(yield func(raw, error) bool) {
		if ok, err := isParquet(path); err != nil {
			yield(raw{}, err)
			return
		} else if ok {
			parquetRecords(path, yield)
			return
		}
		r, err := open(path)
		if err != nil {
			yield(raw{}, err)
			return
		}
		defer r.Close()
		b := bufio.NewReaderSize(r, 1<<20)
		line := 0
		for first := true; ; {
			text, err := readLine(b)
			if err != nil && err != io.EOF {
				yield(raw{}, fmt.Errorf("%s:%d: %w", path, line+1, err))
				return
			}
			line++
			if first {
				text = bytes.TrimPrefix(text, []byte("\ufeff"))
			}
			trimmed := bytes.TrimSpace(text)
			if first && len(trimmed) > 0 {
				first = false
				if trimmed[0] == '[' {
					array(path, line, io.MultiReader(bytes.NewReader(text), b), yield)
					return
				}
			}
			if len(trimmed) > 0 {
				rec := raw{line: line}
				if jerr := json.Unmarshal(trimmed, &rec.fields); jerr != nil || rec.fields == nil {
					if jerr == nil {
						jerr = errors.New("null where an object belongs")
					}
					yield(rec, fmt.Errorf("%s:%d: the line is not a JSON object: %w", path, line, jerr))
					return
				}
				if !yield(rec, nil) {
					return
				}
			}
			if err == io.EOF {
				return
			}
		}
	}
}

// readLine reads a line of any length up to maxLine. The slice is good until the next call.
func readLine(b *bufio.Reader) ([]byte, error) {
	part, err := b.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return part, err
	}
	line := bytes.Clone(part)
	for err == bufio.ErrBufferFull {
		if len(line) > maxLine {
			return nil, fmt.Errorf("the line is longer than %d MiB", maxLine>>20)
		}
		part, err = b.ReadSlice('\n')
		line = append(line, part...)
	}
	return line, err
}

// lineCounter counts the newlines that go by, and where they are, so that the line
// of an offset that was just parsed can be told.
type lineCounter struct {
	r     io.Reader
	off   int64
	line  int
	marks []int64 // offsets of newlines, ascending
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			c.marks = append(c.marks, c.off+int64(i))
		}
	}
	c.off += int64(n)
	return n, err
}

// at is the line of offset off; offsets must not fall.
func (c *lineCounter) at(off int64) int {
	n := 0
	for n < len(c.marks) && c.marks[n] < off {
		n++
	}
	c.line += n
	c.marks = c.marks[n:]
	return c.line
}

func array(path string, line int, r io.Reader, yield func(raw, error) bool) {
	c := &lineCounter{r: r, line: line}
	d := json.NewDecoder(c)
	fail := func(err error) { yield(raw{}, fmt.Errorf("%s:%d: %w", path, c.at(d.InputOffset()), err)) }
	if _, err := d.Token(); err != nil {
		fail(err)
		return
	}
	for d.More() {
		var rec raw
		if err := d.Decode(&rec.fields); err != nil {
			fail(err)
			return
		}
		rec.line = c.at(d.InputOffset())
		if !yield(rec, nil) {
			return
		}
	}
	if _, err := d.Token(); err != nil {
		fail(err)
	}
}
