package train

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"sync"

	"github.com/graft-lora/graft/internal/fmath"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// Side is one of two models that are compared: a base, with or without adapters.
type Side struct {
	Model    *model.Model
	Adapters []model.Scaled
}

// Divergence says how far the predictions of one model are from another's.
type Divergence struct {
	KL        float64 `json:"kl"`       // mean over tokens of Σ p·log(p/q), in nats; p is the reference
	KLError   float64 `json:"kl_error"` // standard error of the mean
	KLMax     float64 `json:"kl_max"`
	SameTop   float64 `json:"same_top"`       // part of the tokens whose most likely prediction is the same
	TopError  float64 `json:"same_top_error"` // standard error of it
	Reference float64 `json:"reference_loss"` // mean losses on the same tokens
	Other     float64 `json:"other_loss"`
	Tokens    int     `json:"tokens"`
}

// rowStats are what one token adds to a Divergence.
type rowStats struct {
	kl, lossP, lossQ float64
	same             bool
}

// Compare gives the divergence of other from reference on the trained tokens of
// samples; the two must have the same vocabulary. The logits of the reference pass
// through a temporary file, those of limit tokens (or one sample) at a time, so that
// neither memory nor the two models' order matters.
func Compare(ctx context.Context, reference, other Side, samples []data.Sample, limit int, progress func(done int)) (Divergence, error) {
	vocab := reference.Model.Vocab
	if other.Model.Vocab != vocab {
		return Divergence{}, fmt.Errorf("train: models of %d and %d tokens cannot be compared", vocab, other.Model.Vocab)
	}
	spill, err := os.CreateTemp("", "graft-logits-*")
	if err != nil {
		return Divergence{}, err
	}
	defer os.Remove(spill.Name())
	defer spill.Close()
	var d Divergence
	var kl, top, lossP, lossQ moments
	done := 0
	for _, group := range passes(samples, limit) {
		if err := ctx.Err(); err != nil {
			return d, err
		}
		b := batchOf(group)
		if err := writeLogits(spill, reference, b); err != nil {
			return d, err
		}
		if _, err := spill.Seek(0, io.SeekStart); err != nil {
			return d, err
		}
		r := bufio.NewReaderSize(spill, 1<<20)
		err := eachLogits(other, b, func(rows [][]float32, targets []int32) error {
			p := kernel.NewMat(len(rows), vocab)
			if err := readFloats(r, p.Data); err != nil {
				return err
			}
			for _, s := range compareRows(p, rows, targets) {
				kl.one(s.kl)
				lossP.one(s.lossP)
				lossQ.one(s.lossQ)
				d.KLMax = math.Max(d.KLMax, s.kl)
				same := 0.0
				if s.same {
					same = 1
				}
				top.one(same)
			}
			return nil
		})
		if err != nil {
			return d, err
		}
		if _, err := spill.Seek(0, io.SeekStart); err != nil {
			return d, err
		}
		done += len(group)
		if progress != nil {
			progress(done)
		}
	}
	d.Tokens = kl.n
	d.KL, d.KLError = kl.mean()
	d.SameTop, d.TopError = top.mean()
	d.Reference, _ = lossP.mean()
	d.Other, _ = lossQ.mean()
	return d, nil
}

// eachLogits runs b and gives f the logits of the tokens that have a target, some at
// a time, with their targets.
func eachLogits(s Side, b *model.Batch, f func(rows [][]float32, targets []int32) error) error {
	return s.Model.Logits(b, func(first int, logits kernel.Mat) error {
		var rows [][]float32
		var targets []int32
		for i := range logits.Rows {
			if t := b.Targets[first+i]; t >= 0 {
				rows, targets = append(rows, logits.Row(i)), append(targets, t)
			}
		}
		if len(rows) == 0 {
			return nil
		}
		return f(rows, targets)
	}, s.Adapters...)
}

// writeLogits writes the logits that eachLogits gives to the beginning of f.
func writeLogits(f *os.File, s Side, b *model.Batch) error {
	w := bufio.NewWriterSize(f, 1<<20)
	var buf []byte
	err := eachLogits(s, b, func(rows [][]float32, _ []int32) error {
		for _, row := range rows {
			buf = buf[:0]
			for _, v := range row {
				buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.Flush()
}

func readFloats(r io.Reader, dst []float32) error {
	var b [1 << 14]byte
	for len(dst) > 0 {
		n := min(len(dst), len(b)/4)
		if _, err := io.ReadFull(r, b[:4*n]); err != nil {
			return err
		}
		for i := range n {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
		dst = dst[n:]
	}
	return nil
}

// compareRows compares the predictions of each row, on all processors.
func compareRows(p kernel.Mat, q [][]float32, targets []int32) []rowStats {
	out := make([]rowStats, len(q))
	var wait sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), len(q))
	for w := range workers {
		wait.Go(func() {
			for i := w; i < len(q); i += workers {
				out[i] = compareRow(p.Row(i), q[i], targets[i])
			}
		})
	}
	wait.Wait()
	return out
}

// compareRow works in float64: KL = Σ p·(log p − log q).
func compareRow(p, q []float32, target int32) rowStats {
	maxP, topP := top(p)
	maxQ, topQ := top(q)
	var sumP, sumQ float64
	for i := range p {
		sumP += fmath.Exp(float64(p[i]) - maxP)
		sumQ += fmath.Exp(float64(q[i]) - maxQ)
	}
	logP, logQ := maxP+fmath.Log(sumP), maxQ+fmath.Log(sumQ)
	s := rowStats{same: topP == topQ, lossP: logP - float64(p[target]), lossQ: logQ - float64(q[target])}
	for i := range p {
		lp, lq := float64(p[i])-logP, float64(q[i])-logQ
		s.kl += float64(fmath.Exp(lp) * (lp - lq))
	}
	s.kl = math.Max(0, s.kl) // less than nothing only by rounding
	return s
}

// top is the largest logit and where it first stands.
func top(x []float32) (value float64, at int) {
	for i, v := range x {
		if v > x[at] {
			at = i
		}
	}
	return float64(x[at]), at
}
