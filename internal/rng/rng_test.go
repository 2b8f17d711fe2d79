package rng

import (
	"math"
	"slices"
	"testing"
)

// TestSplitMix compares with the published sequence of SplitMix64 for seed 1234567.
func TestSplitMix(t *testing.T) {
	s := Stream{1234567}
	for i, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821} {
		if got := s.Uint64(uint64(i)); got != want {
			t.Errorf("number %d is %d, want %d", i, got, want)
		}
	}
}

func TestStreamsDiffer(t *testing.T) {
	seen := map[uint64]string{}
	for name, s := range map[string]Stream{
		"0": New(0), "1": New(1), "ab c": New(0, "ab", "c"), "a bc": New(0, "a", "bc"), "abc": New(0, "abc"),
		"at 0": New(0).At(0), "at 1": New(0).At(1), "at at": New(0).At(0).At(0),
	} {
		for i := range uint64(1000) {
			if other, ok := seen[s.Uint64(i)]; ok {
				t.Errorf("streams %s and %s share a number", name, other)
			}
			seen[s.Uint64(i)] = name
		}
	}
}

func TestUniform(t *testing.T) {
	s := New(7, "u")
	var sum, sq float64
	const n = 200000
	for i := range uint64(n) {
		u := float64(s.Uniform(i))
		if u < 0 || u >= 1 {
			t.Fatalf("%v is outside [0, 1)", u)
		}
		sum, sq = sum+u, sq+u*u
	}
	// Mean 1/2 and second moment 1/3, within five standard errors.
	if math.Abs(sum/n-0.5) > 5*0.289/math.Sqrt(n) || math.Abs(sq/n-1./3) > 5*0.298/math.Sqrt(n) {
		t.Errorf("mean %v, second moment %v", sum/n, sq/n)
	}
}

func TestPerm(t *testing.T) {
	for _, n := range []int{0, 1, 2, 100} {
		p := New(3).Perm(n)
		q := slices.Clone(p)
		slices.Sort(q)
		for i, v := range q {
			if v != i {
				t.Fatalf("%v is no permutation", p)
			}
		}
	}
	counts := make([]int, 6)
	for seed := range uint64(6000) {
		p := New(seed).Perm(3)
		counts[p[0]*2+map[bool]int{true: 1}[p[1] > p[2]]]++
	}
	for _, c := range counts {
		if c < 850 || c > 1150 { // 1000 expected, standard deviation 29
			t.Errorf("permutations of three come %v times", counts)
		}
	}
}
