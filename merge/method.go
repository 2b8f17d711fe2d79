package merge

import (
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
	// open prepares the method for one tensor.
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
	cols  int
	seed  uint64
	codec format.Codec
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

// openRequantize adds in float32 and encodes the sum anew, scales and all.
func openRequantize(t *target) (encoder, error) {
	codec, err := format.EncoderOf(t.typ)
	if err != nil {
		return nil, err
	}
	return func(dst, raw []byte, delta []float32, row int64) error {
		w := make([]float32, len(delta))
		codec.Decode(w, raw)
		for i, d := range delta {
			w[i] += d
		}
		return codec.Encode(dst, w, t.cols, nil)
	}, nil
}

// openKeep moves each code to one of the two levels round its wanted value, the
// upper one with the probability that makes the expected value exact:
//
//	y = level(code) + delta/step;  lo <= y <= hi neighbouring levels
//	code' = hi with probability (y - lo) / (hi - lo), else lo
//
// Changes far smaller than a step survive as an average over many weights, where
// rounding to nearest would drop each of them. Plain float types have no codes and
// round the sum to nearest.
func openKeep(t *target) (encoder, error) {
	if !t.typ.Quantized() {
		return openRequantize(t)
	}
	g, ok := quant.GridOf(t.typ)
	if !ok {
		return nil, format.Unsupported("method keep cannot move codes of %v, which codes weights in groups; use --method requantize, or another --type", t.typ)
	}
	dice := rng.New(t.seed, "keep", t.name)
	return func(dst, raw []byte, delta []float32, row int64) error {
		codes := make([]uint8, len(delta))
		step := make([]float32, len(delta)/g.Sub)
		min := make([]float32, len(delta)/g.Sub)
		g.Unpack(codes, step, min, raw)
		pos := row * int64(t.cols)
		for s, st := range step {
			if st == 0 {
				continue
			}
			for i := s * g.Sub; i < (s+1)*g.Sub; i++ {
				if delta[i] == 0 {
					continue
				}
				y := float64(g.Levels[codes[i]]) + float64(delta[i])/float64(st)
				if y != y {
					return fmt.Errorf("rows from %d: the change is not a number", row)
				}
				codes[i] = roundLevel(g.Levels, codes[i], y, dice.Float64(uint64(pos)+uint64(i)))
			}
		}
		copy(dst, raw)
		g.Pack(dst, codes)
		return nil
	}, nil
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
