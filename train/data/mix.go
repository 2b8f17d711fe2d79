package data

import (
	"math"
	"slices"

	"github.com/graft-lora/graft/internal/rng"
)

// Part is the samples of one file in a set made of several.
type Part struct {
	Samples int     // of the file
	Weight  float64 // how often each of them comes in an epoch, on average
}

// some is how many samples of a part come once more than the others in an epoch.
func (p Part) some() int {
	_, frac := math.Modf(p.Weight)
	if frac == 0 || p.Samples == 0 {
		return 0
	}
	return max(1, int(float64(frac*float64(p.Samples))+0.5))
}

// PerEpoch is how many samples of the part come in an epoch.
func (p Part) PerEpoch() int { return int(p.Weight)*p.Samples + p.some() }

// Mix is the order in which the samples of parts, which stand one after another, come
// in an epoch. A weight of 2 takes every sample twice, one of 0.5 half of them: others
// in the next epoch, until all have come. Without shuffle the parts come one after
// another in the order of their files. Nothing counts but the arguments; of a single
// part with weight 1 it is [Order].
func Mix(parts []Part, shuffle bool, seed uint64, epoch int) []int {
	var all []int
	first := 0
	for i, p := range parts {
		for range int(p.Weight) {
			for j := range p.Samples {
				all = append(all, first+j)
			}
		}
		// The permutations of the part, laid end to end, are dealt out epoch by epoch.
		if k := p.some(); k > 0 {
			from := len(all)
			var perm []int
			for at := epoch * k; at < (epoch+1)*k; at++ {
				if perm == nil || at%p.Samples == 0 {
					perm = rng.New(seed, "mix").At(uint64(i)<<32 | uint64(at/p.Samples)).Perm(p.Samples)
				}
				all = append(all, first+perm[at%p.Samples])
			}
			slices.Sort(all[from:])
		}
		first += p.Samples
	}
	if shuffle {
		inOrder := all
		all = make([]int, len(inOrder))
		for i, j := range Order(len(inOrder), true, seed, epoch) {
			all[i] = inOrder[j]
		}
	}
	return all
}
