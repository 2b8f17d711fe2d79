package quant

import (
	"fmt"
	"math"
	"slices"

	"github.com/graft-lora/graft/format"
)

// The 8-bit floats of safetensors (Micikevicius et al. 2022). E5M2 has infinities, E4M3
// has none, and one NaN of each sign. Values are exact in float32.

// Float8 is one of these types. Its tables are read-only.
type Float8 struct {
	typ    format.Type
	mant   int // bits of the mantissa
	bias   int
	Values [256]float32 // by code
	Levels []float32    // the finite values, ascending, zero once
	Codes  []uint8      // of each level
	top    float32      // the largest finite value
	beyond float32      // what rounds beyond it: halfway to where the next one would be
}

// float8s are the types that have a codec.
var float8s = map[format.Type]*Float8{
	format.F8_E4M3: newFloat8(format.F8_E4M3, 3, 7),
	format.F8_E5M2: newFloat8(format.F8_E5M2, 2, 15),
}

// Float8Of gives the tables of a type; ok is false for other types.
func Float8Of(t format.Type) (f *Float8, ok bool) {
	f, ok = float8s[t]
	return f, ok
}

func newFloat8(typ format.Type, mant, bias int) *Float8 {
	f := &Float8{typ: typ, mant: mant, bias: bias}
	for c := range 256 {
		exp, frac := c&0x7f>>mant, c&(1<<mant-1)
		v := math.Ldexp(float64(frac), 1-bias-mant)
		if exp > 0 {
			v = math.Ldexp(float64(frac+1<<mant), exp-bias-mant)
		}
		switch {
		case typ == format.F8_E4M3 && c&0x7f == 0x7f, typ == format.F8_E5M2 && exp == 31 && frac > 0:
			v = math.NaN()
		case typ == format.F8_E5M2 && exp == 31:
			v = math.Inf(1)
		}
		if c >= 0x80 {
			v = -v
		}
		f.Values[c] = float32(v)
		if c != 0x80 && v-v == 0 {
			f.Codes = append(f.Codes, uint8(c))
		}
	}
	slices.SortFunc(f.Codes, func(a, b uint8) int {
		if f.Values[a] < f.Values[b] {
			return -1
		}
		return 1
	})
	for _, c := range f.Codes {
		f.Levels = append(f.Levels, f.Values[c])
	}
	n := len(f.Levels)
	f.top = f.Levels[n-1]
	f.beyond = f.top + (f.top-f.Levels[n-2])/2 // exact: values of few bits
	return f
}

func init() {
	for t, f := range float8s {
		format.RegisterCodec(t, format.Codec{Decode: f.decode, Encode: f.encode})
	}
}

func (f *Float8) decode(dst []float32, src []byte) {
	dst = dst[:len(src)]
	for i, c := range src {
		dst[i] = f.Values[c]
	}
}

// encode rounds to nearest, ties to even. What rounds beyond the largest value is an error.
func (f *Float8) encode(dst []byte, src []float32, cols int, _ []float32) error {
	if cols <= 0 || len(src)%cols != 0 || len(dst) != len(src) {
		return fmt.Errorf("%d bytes for %d values in rows of %d", len(dst), len(src), cols)
	}
	for i, v := range src {
		a := float32(math.Abs(float64(v)))
		if !(a < f.beyond) {
			return &format.RowError{Row: int64(i / cols), Err: fmt.Errorf("column %d: %v cannot be encoded as %v", i%cols, v, f.typ)}
		}
		dst[i] = f.nearest(a) | uint8(math.Float32bits(v)>>24)&0x80
	}
	return nil
}

// nearest is the code of a value that is not negative and below beyond.
func (f *Float8) nearest(a float32) uint8 {
	b := math.Float32bits(a)
	shift := 23 - f.mant
	if exp := int(b>>23) - 127 + f.bias; exp >= 1 {
		b = uint32(exp)<<23 | b&(1<<23-1)
	} else if drop := 1 - exp; drop <= f.mant+2 { // subnormal: fewer bits of the mantissa
		b = b&(1<<23-1) | 1<<23
		shift += drop
	} else {
		return 0
	}
	half := uint32(1)<<(shift-1) - 1 + b>>shift&1
	return uint8((b + half) >> shift)
}
