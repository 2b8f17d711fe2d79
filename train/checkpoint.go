package train

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/atomicfile"
	"github.com/graft-lora/graft/train/optim"
	"github.com/klauspost/compress/zstd"
)

// A checkpoint file is
//
//	magic | zstd( length of the header, 8 bytes | header, JSON | tensors, float32 ) | SHA-256 of all before
//
// in little endian, the tensors in the order of the header. It is written under
// another name and renamed when it is on the disk, and a file whose digest is not
// that of its bytes is passed over for the one before it.
const checkpointMagic = "graft checkpoint 1\n"

// state is everything that a run needs to go on as if it had not stopped. Random
// numbers are functions of the seed and of Step, so Step is their counter too.
type state struct {
	Step      int `json:"step"`      // optimizer steps made
	Sequences int `json:"sequences"` // sequences taken from the data
	// Best is the best evaluation and BestStep its step; Stale counts those since, and
	// Stopped says that there were too many.
	Best      *EvalResult `json:"best"`
	BestStep  int         `json:"best_step"`
	Stale     int         `json:"stale"`
	Stopped   bool        `json:"stopped"`
	LogSize   int64       `json:"log_size"`   // bytes of the log that belong to these steps
	Trained   int64       `json:"trained"`    // tokens trained on so far
	Tokens    int64       `json:"tokens"`     // tokens seen so far
	EvalDue   bool        `json:"eval_due"`   // an evaluation belongs here before the next step
	EvalFirst *EvalResult `json:"eval_first"` // the evaluation before the first step
	EvalLast  *EvalResult `json:"eval_last"`  // the latest
	Loss      float64     `json:"loss"`       // of the latest step
	Smooth    float64     `json:"smooth"`     // moving average of the loss

	Config  Config            `json:"config"`
	Inputs  map[string]string `json:"inputs"`  // SHA-256 by role: base, data, …
	Samples string            `json:"samples"` // digest of the tokens and masks

	OptStep int64          `json:"opt_step"`
	Shapes  []tensorHeader `json:"tensors"`

	tensors []optim.Tensor
}

type tensorHeader struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

func checkpointPath(dir string, step int) string {
	return filepath.Join(dir, "checkpoints", fmt.Sprintf("step-%08d.ckpt", step))
}

// checkpoints lists the checkpoint files of a run, the latest first.
func checkpoints(dir string) ([]string, error) {
	list, err := filepath.Glob(filepath.Join(escape(filepath.Join(dir, "checkpoints")), "step-*.ckpt"))
	slices.Sort(list)
	slices.Reverse(list)
	return list, err
}

// escape keeps Glob from taking characters of a folder's name as patterns.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// save writes the checkpoint of s with the masters and the optimizer's state, then
// removes those that are too old.
func (s *state) save(dir string, params []optim.Param, opt optim.Optimizer) error {
	st := opt.State()
	s.OptStep = st.Step
	if err := s.writeFile(checkpointPath(dir, s.Step), params, st.Tensors); err != nil {
		return err
	}
	old, err := checkpoints(dir)
	if err != nil {
		return err
	}
	for _, path := range old[min(max(s.Config.KeepCheckpoints, 1), len(old)):] {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// bestPath is where the adapter of the best evaluation is kept.
func bestPath(dir string) string { return filepath.Join(dir, "checkpoints", "best.ckpt") }

// saveBest keeps the masters as they are.
func (s *state) saveBest(dir string, params []optim.Param) error {
	return s.writeFile(bestPath(dir), params, nil)
}

// loadBest puts the masters of the best evaluation into params.
func (s *state) loadBest(dir string, params []optim.Param) error {
	best, err := readCheckpoint(bestPath(dir))
	if err != nil {
		return err
	}
	if best.Step != s.BestStep || best.Samples != s.Samples || len(best.tensors) != len(params) {
		return fmt.Errorf("%s is of step %d, not of the best evaluation's, %d", bestPath(dir), best.Step, s.BestStep)
	}
	for i, p := range params {
		if t := best.tensors[i]; t.Name != p.Name || len(t.Data) != len(p.Value) {
			return fmt.Errorf("%s has %s where %s belongs", bestPath(dir), t.Name, p.Name)
		}
		copy(p.Value, best.tensors[i].Data)
	}
	return nil
}

// writeFile writes s with the masters and what else is given.
func (s *state) writeFile(path string, params []optim.Param, more []optim.Tensor) error {
	s.tensors = nil
	for i := range params {
		s.tensors = append(s.tensors, optim.Tensor{Name: params[i].Name, Data: params[i].Value})
	}
	s.tensors = append(s.tensors, more...)
	s.Shapes = s.Shapes[:0]
	for _, t := range s.tensors {
		s.Shapes = append(s.Shapes, tensorHeader{t.Name, len(t.Data)})
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := atomicfile.Create(path, true)
	if err != nil {
		return err
	}
	defer f.Abort()
	err = s.write(f)
	s.tensors = nil // they are the run's, which lets go of them before it ends
	if err != nil {
		return err
	}
	return f.Commit()
}

func (s *state) write(w io.Writer) error {
	h := sha256.New()
	both := io.MultiWriter(w, h)
	if _, err := io.WriteString(both, checkpointMagic); err != nil {
		return err
	}
	z, err := zstd.NewWriter(both, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	head, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if _, err := z.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...)); err != nil {
		return err
	}
	b := make([]byte, 0, 1<<16)
	for _, t := range s.tensors {
		for data := t.Data; len(data) > 0; {
			n := min(len(data), cap(b)/4)
			b = b[:0]
			for _, v := range data[:n] {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
			}
			if _, err := z.Write(b); err != nil {
				return err
			}
			data = data[n:]
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	_, err = w.Write(h.Sum(nil))
	return err
}

// errDamaged is the cause when a checkpoint's bytes are not those that were written.
var errDamaged = errors.New("its checksum is wrong")

// readCheckpoint reads a checkpoint whose digest is right. A damaged one gives a
// [format.CorruptError].
func readCheckpoint(path string) (*state, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	corrupt := func(err error) error {
		return &format.CorruptError{Path: path, Offset: -1, Field: "checkpoint", Err: err}
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size() - sha256.Size
	if size < int64(len(checkpointMagic)) {
		return nil, corrupt(io.ErrUnexpectedEOF)
	}
	if err := checkDigest(f, size, sha256.New()); err != nil {
		if errors.Is(err, errDamaged) {
			err = corrupt(err)
		}
		return nil, err
	}
	magic := make([]byte, len(checkpointMagic))
	if _, err := f.ReadAt(magic, 0); err != nil {
		return nil, err
	}
	if string(magic) != checkpointMagic {
		return nil, corrupt(errors.New("it is no checkpoint of this version"))
	}
	z, err := zstd.NewReader(bufio.NewReaderSize(io.NewSectionReader(f, int64(len(magic)), size-int64(len(magic))), 1<<16),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var n [8]byte
	if _, err := io.ReadFull(z, n[:]); err != nil {
		return nil, corrupt(err)
	}
	headSize := binary.LittleEndian.Uint64(n[:])
	if headSize > 64<<20 {
		return nil, corrupt(fmt.Errorf("a header of %d bytes", headSize))
	}
	head := make([]byte, headSize)
	if _, err := io.ReadFull(z, head); err != nil {
		return nil, corrupt(err)
	}
	s := &state{}
	if err := json.NewDecoder(bytes.NewReader(head)).Decode(s); err != nil {
		return nil, corrupt(err)
	}
	b := make([]byte, 1<<16)
	for _, t := range s.Shapes {
		var data []float32
		for len(data) < t.N {
			n := min(4*(t.N-len(data)), len(b))
			if _, err := io.ReadFull(z, b[:n]); err != nil {
				return nil, corrupt(fmt.Errorf("tensor %s: %w", t.Name, err))
			}
			if data == nil {
				data = make([]float32, 0, t.N)
			}
			for i := 0; i < n; i += 4 {
				data = append(data, math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
			}
		}
		s.tensors = append(s.tensors, optim.Tensor{Name: t.Name, Data: data})
	}
	return s, nil
}

// checkDigest compares the digest that follows the first size bytes of f.
func checkDigest(f io.ReaderAt, size int64, h hash.Hash) error {
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
		return err
	}
	want := make([]byte, h.Size())
	if _, err := f.ReadAt(want, size); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want) {
		return errDamaged
	}
	return nil
}

// latest reads the newest checkpoint of a run that is whole. damaged are those that
// were passed over. It is fs.ErrNotExist if there is none.
func latest(dir string) (s *state, damaged []string, err error) {
	list, err := checkpoints(dir)
	if err != nil {
		return nil, nil, err
	}
	var first error
	for _, path := range list {
		s, err := readCheckpoint(path)
		if err == nil {
			return s, damaged, nil
		}
		var corrupt *format.CorruptError
		if !errors.As(err, &corrupt) {
			return nil, damaged, err
		}
		damaged = append(damaged, path)
		if first == nil {
			first = err
		}
	}
	if first != nil {
		return nil, damaged, first
	}
	return nil, nil, fmt.Errorf("%s has no checkpoint to resume from: %w", dir, fs.ErrNotExist)
}

// restore puts the tensors of s into the masters and the optimizer.
func (s *state) restore(params []optim.Param, opt optim.Optimizer) error {
	if len(s.tensors) < len(params) {
		return fmt.Errorf("train: the checkpoint has %d tensors, %d parameters are trained", len(s.tensors), len(params))
	}
	for i, p := range params {
		if t := s.tensors[i]; t.Name != p.Name || len(t.Data) != len(p.Value) {
			return fmt.Errorf("train: the checkpoint has %s of %d numbers where %s of %d belongs", t.Name, len(t.Data), p.Name, len(p.Value))
		}
	}
	if err := opt.Load(optim.State{Step: s.OptStep, Tensors: s.tensors[len(params):]}); err != nil {
		return err
	}
	for i, p := range params {
		copy(p.Value, s.tensors[i].Data)
	}
	s.tensors = nil
	return nil
}
