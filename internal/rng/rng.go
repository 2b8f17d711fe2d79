// Package rng gives random numbers that are a function of where they are used and
// of nothing else: a seed, the name of a stream, and a position in it. Work can
// therefore be divided over any number of threads, stopped and resumed, and still
// draw the same numbers. The generator is SplitMix64 (Steele, Lea, Flood 2014)
// entered at a position; it is not for secrets.
//
//	s := rng.New(seed, "init", tensorName)
//	x := s.Uniform(i) // the i-th number of that stream, in [0, 1)
package rng

import "math/bits"

const gamma = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio, odd

// Stream is an endless sequence that can be read at any position, by any number of
// goroutines at once.
type Stream struct{ key uint64 }

// New returns the stream of a seed and names. Different names give streams that
// have nothing to do with each other.
func New(seed uint64, names ...string) Stream {
	h := mix(seed + gamma)
	for _, n := range names {
		for i := 0; i < len(n); i++ {
			h = mix(h ^ uint64(n[i]))
		}
		h = mix(h + gamma) // so that ("ab", "c") is not ("a", "bc")
	}
	return Stream{h}
}

// At is the stream of position i within s, for numbering things twice: steps, then
// elements.
func (s Stream) At(i uint64) Stream { return Stream{mix(mix(s.key) + (i+1)*gamma)} }

// Uint64 is the number at position i.
func (s Stream) Uint64(i uint64) uint64 { return mix(s.key + (i+1)*gamma) }

// Uniform is the number at position i as one of the 2^24 float32 k/2^24, in [0, 1).
func (s Stream) Uniform(i uint64) float32 { return float32(float32(s.Uint64(i)>>40) * 0x1p-24) }

// Float64 is the number at position i as k/2^53, in [0, 1).
func (s Stream) Float64(i uint64) float64 { return float64(float64(s.Uint64(i)>>11) * 0x1p-53) }

// Perm is a permutation of 0 … n-1: Fisher and Yates's, with positions 0 … n-2 of s.
func (s Stream) Perm(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	for i := n - 1; i > 0; i-- {
		hi, _ := bits.Mul64(s.Uint64(uint64(n-1-i)), uint64(i+1))
		p[i], p[hi] = p[hi], p[i]
	}
	return p
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
