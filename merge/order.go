package merge

import "math"

// orderStats finds elements of given rank among the magnitudes of many values
// without sorting or keeping them: one pass counts the upper halves of their bit
// patterns, which order as the numbers do, a second one the lower halves of those that
// share the wanted upper half. Memory is 0.5 MB for each rank asked for.
type orderStats struct {
	ranks []int64 // 0 is the smallest magnitude
	high  []int64
	pick  []orderPick
}

type orderPick struct {
	low  []int64
	bits uint32 // upper half, later the whole pattern
	rest int64  // rank among those that share it
}

func newOrderStats(ranks ...int64) *orderStats {
	return &orderStats{ranks: ranks, high: make([]int64, 1<<16), pick: make([]orderPick, len(ranks))}
}

// magnitude is the bit pattern of |v|; patterns compare as magnitudes do.
func magnitude(v float32) uint32 { return math.Float32bits(v) &^ (1 << 31) }

// first is the first pass over a block of values.
func (s *orderStats) first(x []float32) {
	for _, v := range x {
		s.high[magnitude(v)>>16]++
	}
}

// endFirst stands between the passes.
func (s *orderStats) endFirst() {
	for i, r := range s.ranks {
		p := &s.pick[i]
		p.low = make([]int64, 1<<16)
		p.bits, p.rest = descend(s.high, r)
		p.bits <<= 16
	}
}

// second is the second pass.
func (s *orderStats) second(x []float32) {
	for _, v := range x {
		m := magnitude(v)
		for i := range s.pick {
			if p := &s.pick[i]; m&^0xffff == p.bits {
				p.low[m&0xffff]++
			}
		}
	}
}

// found is the element of one rank.
type found struct {
	bits  uint32 // its magnitude
	rest  int64  // its rank among those of the same magnitude
	equal int64  // how many these are
}

// end returns what was found for each rank.
func (s *orderStats) end() []found {
	var out []found
	for i := range s.pick {
		p := &s.pick[i]
		low, r := descend(p.low, p.rest)
		out = append(out, found{p.bits | low, r, p.low[low]})
	}
	return out
}

// descend finds the bin that holds the element of rank r, and its rank in the bin.
func descend(bins []int64, r int64) (bin uint32, rest int64) {
	for i, n := range bins {
		if r < n {
			return uint32(i), r
		}
		r -= n
	}
	return uint32(len(bins) - 1), 0
}
