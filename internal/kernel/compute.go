package kernel

import (
	"fmt"
	"strings"

	"github.com/graft-lora/graft/internal/cpu"
)

// Compute is the arithmetic of a product.
type Compute uint8

const (
	// Float32 is that of the package: see Bytes.
	Float32 Compute = iota
	// BF16 rounds both sides to bfloat16 (nearest, ties to even, subnormals to zero) and
	// sums in float32, two elements of k at a time:
	//
	//	for q := range ceil(K, 2) {
	//		s = fma(a[i][2q+1], b[2q+1][j], s)   // 0 past the end of an odd K
	//		s = fma(a[i][2q], b[2q][j], s)
	//	}
	//
	// each fma rounded once, with subnormal sums and s before the first step taken as zero:
	// what VDPBF16PS does. The sum is as fixed as that of Float32, but it is another one.
	// The processor must be able to, see [Compute.Available].
	BF16
)

func (c Compute) String() string { return [...]string{"float32", "bf16"}[c] }

// ParseCompute reads the name of an arithmetic.
func ParseCompute(s string) (Compute, error) {
	for c := Float32; c <= BF16; c++ {
		if strings.EqualFold(s, c.String()) {
			return c, nil
		}
	}
	return 0, fmt.Errorf("no arithmetic of products is called %q: float32 and bf16 are", s)
}

// Available says whether products can be made in c here and now: BF16 needs a processor
// with AVX512_BF16, and the tier of AVX-512. A product in one that is not panics.
func (c Compute) Available() bool {
	return c == Float32 || c == BF16 && hasBF16 && cpu.Current() == cpu.AVX512
}
