package merge

import (
	"context"
	"sort"
	"sync"

	"github.com/graft-lora/graft/format"
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
	// works are what methods work in, used again for tensors of the same type and as many columns;
	// nil where there are no others.
	works *sync.Pool
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
