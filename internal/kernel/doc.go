// Package kernel holds the arithmetic: matrix products on float32 and through
// quantized weights, the pool of goroutines they run on, and the operations on
// rows (norms, softmax, activations, optimizers) in vec*.go.
//
// # Bytes
//
// Every element of a product is one chain of fused multiply-adds in the order of k:
//
//	s := 0            // or the value already in c, when acc is set
//	for k := range K { s = fma(a[i][k], b[k][j], s) }
//	c[i][j] = s
//
// Vectors run along j, blocks of k continue the chain through memory, and rows and
// panels are shared out between workers, so that none of the tier ([cpu.Current]),
// the blocking and the number of threads reaches a byte of the result. Only the
// payload of a NaN may differ between tiers.
//
// A [Compute] other than [Float32] is asked for by name, has another chain, as fixed as
// this one, and runs only where the processor can.
//
// # Contract
//
// Matrices are views ([Mat]) and nothing here keeps one after it returns. An output
// must not overlap an input. Shapes that do not fit are errors of the caller and
// panic; zero sizes are fine. A nil [*Pool] means the calling goroutine only, which
// is how code that already runs inside [Pool.For] calls a product. Scratch memory
// is kept and used again, so that a product allocates nothing once it has been
// called with sizes as large. A pool keeps at most 4 MiB (or 512 decoded rows of w,
// where those are more) and 8 MiB (or 264 rows of x), and each of its workers 64
// decoded rows; so does each goroutine that multiplies without a pool.
//
//	p := kernel.NewPool(2)
//	defer p.Close()
//	y := kernel.NewMat(x.Rows, rows)
//	kernel.MulNT(p, y, x, w, false) // y = x·wᵀ, w decoded once for all rows of x
package kernel
