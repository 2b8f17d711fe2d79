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

// atRanks finds the magnitudes at ranks of what visit gives block by block, twice the same.
func atRanks(visit func(f func(x []float32)) error, ranks ...int64) ([]found, error) {
	s := newOrderStats(ranks...)
	if err := visit(s.first); err != nil {
		return nil, err
	}
	s.endFirst()
	if err := visit(s.second); err != nil {
		return nil, err
	}
	return s.end(), nil
}

// values is a visit to the values of a tensor in order, in blocks: at is the number of the
// block's first value.
type values func(f func(x []float32, at int)) error

// span is a range of the ranks by magnitude of a tensor's values; equal ones rank from the
// last to the first.
type span struct {
	lo, hi      uint32 // magnitudes at its ends
	first, last int    // those of magnitude lo up to first are in it, and of magnitude hi those after last
}

// newSpan finds the ranks from to (excluded) to of n values.
func newSpan(v values, n, from, to int64) (*span, error) {
	if from >= to {
		return &span{lo: 1, first: -1, last: math.MaxInt}, nil // nothing
	}
	ranks := []int64{from}
	if to < n {
		ranks = append(ranks, to-1)
	}
	at, err := atRanks(func(f func(x []float32)) error {
		return v(func(x []float32, _ int) { f(x) })
	}, ranks...)
	if err != nil {
		return nil, err
	}
	s := &span{lo: at[0].bits, hi: math.MaxUint32, first: math.MaxInt, last: -1}
	whole := at[0].rest == 0
	left, right := at[0].equal-at[0].rest, int64(0)
	if to < n {
		s.hi = at[1].bits
		whole = whole && at[1].rest+1 == at[1].equal
		right = at[1].equal - at[1].rest - 1
	}
	if whole {
		return s, nil
	}
	// The left-th of magnitude lo is the last one inside, the right-th of magnitude hi the last outside.
	err = v(func(x []float32, at int) {
		for i, a := range x {
			m := magnitude(a)
			if m == s.lo {
				if left--; left == 0 {
					s.first = at + i
				}
			}
			if m == s.hi {
				if right--; right == 0 {
					s.last = at + i
				}
			}
		}
	})
	return s, err
}

// has says whether the value at a place is in the span; m is its magnitude.
func (s *span) has(m uint32, at int) bool {
	switch m {
	case s.lo:
		return at <= s.first && (s.lo != s.hi || at > s.last)
	case s.hi:
		return at > s.last
	}
	return s.lo < m && m < s.hi
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

// magnitudeOrder orders rows of one length by magnitude.
type magnitudeOrder struct{ order, spare []uint32 }

func newMagnitudeOrder(n int) *magnitudeOrder {
	return &magnitudeOrder{make([]uint32, n), make([]uint32, n)}
}

// of gives the places of a row's values, from the smallest magnitude to the largest, equal ones as
// they stand: a radix sort, whose time is linear. The slice is lent until the next call.
func (o *magnitudeOrder) of(row []float32) []uint32 {
	var counts [4][256]uint32
	for i, v := range row {
		o.order[i] = uint32(i)
		m := magnitude(v)
		for b := range counts {
			counts[b][m>>(8*b)&255]++
		}
	}
	if len(row) == 0 {
		return nil
	}
	for b := range counts {
		count, shift := &counts[b], 8*b
		if count[magnitude(row[0])>>shift&255] == uint32(len(row)) {
			continue // all have the same byte here
		}
		var at uint32
		for i, n := range count {
			count[i], at = at, at+n
		}
		for _, i := range o.order {
			place := &count[magnitude(row[i])>>shift&255]
			o.spare[*place] = i
			*place++
		}
		o.order, o.spare = o.spare, o.order
	}
	return o.order
}
