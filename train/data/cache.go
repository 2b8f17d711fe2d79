package data

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/atomicfile"
	"github.com/klauspost/compress/zstd"
)

// A file of samples is
//
//	magic | key, 32 bytes | zstd( length of the statistics | statistics, JSON | number of samples | samples ) | SHA-256 of all before
//
// Numbers are unsigned varints. A sample is the number of its tokens; each token times
// two, plus one where it is trained; the number of its documents and their beginnings;
// the number of its lines and they; and flags, after which the samples stand that
// belong to it.
const cacheMagic = "graft samples 1\n"

// Of the samples kept in a [Cache], the files used last stay, up to these bounds.
const (
	cacheFiles = 64
	cacheBytes = 4 << 30
)

// Cache keeps samples that were made in a folder, by a key that stands for all they are
// made of. It is safe for concurrent use, by several processes too.
type Cache struct{ Dir string }

// CacheKey is the key of what parts say; each is taken with its length, so that no two
// lists have the same.
func CacheKey(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		io.WriteString(h, p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (c Cache) path(key string) string { return filepath.Join(c.Dir, key+".samples") }

// Load gives the samples that were stored under key, as made of the file at path. It is
// an error that is fs.ErrNotExist if there are none, and a format.CorruptError if what is
// there is damaged.
func (c Cache) Load(key, path string) (*Set, error) {
	b, err := os.ReadFile(c.path(key))
	if err != nil {
		return nil, err
	}
	bad := func(err error) error {
		return &format.CorruptError{Path: c.path(key), Field: "samples", Err: err}
	}
	head := len(cacheMagic) + sha256.Size
	if len(b) < head+sha256.Size || string(b[:len(cacheMagic)]) != cacheMagic || hex.EncodeToString(b[len(cacheMagic):head]) != key {
		return nil, bad(errors.New("it does not begin as it should"))
	}
	body := b[: len(b)-sha256.Size : len(b)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, bad(errors.New("its digest is not that of its bytes"))
	}
	z, err := zstd.NewReader(bytes.NewReader(body[head:]), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return nil, bad(err)
	}
	defer z.Close()
	r := &sampleReader{r: bufio.NewReaderSize(z, 1<<16), path: path}
	set, err := r.set()
	if err != nil {
		return nil, bad(err)
	}
	now := time.Now()
	os.Chtimes(c.path(key), now, now) // so that it is not the first to be removed
	return set, nil
}

// Store keeps a set under key, and removes what was used longest ago where there is too much.
func (c Cache) Store(key string, set *Set) error {
	id, err := hex.DecodeString(key)
	if err != nil || len(id) != sha256.Size {
		return fmt.Errorf("data: %q is no key of a cache", key)
	}
	if err := os.MkdirAll(c.Dir, 0o777); err != nil {
		return err
	}
	var out bytes.Buffer
	out.WriteString(cacheMagic)
	out.Write(id)
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	stats, err := json.Marshal(set.Stats)
	if err != nil {
		return err
	}
	b := binary.AppendUvarint(nil, uint64(len(stats)))
	b = append(b, stats...)
	b = binary.AppendUvarint(b, uint64(len(set.Samples)))
	for i := range set.Samples {
		if b = appendSample(b, &set.Samples[i]); len(b) > 1<<16 {
			if _, err := z.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	if _, err := z.Write(b); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	sum := sha256.Sum256(out.Bytes())
	out.Write(sum[:])
	if err := atomicfile.WriteFile(c.path(key), out.Bytes(), true); err != nil {
		return err
	}
	return c.trim(key)
}

// trim removes the files used longest ago until the bounds hold; that of key stays.
func (c Cache) trim(key string) error {
	list, err := filepath.Glob(filepath.Join(c.Dir, "*.samples"))
	if err != nil {
		return err
	}
	type file struct {
		path string
		size int64
		used time.Time
	}
	var files []file
	for _, p := range list {
		if info, err := os.Stat(p); err == nil && p != c.path(key) {
			files = append(files, file{p, info.Size(), info.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return b.used.Compare(a.used) })
	var sum int64
	for i, f := range files {
		if sum += f.size; i+1 >= cacheFiles || sum > cacheBytes {
			if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

const (
	flagBad = 1 << iota
	flagRejected
	flagMismatched
	flagDocs // Docs is not nil
)

func appendSample(b []byte, s *Sample) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.IDs)))
	for i, id := range s.IDs {
		x := uint64(uint32(id)) << 1
		if s.Train[i] {
			x |= 1
		}
		b = binary.AppendUvarint(b, x)
	}
	for _, list := range [][]int{s.Docs, s.Lines} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, x := range list {
			b = binary.AppendUvarint(b, uint64(x))
		}
	}
	flags := uint64(0)
	for i, on := range []bool{s.Bad, s.Rejected != nil, s.Mismatched != nil, s.Docs != nil} {
		if on {
			flags |= 1 << i
		}
	}
	b = binary.AppendUvarint(b, flags)
	for _, other := range []*Sample{s.Rejected, s.Mismatched} {
		if other != nil {
			b = appendSample(b, other)
		}
	}
	return b
}

// sampleReader reads what Store wrote. The bytes have the right digest; that they make
// sense is checked all the same.
type sampleReader struct {
	r    *bufio.Reader
	path string
	err  error
}

func (r *sampleReader) uint() uint64 {
	if r.err != nil {
		return 0
	}
	x, err := binary.ReadUvarint(r.r)
	if err != nil {
		r.err = err
	}
	return x
}

func (r *sampleReader) set() (*Set, error) {
	n := r.uint()
	if r.err != nil || n > 1<<20 {
		return nil, errors.New("its statistics are not whole")
	}
	stats := make([]byte, n)
	if _, err := io.ReadFull(r.r, stats); err != nil {
		return nil, err
	}
	set := &Set{}
	if err := json.Unmarshal(stats, &set.Stats); err != nil {
		return nil, err
	}
	for n := r.uint(); r.err == nil && uint64(len(set.Samples)) < n; {
		set.Samples = append(set.Samples, r.sample(0))
	}
	if r.err == nil {
		if _, err := r.r.ReadByte(); err != io.EOF {
			r.err = errors.New("it goes on after its last sample")
		}
	}
	return set, r.err
}

func (r *sampleReader) sample(depth int) (s Sample) {
	n := r.uint()
	for i := uint64(0); i < n && r.err == nil; i++ {
		x := r.uint()
		s.IDs, s.Train = append(s.IDs, int32(x>>1)), append(s.Train, x&1 == 1)
	}
	for _, list := range []*[]int{&s.Docs, &s.Lines} {
		n := r.uint()
		for i := uint64(0); i < n && r.err == nil; i++ {
			*list = append(*list, int(r.uint()))
		}
	}
	flags := r.uint()
	s.Path, s.Bad = r.path, flags&flagBad != 0
	if flags&flagDocs == 0 {
		s.Docs = nil
	}
	for i, other := range []**Sample{&s.Rejected, &s.Mismatched} {
		if flags&(flagRejected<<i) != 0 {
			if depth > 0 {
				r.err = errors.New("samples within samples within samples")
				return s
			}
			inner := r.sample(depth + 1)
			*other = &inner
		}
	}
	return s
}
