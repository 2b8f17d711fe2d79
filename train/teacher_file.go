package train

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/klauspost/compress/zstd"
)

// A file of a teacher's predictions grows as they are made, so that a run that is killed
// has those that were finished:
//
//	magic | length of the header, 8 bytes | header, JSON | records
//
// A record is the digest of a sample, 32 bytes | length of the frame, 4 bytes | frame |
// the first 16 bytes of the SHA-256 of all of the record before. What follows a record that is not
// whole is cut off. A frame is zstd( K uvarints of each trained token, the ids | the
// float32 logarithms of their probabilities and then of the rests, all first bytes first ).
const (
	teacherMagic = "graft teacher 2\n"
	recordHead   = sha256.Size + 4
	recordSum    = 16
)

// teacherHeader says what made the predictions; which samples they are for their digests say.
type teacherHeader struct {
	Teacher     string  `json:"teacher_sha256"`
	K           int     `json:"top_k"`
	Temperature float64 `json:"temperature"`
}

// span is where a frame lies in the file.
type span struct {
	from int64
	size int
}

// teacher gives what was predicted for samples. It reads them from its file as they are
// asked for. It is not safe for concurrent use.
type teacher struct {
	DistillConfig
	head  teacherHeader
	file  *os.File
	end   int64           // of the last whole record
	place map[string]span // of samples, by digest
	dec   *zstd.Decoder
}

// Close closes the file.
func (t *teacher) Close() error {
	t.dec.Close()
	return t.file.Close()
}

// openTeacher opens the predictions in a file, every byte of which is checked, or begins
// one. The note says what of an earlier file is of no use, if anything.
func openTeacher(path string, head teacherHeader) (_ *teacher, note string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	t := &teacher{head: head, file: f, place: map[string]span{}}
	if t.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30)); err != nil {
		return nil, "", err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	text, err := json.Marshal(head)
	if err != nil {
		return nil, "", err
	}
	begin := append(binary.LittleEndian.AppendUint64([]byte(teacherMagic), uint64(len(text))), text...)
	have := make([]byte, len(begin))
	if n, err := f.ReadAt(have, 0); n < len(have) || string(have) != string(begin) {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, "", err
		}
		if info.Size() > 0 {
			note = path + " is damaged, or of another teacher; it is made again"
		}
		if err := t.cut(0); err != nil {
			return nil, "", err
		}
		return t, note, t.append(begin)
	}
	t.end = int64(len(begin))
	if err := t.scan(info.Size()); err != nil {
		return nil, "", err
	}
	if t.end < info.Size() {
		note = fmt.Sprintf("%s is damaged after %d bytes; what follows is made again", path, t.end)
	}
	return t, note, t.cut(t.end)
}

// scan finds the whole records.
func (t *teacher) scan(size int64) error {
	if _, err := t.file.Seek(t.end, io.SeekStart); err != nil {
		return err
	}
	in := bufio.NewReaderSize(t.file, 1<<16)
	head := make([]byte, recordHead)
	for {
		if _, err := io.ReadFull(in, head); err != nil {
			return unlessEnd(err)
		}
		n := int64(binary.LittleEndian.Uint32(head[sha256.Size:]))
		if n > size-t.end-recordHead-recordSum {
			return nil
		}
		rest := make([]byte, n+recordSum)
		if _, err := io.ReadFull(in, rest); err != nil {
			return unlessEnd(err)
		}
		if sum := sumOf(head, rest[:n]); string(sum) != string(rest[n:]) {
			return nil
		}
		t.place[hex.EncodeToString(head[:sha256.Size])] = span{t.end + recordHead, int(n)}
		t.end += recordHead + n + recordSum
	}
}

func unlessEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// sumOf guards a record.
func sumOf(head, frame []byte) []byte {
	h := sha256.New()
	h.Write(head)
	h.Write(frame)
	return h.Sum(nil)[:recordSum]
}

// cut leaves size bytes in the file, where writing goes on.
func (t *teacher) cut(size int64) error {
	if err := t.file.Truncate(size); err != nil {
		return err
	}
	t.end = size
	_, err := t.file.Seek(size, io.SeekStart)
	return err
}

func (t *teacher) append(b []byte) error {
	if _, err := t.file.Write(b); err != nil {
		return err
	}
	t.end += int64(len(b))
	return nil
}

// add stores the frame of a sample, whole or not at all as far as a reader is concerned.
func (t *teacher) add(s *data.Sample, frame []byte) error {
	key := data.Digest([]data.Sample{*s})
	head, err := hex.DecodeString(key)
	if err != nil || len(head) != sha256.Size {
		return fmt.Errorf("train: the digest of a sample is %q", key)
	}
	head = binary.LittleEndian.AppendUint32(head, uint32(len(frame)))
	at := span{t.end + recordHead, len(frame)}
	record := append(append(head, frame...), sumOf(head, frame)...)
	if err := t.append(record); err != nil {
		return fmt.Errorf("%s: %w", t.file.Name(), err)
	}
	t.place[key] = at
	return nil
}

// largestFirst puts the group with the most tokens before the others, so that the model's
// buffers need not grow on the way, which would leave the smaller ones lying in memory.
func largestFirst(groups [][]data.Sample) [][]data.Sample {
	tokens := func(g []data.Sample) (n int) {
		for i := range g {
			n += g[i].Size()
		}
		return n
	}
	most := 0
	for i := range groups {
		if tokens(groups[i]) > tokens(groups[most]) {
			most = i
		}
	}
	largest := groups[most]
	return slices.Insert(slices.Delete(groups, most, most+1), 0, largest)
}

// ask runs the teacher m on samples, limit tokens at a time, and stores what it predicts.
func (t *teacher) ask(ctx context.Context, m *model.Model, vocab, threads int, samples []data.Sample, limit int, progress func(done int)) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	defer enc.Close()
	k := t.head.K
	pool := kernel.NewPool(threads)
	defer pool.Close()
	scratch := make([][]float32, pool.Threads())
	for i := range scratch {
		scratch[i] = make([]float32, m.Vocab)
	}
	done := 0
	// Buffers are used again: garbage would count in the memory that the run may take.
	var allIDs []int32
	var allLogP, allRest, x []float32
	var plain, frame []byte
	for _, group := range largestFirst(passes(samples, limit)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := 0
		for _, s := range group {
			n += s.Trained()
		}
		allIDs, allLogP, allRest = slices.Grow(allIDs[:0], n*k)[:n*k], slices.Grow(allLogP[:0], n*k)[:n*k], slices.Grow(allRest[:0], n)[:n]
		ids, logP, rest := allIDs, allLogP, allRest
		err := m.Predictions(batchOf(group), func(first int, logits kernel.Mat) {
			pool.For(logits.Rows, func(r, worker int) {
				i := first + r
				rest[i] = model.TopLogP(ids[i*k:(i+1)*k], logP[i*k:(i+1)*k], logits.Row(r), vocab, float32(t.head.Temperature), scratch[worker])
			})
		})
		if err != nil {
			return err
		}
		for i := range group {
			n := group[i].Trained()
			x = append(append(x[:0], logP[:n*k]...), rest[:n]...)
			plain = appendPredictions(plain[:0], ids[:n*k], x)
			frame = enc.EncodeAll(plain, frame[:0])
			ids, logP, rest = ids[n*k:], logP[n*k:], rest[n:]
			if err := t.add(&group[i], frame); err != nil {
				return err
			}
		}
		done += len(group)
		progress(done)
	}
	return t.file.Sync()
}

func appendPredictions(b []byte, ids []int32, x []float32) []byte {
	for _, id := range ids {
		b = binary.AppendUvarint(b, uint64(id))
	}
	for shift := 24; shift >= 0; shift -= 8 {
		for _, v := range x {
			b = append(b, byte(math.Float32bits(v)>>shift))
		}
	}
	return b
}
