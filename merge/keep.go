package merge

import (
	"fmt"
	"math"
	"sync"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/quant"
)

// openKeep moves each code to one of the two levels round its wanted value, the
// upper one with the probability that makes the expected value exact:
//
//	y = level(code) + delta/step;  lo <= y <= hi neighbouring levels
//	code' = hi with probability (y - lo) / (hi - lo), else lo
//
// Changes far smaller than a step survive as an average over many weights, where
// rounding to nearest would drop each of them. A block with a value that its levels
// do not reach gets new scales, as requantize would give it: there the change is
// no longer small against the step. Floats of 8 bits are levels like others, beyond
// which a value is cut off. Those of more bits round the sum to nearest.
func openKeep(t *target) (encoder, error) {
	if f, ok := quant.Float8Of(t.typ); ok {
		dice, cols := rng.New(t.seed, "keep", t.name), uint64(t.cols)
		return func(dst, raw []byte, delta []float32, row int64) error {
			if i := f.Move(dst, raw, delta, dice, uint64(row)*cols); i >= 0 {
				return fmt.Errorf("row %d: the change, or the value that it changes, is not a number", row+int64(i/t.cols))
			}
			return nil
		}, nil
	}
	if !t.typ.Quantized() {
		return openRequantize(t)
	}
	g, ok := quant.GridOf(t.typ)
	if !ok {
		return nil, format.Unsupported("method keep cannot move codes of %v without bias: it codes weights in groups; use fit with --data, requantize, or another --type", t.typ)
	}
	k := &keeper{g: g, codec: t.codec, cols: t.cols, dice: rng.New(t.seed, "keep", t.name), even: true}
	for i, l := range g.Levels {
		k.even = k.even && l == g.Levels[0]+float32(i)
	}
	return k.encode, nil
}

type keeper struct {
	g     *quant.Grid
	codec format.Codec
	cols  int
	dice  rng.Stream
	even  bool // the levels are one apart
	spare sync.Pool
}

// keepWork are the codes of rows.
type keepWork struct {
	codes, moved []uint8
	step, min    []float32
}

func (k *keeper) work(n int) *keepWork {
	if w, ok := k.spare.Get().(*keepWork); ok && len(w.codes) >= n {
		return w
	}
	return &keepWork{codes: make([]uint8, n), moved: make([]uint8, k.g.Block), step: make([]float32, n/k.g.Sub), min: make([]float32, n/k.g.Sub)}
}

func (k *keeper) encode(dst, raw []byte, delta []float32, row int64) error {
	g := k.g
	work := k.work(len(delta))
	defer k.spare.Put(work)
	codes, step := work.codes[:len(delta)], work.step[:len(delta)/g.Sub]
	g.Unpack(codes, step, work.min, raw)
	copy(dst, raw)
	for b := range len(delta) / g.Block {
		from, to := b*g.Block, (b+1)*g.Block
		block := dst[b*g.Bytes : (b+1)*g.Bytes]
		place := uint64(row)*uint64(k.cols) + uint64(from)
		if k.even && k.moveEven(work.moved, codes[from:to], step[from/g.Sub:to/g.Sub], delta[from:to], place) {
			g.Pack(block, work.moved)
			continue
		}
		inside, err := k.move(codes[from:to], step[from/g.Sub:to/g.Sub], delta[from:to], place)
		if err != nil {
			return fmt.Errorf("rows from %d: %w", row, err)
		}
		if inside {
			g.Pack(block, codes[from:to])
			continue
		}
		w := make([]float32, g.Block)
		k.codec.Decode(w, block)
		for i, d := range delta[from:to] {
			w[i] += d
		}
		if err := k.codec.Encode(block, w, g.Block, nil); err != nil {
			return fmt.Errorf("rows from %d: %w", row, err)
		}
	}
	return nil
}

// move rounds the codes of a block; inside is false if a value lies beyond the
// levels by more than half their last distance. pos is the place of the first element in its tensor.
func (k *keeper) move(codes []uint8, step, delta []float32, pos uint64) (inside bool, err error) {
	levels := k.g.Levels
	top := len(levels) - 1
	lo := float64(levels[0]) - float64(float64(levels[1]-levels[0])/2)
	hi := float64(levels[top]) + float64(float64(levels[top]-levels[top-1])/2)
	for i, d := range delta {
		st := step[i/k.g.Sub]
		if d == 0 {
			continue
		}
		if st == 0 {
			return false, nil
		}
		y := float64(levels[codes[i]]) + float64(d)/float64(st)
		if y != y {
			return false, fmt.Errorf("the change is not a number")
		}
		if y < lo || y > hi {
			return false, nil
		}
		codes[i] = quant.RoundLevel(levels, codes[i], y, k.dice.Float64(pos+uint64(i)))
	}
	return true, nil
}

// moveEven does what move does where levels are one apart, and is false, with moved of no
// meaning, where a code cannot simply be moved. It has neither a search among levels nor a branch
// on the coin, which nobody can foresee.
func (k *keeper) moveEven(moved, codes []uint8, step, delta []float32, pos uint64) bool {
	least, top := float64(k.g.Levels[0]), len(k.g.Levels)-1
	lo, hi := least-0.5, least+float64(top)+0.5
	for s, st := range step {
		from, to := s*k.g.Sub, (s+1)*k.g.Sub
		d, c, m := delta[from:to], codes[from:to], moved[from:to]
		step, outside := float64(st), false
		for i, d := range d {
			y := float64(c[i]) + least + float64(d)/step
			whole := math.Floor(y)
			below := math.Float64bits(k.dice.Float64(pos+uint64(from+i))-(y-whole)) >> 63
			m[i] = uint8(min(max(int(whole-least)+int(below), 0), top))
			outside = outside || !(y >= lo && y <= hi) // NaN, too
		}
		if outside {
			return false
		}
	}
	return true
}
