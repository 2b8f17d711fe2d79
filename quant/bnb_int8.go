package quant

import (
	"fmt"
	"math"
)

// LLM.int8 (Dettmers et al. 2022): a row of codes under the largest magnitude of
// the row, after rounding to half precision.

// quantizeInt8 packs one row into codes and returns its scale.
func quantizeInt8(dst []byte, src []float32) (scale float32, err error) {
	for _, v := range src {
		if !(v-v == 0) {
			return 0, fmt.Errorf("the row holds %v", v)
		}
		h := halfToFloat(floatToHalf(v))
		if math.IsInf(float64(h), 0) {
			return 0, fmt.Errorf("the row holds %v, which half precision does not", v)
		}
		scale = max(scale, float32(math.Abs(float64(h))))
	}
	if scale == 0 {
		clear(dst)
		return 0, nil
	}
	// A product of the reciprocal, which is not always the quotient 127/scale.
	inv := float32(1/scale) * 127
	for i, v := range src {
		dst[i] = byte(int8(math.RoundToEven(float64(halfToFloat(floatToHalf(v)) * inv))))
	}
	return scale, nil
}

// dequantizeInt8 expands codes under scale.
func dequantizeInt8(dst []float32, src []byte, scale float32) {
	const inv = float32(1.0 / 127)
	n := int8Vector(dst, src, scale, inv)
	dst, src = dst[n:], src[n:]
	for i, c := range src {
		dst[i] = float32(float32(int8(c))*scale) * inv
	}
}
