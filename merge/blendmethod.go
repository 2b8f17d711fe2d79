package merge

import (
	"slices"
	"sort"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/rng"
)

// blendMethod is a way to make one tensor of those of several models.
type blendMethod struct {
	name, help string
	base       baseUse
	min, max   int      // models besides the base; max 0: any number
	params     []string // that it looks at
	// open reads what the method must know of whole tensors, pass by pass, and
	// returns the function that makes blocks of rows.
	open func(j *blendJob) (blendBlock, error)
}

// baseUse says what base_model is to a method.
type baseUse int

const (
	baseIgnored  baseUse = iota // it is a model like others, if it is listed
	baseOptional                // what models are compared with, if there is one
	baseNeeded
)

// blendBlock makes whole rows, beginning with row, of the same rows of the models
// (and of the base, nil without one), which it may overwrite. It is safe for concurrent use.
type blendBlock func(dst []float32, row int64, x [][]float32, base []float32)

var blendMethods = map[string]*blendMethod{}

func registerBlend(m *blendMethod) { blendMethods[m.name] = m }

func blendByName(name string) (*blendMethod, error) {
	if m, ok := blendMethods[name]; ok {
		return m, nil
	}
	names, _ := BlendMethods()
	return nil, format.Usagef("no merge_method is called %q; did you mean %q?", name, nearest(name, names))
}

// BlendMethods lists the methods of recipes with their help, in alphabetical order.
func BlendMethods() (names, help []string) {
	for n := range blendMethods {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		help = append(help, blendMethods[n].help)
	}
	return names, help
}

// blendParameters are the names of all methods' parameters.
func blendParameters() []string {
	all := []string{"int8_mask"} // saves mergekit memory and changes nothing
	for _, m := range blendMethods {
		for _, p := range m.params {
			if !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	sort.Strings(all)
	return all
}

// blendJob is one matrix (of a stack, one of them) to be blended.
type blendJob struct {
	name       string // in Hugging Face's terms
	rows, cols int64
	models     []blendInput
	base       *blendInput
	order      func(int64) int64 // where a row stands in Hugging Face's order; nil: there
	// round is the rounding to the recipe's dtype, in place; it does nothing where
	// that is float32.
	round func(x []float32)
	seed  uint64
	// global gives a parameter that belongs to no model.
	global func(name string, def float64) float64
	// mask, if not nil, replaces random choices and those among equals.
	mask func(tensor string, model int, element int64) bool
}

// blendInput is one model's matrix.
type blendInput struct {
	rows  format.RowReader
	first int64   // the matrix's first row in rows
	shift float32 // GGUF's values are so much more than Hugging Face's
	// param gives a parameter for this model.
	param func(name string, def float64) (float64, error)
}

// read reads rows of the input as the recipe means them.
func (in *blendInput) read(dst []float32, row int64, round func([]float32)) error {
	if err := in.rows.ReadRows(dst, in.first+row); err != nil {
		return err
	}
	if in.shift != 0 {
		for i := range dst {
			dst[i] -= in.shift
		}
	}
	round(dst)
	return nil
}

// element is the place of a row's first element in Hugging Face's order.
func (j *blendJob) element(row int64) int64 {
	if j.order != nil {
		row = j.order(row)
	}
	return row * j.cols
}

// dice are the random numbers of a model's tensor.
func (j *blendJob) dice(model int) rng.Stream {
	return rng.New(j.seed, "blend", j.name).At(uint64(model))
}

// params gives a parameter of all models.
func (j *blendJob) params(name string, def float64) ([]float64, error) {
	var out []float64
	for i := range j.models {
		v, err := j.models[i].param(name, def)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

const blendBlockFloats = 1 << 18

// pass reads the matrix once, in blocks of rows.
func (j *blendJob) pass(f blendVisit) error {
	if j.cols == 0 || j.rows == 0 {
		return nil
	}
	n := min(max(blendBlockFloats/j.cols, 1), j.rows)
	x, base := j.buffers(n)
	for row := int64(0); row < j.rows; row += n {
		k := min(n, j.rows-row)
		for i := range x {
			x[i] = x[i][:k*j.cols]
		}
		if base != nil {
			base = base[:k*j.cols]
		}
		if err := j.readBlock(x, base, row); err != nil {
			return err
		}
		f(row, x, base)
	}
	return nil
}

// blendVisit sees a block of rows of all models and the base.
type blendVisit func(row int64, x [][]float32, base []float32)

func (j *blendJob) buffers(rows int64) (x [][]float32, base []float32) {
	for range j.models {
		x = append(x, make([]float32, rows*j.cols))
	}
	if j.base != nil {
		base = make([]float32, rows*j.cols)
	}
	return x, base
}

func (j *blendJob) readBlock(x [][]float32, base []float32, row int64) error {
	for i := range j.models {
		if err := j.models[i].read(x[i], row, j.round); err != nil {
			return err
		}
	}
	if j.base != nil {
		return j.base.read(base, row, j.round)
	}
	return nil
}

// subtractBase turns models into their differences from the base, where there is one.
func (j *blendJob) subtractBase(x [][]float32, base []float32) {
	if base == nil {
		return
	}
	for _, v := range x {
		for i, b := range base {
			v[i] -= b
		}
		j.round(v)
	}
}

// noRound is the rounding to float32.
func noRound([]float32) {}

// roundTo rounds to a 16-bit type and back.
func roundTo(t format.Type) (func([]float32), error) {
	if t == format.F32 {
		return noRound, nil
	}
	c, err := format.EncoderOf(t)
	if err != nil {
		return nil, err
	}
	return func(x []float32) {
		const block = 4096
		var b [2 * block]byte
		for len(x) > 0 {
			n := min(len(x), block)
			if c.Encode(b[:2*n], x[:n], n, nil) == nil { // not finite: left for the writer to name
				c.Decode(x[:n], b[:2*n])
			}
			x = x[n:]
		}
	}, nil
}
