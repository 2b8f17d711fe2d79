package quant

import (
	"errors"
	"math"

	"github.com/graft-lora/graft/internal/kernel"
)

// LLM.int8 (Dettmers et al. 2022): a row of codes under the largest magnitude of
// the row, after rounding to half precision.

// quantizeInt8 packs one row into codes and returns its scale. It rounds src to half precision.
func quantizeInt8(dst []byte, src []float32) (scale float32, err error) {
	for i, v := range src {
		src[i] = kernel.F16Value(kernel.F16Bits(v))
	}
	scale, ok := maxAbs(src)
	if !ok {
		return 0, errors.New("an element is not finite in half precision")
	}
	if scale == 0 {
		clear(dst)
		return 0, nil
	}
	// A product of the reciprocal, which is not always the quotient 127/scale.
	inv := float32(1/scale) * 127
	for i, v := range src {
		dst[i] = byte(int8(math.RoundToEven(float64(v * inv))))
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
