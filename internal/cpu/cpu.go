// Package cpu decides which set of kernels runs. All tiers give the same bytes: pure
// Go everywhere; on amd64 AVX2 (with FMA and F16C) and AVX-512 (F, BW, DQ, VL); on
// arm64 NEON, which every such processor has. The best that the processor has is used;
// the environment variable GRAFT_KERNEL=go|avx2|avx512|neon asks for a lower one, and
// tests switch with [Force].
package cpu

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

// Tier is a set of kernels.
type Tier int32

// The tiers: the one that always works, and those of each architecture, widest last.
const (
	Generic Tier = iota
	AVX2
	AVX512
	NEON
)

func (t Tier) String() string { return [...]string{"go", "avx2", "avx512", "neon"}[t] }

// ParseTier reads a tier's name.
func ParseTier(s string) (Tier, error) {
	for t := Generic; t <= NEON; t++ {
		if strings.EqualFold(s, t.String()) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("no kernel tier is called %q: go, avx2, avx512 and neon are", s)
}

var (
	tiers   = detect() // those that can run here, the best last
	current atomic.Int32
)

func init() {
	current.Store(int32(Best()))
	if s := os.Getenv("GRAFT_KERNEL"); s != "" {
		if t, err := ParseTier(s); err == nil && slices.Contains(tiers, t) {
			current.Store(int32(t))
		}
	}
}

// Best is the widest tier that this processor can run.
func Best() Tier { return tiers[len(tiers)-1] }

// Current is the tier in use. Kernels look it up at each call.
func Current() Tier { return Tier(current.Load()) }

// CheckEnv says what is wrong with GRAFT_KERNEL, if anything is: the command calls
// it once, since a package initializer cannot return an error.
func CheckEnv() error {
	s := os.Getenv("GRAFT_KERNEL")
	if s == "" {
		return nil
	}
	t, err := ParseTier(s)
	if err != nil {
		return fmt.Errorf("GRAFT_KERNEL: %w", err)
	}
	if !slices.Contains(tiers, t) {
		return fmt.Errorf("GRAFT_KERNEL: this processor cannot run %v, its best is %v", t, Best())
	}
	return nil
}

// Force switches to t, which must be one of [Tiers], and returns a function that
// switches back. It is for tests and benchmarks; while kernels run elsewhere the
// switch takes effect at their next call.
func Force(t Tier) (restore func()) {
	if !slices.Contains(tiers, t) {
		panic("cpu: tier " + t.String() + " cannot run here")
	}
	old := current.Swap(int32(t))
	return func() { current.Store(old) }
}

// Tiers lists the tiers that can run here, pure Go first and the best last, for tests
// that compare them.
func Tiers() []Tier { return slices.Clone(tiers) }
