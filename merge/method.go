package merge

import (
	"context"
	"fmt"
	"sort"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/quant"
)

// Method is a way to put a change into a tensor that keeps its type.
type Method struct {
	Name string
	Help string // one line, for --help and for the report
	Data bool   // it uses the moments of inputs, and does what keep does where there are none
	nest bool   // tensors go into the type that [NestedType] gives, where there is one
	// open prepares the method for one tensor. Without an encoder the sum is encoded anew.
	open func(t *target) (encoder, error)
}

// encoder merges whole rows of one tensor: raw are their stored bytes, delta the
// change to their values; the merged bytes go to dst, which has the length of
// raw. It is safe for concurrent use.
type encoder func(dst, raw []byte, delta []float32, row int64) error

// target is a tensor that a method merges into.
type target struct {
	name  string
	typ   format.Type
	rows  int64
	cols  int
	seed  uint64
	codec format.Codec
	raw   format.RawReader // the base's rows
	delta *Delta
	// inputs returns the moments of the tensor's inputs, nil where there are none. It
	// is for prepare only.
	inputs func(context.Context) (*inputs, error)
	// onInputs is told <R, D>, <D, D> and <R-D, R-D> in the moments by methods that
	// know them.
	onInputs func(row int64, rd, dd, ee float64)

	// guess is what the stretch of a tensor of this type was last, for methods that look for one.
	guess *float32
	// together, which open may set, is how many rows are best merged at a time.
	together int64

	// prepare and finish, which open may set, are called before the first row is
	// merged and after the last one.
	prepare func(context.Context) error
	finish  func()
}

var methods = map[string]*Method{}

func register(m *Method) { methods[m.Name] = m }

func init() {
	register(&Method{Name: "requantize", open: openRequantize,
		Help: "dequantize, add, quantize again: what other tools do; small changes are rounded away"})
	register(&Method{Name: "keep", open: openKeep,
		Help: "keep block scales and minimums, move codes by unbiased stochastic rounding; needs no data"})
}

// MethodByName finds a method.
func MethodByName(name string) (*Method, error) {
	if m, ok := methods[name]; ok {
		return m, nil
	}
	return nil, format.Usagef("no merge method is called %q; there are %v", name, MethodNames())
}

// MethodNames lists the methods in alphabetical order.
func MethodNames() []string {
	var names []string
	for n := range methods {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// openRequantize encodes the sum anew, scales and all, which mergeOutput does itself.
func openRequantize(t *target) (encoder, error) {
	_, err := format.EncoderOf(t.typ)
	return nil, err
}

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
	k := &keeper{g: g, codec: t.codec, cols: t.cols, dice: rng.New(t.seed, "keep", t.name)}
	return k.encode, nil
}

type keeper struct {
	g     *quant.Grid
	codec format.Codec
	cols  int
	dice  rng.Stream
}

func (k *keeper) encode(dst, raw []byte, delta []float32, row int64) error {
	g := k.g
	codes := make([]uint8, len(delta))
	step := make([]float32, len(delta)/g.Sub)
	min := make([]float32, len(delta)/g.Sub)
	g.Unpack(codes, step, min, raw)
	copy(dst, raw)
	for b := range len(delta) / g.Block {
		from, to := b*g.Block, (b+1)*g.Block
		inside, err := k.move(codes[from:to], step[from/g.Sub:to/g.Sub], delta[from:to], uint64(row)*uint64(k.cols)+uint64(from))
		if err != nil {
			return fmt.Errorf("rows from %d: %w", row, err)
		}
		block := dst[b*g.Bytes : (b+1)*g.Bytes]
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
		codes[i] = roundLevel(levels, codes[i], y, k.dice.Float64(pos+uint64(i)))
	}
	return true, nil
}

// roundLevel rounds y to one of the two levels beside it, up if u (in [0, 1)) is
// below y's share of the way; outside the levels it clamps. from is where the search begins.
func roundLevel(levels []float32, from uint8, y, u float64) uint8 {
	c := int(from)
	last := len(levels) - 1
	for c < last && float64(levels[c+1]) <= y {
		c++
	}
	for c > 0 && float64(levels[c]) > y {
		c--
	}
	if c == last || y <= float64(levels[c]) {
		return uint8(c)
	}
	lo, hi := float64(levels[c]), float64(levels[c+1])
	if u < (y-lo)/(hi-lo) {
		c++
	}
	return uint8(c)
}
