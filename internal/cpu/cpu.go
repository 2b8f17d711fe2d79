// Package cpu decides which set of kernels runs. There are three tiers, and all of
// them give the same bytes: pure Go, AVX2 (with FMA and F16C) and AVX-512 (F, BW,
// DQ, VL). The best that the processor has is used; the environment variable
// GRAFT_KERNEL=go|avx2|avx512 asks for a lower one, and tests switch with [Force].
package cpu

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// Tier is a set of kernels.
type Tier int32

// The tiers, from the one that always works to the widest.
const (
	Generic Tier = iota
	AVX2
	AVX512
)

func (t Tier) String() string { return [...]string{"go", "avx2", "avx512"}[t] }

// ParseTier reads a tier's name.
func ParseTier(s string) (Tier, error) {
	for t := Generic; t <= AVX512; t++ {
		if strings.EqualFold(s, t.String()) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("no kernel tier is called %q: go, avx2 and avx512 are", s)
}

var (
	best    = detect()
	current atomic.Int32
)

func init() {
	current.Store(int32(best))
	if s := os.Getenv("GRAFT_KERNEL"); s != "" {
		if t, err := ParseTier(s); err == nil && t <= best {
			current.Store(int32(t))
		}
	}
}

// Best is the widest tier that this processor can run.
func Best() Tier { return best }

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
	if t > best {
		return fmt.Errorf("GRAFT_KERNEL: this processor cannot run %v, its best is %v", t, best)
	}
	return nil
}

// Force switches to t, which must not be above Best, and returns a function that
// switches back. It is for tests and benchmarks; while kernels run elsewhere the
// switch takes effect at their next call.
func Force(t Tier) (restore func()) {
	if t > best {
		panic("cpu: tier " + t.String() + " cannot run here")
	}
	old := current.Swap(int32(t))
	return func() { current.Store(old) }
}

// Tiers lists the tiers that can run here, for tests that compare them.
func Tiers() []Tier {
	var ts []Tier
	for t := Generic; t <= best; t++ {
		ts = append(ts, t)
	}
	return ts
}
