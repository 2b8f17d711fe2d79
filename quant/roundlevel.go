package quant

// RoundLevel rounds y to one of the two levels beside it, up if u (in [0, 1)) is
// below y's share of the way; outside the levels, which ascend, it clamps. from is where the
// search begins. It gives the number of the level.
func RoundLevel(levels []float32, from uint8, y, u float64) uint8 {
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
