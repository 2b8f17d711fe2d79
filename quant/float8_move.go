package quant

import (
	"math"

	"github.com/graft-lora/graft/internal/rng"
)

// Move adds a change to values, and rounds each sum to one of the two values beside it, to the
// upper one with the probability that makes the expected value exact: number place+i of dice
// decides about value i. Sums beyond the largest value become that one; without a change a
// code stays what it is. raw and dst are codes, as many as delta has numbers, and do not overlap. It gives the first place where the sum is not a number or infinite, or -1; what dst
// has then means nothing.
func (f *Float8) Move(dst, raw []byte, delta []float32, dice rng.Stream, place uint64) int {
	raw, dst = raw[:len(delta)], dst[:len(delta)]
	least := uint64(1023 + 1 - f.bias) // exponent, as a float64 has it, of the smallest normal value
	mant, top := uint64(f.mant), uint64(f.Codes[len(f.Codes)-1])
	bad := uint64(0)
	for i, d := range delta {
		b := math.Float64bits(float64(f.Values[raw[i]]) + float64(d))
		negative, b := b>>63, b<<1>>1
		// The magnitude in steps of the values round it: whole ones are what the code of the
		// value below has in its mantissa.
		exp := max(b>>52, least)
		steps := math.Float64frombits(b) * math.Float64frombits((2*1023+mant-exp)<<52)
		whole := int64(steps)
		part := steps - float64(whole) // exact: a power of two changes no bit of steps
		// The upper one is that of the smaller magnitude if the sum is negative.
		up := upward[negative] + float64(sides[negative]*part)
		code := uint64(whole) + (exp-least)<<(mant&63)
		// A coin that falls on either side cannot be foreseen: no branch may wait for it.
		below := math.Float64bits(dice.Float64(place+uint64(i))-up) >> 63
		code += below ^ negative
		code = min(code, top)
		if code != 0 {
			code |= negative << 7
		}
		if d == 0 {
			code, b = uint64(raw[i]), 0
		}
		bad |= b + 1<<52 // up to the sign if the exponent is the one of NaN and infinities
		dst[i] = uint8(code)
	}
	if bad>>63 == 0 {
		return -1
	}
	for i, d := range delta {
		if y := float64(f.Values[raw[i]]) + float64(d); d != 0 && y-y != 0 {
			return i
		}
	}
	return -1
}

// upward and sides turn a share of the way from zero into one of the way up, of sums that are
// positive and of those that are negative.
var upward, sides = [2]float64{0, 1}, [2]float64{1, -1}
