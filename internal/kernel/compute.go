package kernel

import (
	"fmt"
	"strings"
	"time"

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

// Lacks says why c is not available.
func (c Compute) Lacks() string {
	if hasBF16 {
		return "GRAFT_KERNEL asks for kernels other than those of AVX-512"
	}
	return "this processor has no AVX512_BF16; float32 runs everywhere"
}

// Speed is how fast c makes a product of the size of a training step's, forward and
// backward, on p, in GFLOP/s: the best of two, some ten milliseconds together. It is
// for choosing between arithmetics; 0 where c is not available.
func (c Compute) Speed(p *Pool) float64 {
	if !c.Available() {
		return 0
	}
	const rows, out, in = 512, 1536, 576
	x, y, w := NewMat(rows, in), NewMat(rows, out), NewMat(out, in)
	for i := range x.Data {
		x.Data[i] = float32(i%7) - 3
	}
	for i := range w.Data {
		w.Data[i] = float32(i%5) - 2
	}
	dx, best := NewMat(rows, in), 0.0
	for range 2 {
		start := time.Now()
		c.MulNTs(p, x, Term{Y: y, W: w})
		c.MulNN(p, dx, y, w, false)
		best = max(best, 4*rows*out*in/float64(time.Since(start).Nanoseconds()))
	}
	return best
}
