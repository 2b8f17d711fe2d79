package train

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/graft-lora/graft/internal/atomicfile"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/klauspost/compress/zstd"
)

// TeacherFile holds what the teacher predicts, in a run's folder.
const TeacherFile = "teacher.logits"

// DistillConfig says from which larger model a run learns, beside the data itself. Numbers
// that are zero are the defaults.
type DistillConfig struct {
	Teacher string `json:"teacher,omitempty" yaml:"teacher,omitempty"` // a model with the same tokens; empty: none
	// TopK is how many of the teacher's predictions are kept for each trained token, 64 if
	// zero; what is left of the probability is kept as one number.
	TopK int `json:"top_k,omitempty" yaml:"top_k,omitempty"`
	// Weight is that of the divergence from the teacher, 0.5 if zero; the plain loss has the rest.
	Weight float64 `json:"weight,omitempty" yaml:"weight,omitempty"`
	// Temperature softens both models' predictions; 1 if zero.
	Temperature float64 `json:"temperature,omitempty" yaml:"temperature,omitempty"`
}

// filled is d with its defaults.
func (d DistillConfig) filled() DistillConfig {
	if d.TopK == 0 {
		d.TopK = 64
	}
	if d.Weight == 0 {
		d.Weight = 0.5
	}
	if d.Temperature == 0 {
		d.Temperature = 1
	}
	return d
}

func (d DistillConfig) check(objective string) error {
	if d.Teacher == "" {
		if d != (DistillConfig{}) {
			return errors.New("train: distillation needs a teacher")
		}
		return nil
	}
	f := d.filled()
	switch {
	case objective != "" && objective != "sft":
		return fmt.Errorf("train: objective %s does not learn from a teacher: distillation goes with sft", objective)
	case f.TopK < 1 || f.TopK > 1<<16:
		return fmt.Errorf("train: top_k of the teacher is %d: it can be 1 to 65536", d.TopK)
	case !(f.Weight > 0 && f.Weight <= 1):
		return fmt.Errorf("train: the teacher's weight is %v: it must be above 0 and at most 1", d.Weight)
	case !(f.Temperature >= 0.01 && f.Temperature <= 100):
		return fmt.Errorf("train: the temperature of distillation is %v: it can be 0.01 to 100", d.Temperature)
	}
	return nil
}

// DistillResult is how far a model is from its teacher.
type DistillResult struct {
	CrossEntropy float64 `json:"cross_entropy"` // the plain loss, mean over the trained tokens
	KL           float64 `json:"kl"`            // mean divergence from the teacher at the temperature, over its top tokens and the rest
}

// A file of a teacher's predictions is
//
//	magic | length of the header, 8 bytes | header, JSON | a frame for each sample | offsets, 8 bytes each, one more than samples | SHA-256 of all before
//
// A frame is zstd( K uvarints of each trained token, the ids | the float32 logarithms of
// their probabilities and then of the rests, all first bytes first ).
const teacherMagic = "graft teacher 1\n"

// teacherHeader says what the predictions belong to.
type teacherHeader struct {
	Teacher     string  `json:"teacher_sha256"`
	Samples     string  `json:"samples_sha256"`
	Count       int     `json:"samples"`
	K           int     `json:"top_k"`
	Temperature float64 `json:"temperature"`
}

// teacher gives what was predicted for samples. It reads them from its file as they are
// asked for. It is not safe for concurrent use.
type teacher struct {
	DistillConfig
	head    teacherHeader
	file    *os.File
	offsets []int64
	place   map[string]int // of samples, by digest
	dec     *zstd.Decoder
}

// openTeacher opens predictions that were stored, whose every byte is checked.
func openTeacher(path string, want teacherHeader) (t *teacher, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	damaged := fmt.Errorf("%s is damaged", path)
	size := info.Size()
	tail := 8*int64(want.Count+1) + sha256.Size
	if size < int64(len(teacherMagic))+8+tail {
		return nil, damaged
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size-sha256.Size)); err != nil {
		return nil, err
	}
	end := make([]byte, tail)
	if _, err := f.ReadAt(end, size-tail); err != nil {
		return nil, err
	}
	if !bytes.Equal(h.Sum(nil), end[tail-sha256.Size:]) {
		return nil, damaged
	}
	start := make([]byte, len(teacherMagic)+8)
	if _, err := f.ReadAt(start, 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(start[len(teacherMagic):])
	if string(start[:len(teacherMagic)]) != teacherMagic || n > 1<<16 {
		return nil, damaged
	}
	text := make([]byte, n)
	if _, err := f.ReadAt(text, int64(len(start))); err != nil {
		return nil, damaged
	}
	t = &teacher{file: f}
	if err := json.Unmarshal(text, &t.head); err != nil || t.head != want {
		return nil, fmt.Errorf("%s belongs to other samples or another teacher", path)
	}
	for i := range want.Count + 1 {
		t.offsets = append(t.offsets, int64(binary.LittleEndian.Uint64(end[8*i:])))
	}
	t.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
	return t, err
}

// storeTeacher runs the teacher on samples and stores what it predicts.
func storeTeacher(ctx context.Context, path string, head teacherHeader, m *model.Model, vocab, threads int, samples []data.Sample, limit int, progress func(done int)) error {
	out, err := atomicfile.Create(path, true)
	if err != nil {
		return err
	}
	defer out.Abort()
	h := sha256.New()
	size := int64(0)
	write := func(b []byte) error {
		h.Write(b)
		n, err := out.Write(b)
		size += int64(n)
		return err
	}
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	b := binary.LittleEndian.AppendUint64([]byte(teacherMagic), uint64(len(text)))
	if err := write(append(b, text...)); err != nil {
		return err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		return err
	}
	k := head.K
	offsets := binary.LittleEndian.AppendUint64(nil, uint64(size))
	pool := kernel.NewPool(threads)
	defer pool.Close()
	scratch := make([][]float32, pool.Threads())
	for i := range scratch {
		scratch[i] = make([]float32, m.Vocab)
	}
	done := 0
	for _, group := range passes(samples, limit) {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := 0
		for _, s := range group {
			n += s.Trained()
		}
		ids, logP, rest := make([]int32, n*k), make([]float32, n*k), make([]float32, n)
		err := m.Predictions(batchOf(group), func(first int, logits kernel.Mat) {
			pool.For(logits.Rows, func(r, worker int) {
				i := first + r
				rest[i] = model.TopLogP(ids[i*k:(i+1)*k], logP[i*k:(i+1)*k], logits.Row(r), vocab, float32(head.Temperature), scratch[worker])
			})
		})
		if err != nil {
			return err
		}
		for _, s := range group {
			n := s.Trained()
			frame := enc.EncodeAll(appendPredictions(nil, ids[:n*k], append(logP[:n*k:n*k], rest[:n]...)), nil)
			ids, logP, rest = ids[n*k:], logP[n*k:], rest[n:]
			if err := write(frame); err != nil {
				return err
			}
			offsets = binary.LittleEndian.AppendUint64(offsets, uint64(size))
		}
		done += len(group)
		progress(done)
	}
	if err := write(offsets); err != nil {
		return err
	}
	if _, err := out.Write(h.Sum(nil)); err != nil {
		return err
	}
	return out.Commit()
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

// soft is what the teacher predicts for samples, in their order.
func (t *teacher) soft(list []data.Sample) (*model.Soft, error) {
	s := &model.Soft{K: t.head.K, Weight: float32(t.Weight), Temperature: float32(t.Temperature)}
	for i := range list {
		at, ok := t.place[data.Digest(list[i:i+1])]
		if !ok {
			return nil, fmt.Errorf("train: the teacher has not seen the sample of %s", describe(list[i:i+1]))
		}
		frame := make([]byte, t.offsets[at+1]-t.offsets[at])
		if _, err := t.file.ReadAt(frame, t.offsets[at]); err != nil {
			return nil, err
		}
		b, err := t.dec.DecodeAll(frame, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.file.Name(), err)
		}
		n := list[i].Trained()
		for range n * s.K {
			id, used := binary.Uvarint(b)
			if used <= 0 {
				return nil, fmt.Errorf("%s: a frame is too short", t.file.Name())
			}
			s.IDs, b = append(s.IDs, int32(id)), b[used:]
		}
		x := make([]float32, n*(s.K+1))
		if len(b) != 4*len(x) {
			return nil, fmt.Errorf("%s: a frame has %d bytes of probabilities, not %d", t.file.Name(), len(b), 4*len(x))
		}
		for j := range x {
			x[j] = math.Float32frombits(uint32(b[j])<<24 | uint32(b[len(x)+j])<<16 | uint32(b[2*len(x)+j])<<8 | uint32(b[3*len(x)+j]))
		}
		s.LogP, s.Rest = append(s.LogP, x[:n*s.K]...), append(s.Rest, x[n*s.K:]...)
	}
	return s, nil
}

// findTeacher makes what the teacher predicts for all samples ready: from the run's folder
// if it is there, else the teacher is run once, alone.
func (r *runner) findTeacher(ctx context.Context) error {
	d := r.cfg.Distill
	if d.Teacher == "" {
		return nil
	}
	d = d.filled()
	d.TopK = min(d.TopK, r.base.Tokenizer.Size())
	path := filepath.Join(r.cfg.Output, TeacherFile)
	all := append(r.train[:len(r.train):len(r.train)], r.held...)
	want := teacherHeader{Teacher: r.state.Inputs["teacher"], Samples: r.samples, Count: len(all), K: d.TopK, Temperature: d.Temperature}
	t, err := openTeacher(path, want)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.told(Progress{Phase: "teacher", Note: err.Error() + "; it is made again"})
		}
		if err := r.runTeacher(ctx, path, want, all); err != nil {
			return err
		}
		if t, err = openTeacher(path, want); err != nil {
			return err
		}
	}
	t.DistillConfig, t.place = d, map[string]int{}
	for i := range all {
		t.place[data.Digest(all[i:i+1])] = i
	}
	r.objective.teacher = t
	return nil
}

// runTeacher opens the teacher, stores its predictions, and closes it.
func (r *runner) runTeacher(ctx context.Context, path string, head teacherHeader, all []data.Sample) error {
	opt := r.cfg.modelOptions()
	opt.KeepLayers = 0
	b, err := r.openTeacherModel(opt)
	if err != nil {
		return err
	}
	defer debug.FreeOSMemory()
	defer b.Close()
	vocab := min(b.Tokenizer.Size(), r.base.Tokenizer.Size())
	return storeTeacher(ctx, path, head, b.Model, vocab, r.cfg.Threads, all, r.cfg.Batch*r.cfg.Context, func(done int) {
		r.tell(Progress{Phase: "teacher", Done: done, Total: len(all)})
	})
}

// openTeacherModel opens the teacher if its tokens are those of the base.
func (r *runner) openTeacherModel(opt model.Options) (*Base, error) {
	b, err := OpenBase(r.cfg.Distill.Teacher, opt)
	if err != nil {
		return nil, err
	}
	if err := sameTokens(b, r.base); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// sameTokens says in which token two models differ. That one has more than the other is
// no difference if the others have no meaning: vocabularies are filled up to round sizes.
func sameTokens(teacher, base *Base) error {
	t, b := teacher.Tokenizer, base.Tokenizer
	for id := range int32(min(t.Size(), b.Size())) {
		if t.Token(id) != b.Token(id) {
			return fmt.Errorf("train: the teacher %s has other tokens than the base %s (token %d is %q there and %q here): distillation needs two models with the same tokenizer",
				teacher.Path, base.Path, id, t.Token(id), b.Token(id))
		}
	}
	if n := min(t.Size(), b.Size()); n < max(t.Size(), b.Size())*9/10 {
		return fmt.Errorf("train: the teacher %s has %d tokens and the base %s %d: distillation needs two models with the same tokenizer", teacher.Path, t.Size(), base.Path, b.Size())
	}
	return nil
}

// evaluateTaught is Evaluate with the teacher's part in the loss.
func (p *preferences) evaluateTaught(ctx context.Context, m *model.Model, samples []data.Sample, limit int, progress func(done int), adapters ...model.Scaled) (EvalResult, error) {
	var all, hard, soft moments
	done := 0
	for _, group := range passes(samples, limit) {
		if err := ctx.Err(); err != nil {
			return EvalResult{}, err
		}
		b := batchOf(group)
		var err error
		if b.Soft, err = p.teacher.soft(group); err != nil {
			return EvalResult{}, err
		}
		loss, err := m.Loss(b, adapters...)
		if err != nil {
			return EvalResult{}, err
		}
		all.add(loss.PerToken)
		hard.add(loss.Hard)
		soft.add(loss.Soft)
		done += len(group)
		if progress != nil {
			progress(done)
		}
	}
	r := EvalResult{Tokens: all.n, Sequences: len(samples), Distill: &DistillResult{}}
	r.Loss, r.LossError = all.mean()
	r.Distill.CrossEntropy, _ = hard.mean()
	r.Distill.KL, _ = soft.mean()
	r.Perplexity = math.Exp(r.Distill.CrossEntropy)
	return r, nil
}
