package train

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
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

// Comparison compares models with one reference. The reference's logits pass through a
// temporary file, so that neither memory nor the models' order matters; where it may hold
// those of all samples the reference is run once, else once for each model.
type Comparison struct {
	reference Side
	groups    [][]data.Sample
	sequences int
	spill     *os.File
	keep      bool        // all logits have room
	offsets   []int64     // of each group's logits
	losses    [][]float32 // of the reference, by group; nil until it has been run
}

// NewComparison prepares comparisons with reference on the trained tokens of samples. limit
// is how many tokens are run at once, and so a bound on memory; room is how many bytes the
// temporary file may have, beyond which it holds the logits of one pass.
func NewComparison(reference Side, samples []data.Sample, limit int, room int64) (*Comparison, error) {
	spill, err := os.CreateTemp("", "graft-logits-*")
	if err != nil {
		return nil, err
	}
	c := &Comparison{reference: reference, groups: passes(samples, limit), sequences: len(samples), spill: spill}
	c.losses, c.offsets = make([][]float32, len(c.groups)), make([]int64, len(c.groups))
	var size int64
	for g, group := range c.groups {
		c.offsets[g] = size
		for _, s := range group {
			size += 4 * int64(reference.Model.Vocab) * int64(targets(s))
		}
	}
	if c.keep = size <= room; !c.keep {
		clear(c.offsets)
	}
	return c, nil
}

// Close removes the temporary file.
func (c *Comparison) Close() error {
	return errors.Join(c.spill.Close(), os.Remove(c.spill.Name()))
}

// run makes sure that the reference's logits of a group are in the file.
func (c *Comparison) run(g int, b *model.Batch) error {
	if c.keep && c.losses[g] != nil {
		return nil
	}
	losses := []float32{}
	w := bufio.NewWriterSize(io.NewOffsetWriter(c.spill, c.offsets[g]), 1<<20)
	var buf []byte
	err := eachLogits(c.reference, b, func(rows [][]float32, targets []int32) error {
		for _, row := range rows {
			buf = buf[:0]
			for _, v := range row {
				buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
		losses = appendLosses(losses, rows, targets)
		return nil
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		c.losses[g] = losses
	}
	return err
}

// appendLosses adds the losses of rows of logits, which become useless: those of
// [model.Model.Loss], bit for bit.
func appendLosses(losses []float32, rows [][]float32, targets []int32) []float32 {
	first := len(losses)
	losses = append(losses, make([]float32, len(rows))...)
	eachRow(len(rows), func(i int) { losses[first+i] = kernel.CrossEntropy(rows[i], rows[i], int(targets[i]), 1) })
	return losses
}

// Reference gives the loss of the reference, as [Evaluate] does.
func (c *Comparison) Reference(ctx context.Context, progress func(done int)) (EvalResult, error) {
	var all moments
	done := 0
	for g, group := range c.groups {
		if err := ctx.Err(); err != nil {
			return EvalResult{}, err
		}
		if c.losses[g] == nil {
			if err := c.run(g, batchOf(group)); err != nil {
				return EvalResult{}, err
			}
		}
		all.add(c.losses[g])
		if done += len(group); progress != nil {
			progress(done)
		}
	}
	return evalResult(all, c.sequences), nil
}

// With gives the loss of other, as [Evaluate] does, and its divergence from the reference. The
// two must have the same vocabulary.
func (c *Comparison) With(ctx context.Context, other Side, progress func(done int)) (EvalResult, Divergence, error) {
	fail := func(err error) (EvalResult, Divergence, error) { return EvalResult{}, Divergence{}, err }
	vocab := c.reference.Model.Vocab
	if other.Model.Vocab != vocab {
		return fail(fmt.Errorf("train: models of %d and %d tokens cannot be compared", vocab, other.Model.Vocab))
	}
	var d Divergence
	var all, kl, top, lossP, lossQ moments
	done := 0
	for g, group := range c.groups {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		b := batchOf(group)
		if err := c.run(g, b); err != nil {
			return fail(err)
		}
		r := bufio.NewReaderSize(io.NewSectionReader(c.spill, c.offsets[g], 1<<62), 1<<20)
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
			all.add(appendLosses(nil, rows, targets))
			return nil
		})
		if err != nil {
			return fail(err)
		}
		if done += len(group); progress != nil {
			progress(done)
		}
	}
	d.Tokens = kl.n
	d.KL, d.KLError = kl.mean()
	d.SameTop, d.TopError = top.mean()
	d.Reference, _ = lossP.mean()
	d.Other, _ = lossQ.mean()
	return evalResult(all, c.sequences), d, nil
}

// Compare gives the divergence of other from reference on the trained tokens of samples:
// one use of a [Comparison].
func Compare(ctx context.Context, reference, other Side, samples []data.Sample, limit int, progress func(done int)) (Divergence, error) {
	c, err := NewComparison(reference, samples, limit, 0)
	if err != nil {
		return Divergence{}, err
	}
	defer c.Close()
	_, d, err := c.With(ctx, other, progress)
	return d, err
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
	eachRow(len(q), func(i int) { out[i] = compareRow(p.Row(i), q[i], targets[i]) })
	return out
}

// eachRow calls f for each row, on all processors.
func eachRow(n int, f func(i int)) {
	var wait sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), n)
	for w := range workers {
		wait.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wait.Wait()
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
