package kernel

// GemmNT is c[m, n] = a[m, k]·b[n, k]ᵀ, added to c when acc is set.
func GemmNT(p *Pool, c, a, b Mat, acc bool) { Float32.GemmNT(p, c, a, b, acc) }

// GemmNT is [GemmNT] in the arithmetic how.
func (how Compute) GemmNT(p *Pool, c, a, b Mat, acc bool) {
	if c.Rows != a.Rows || c.Cols != b.Rows || a.Cols != b.Cols {
		panic("kernel: GemmNT: shapes do not fit")
	}
	gemm(p, how, c, a, b, a.Stride, 1, 1, b.Stride, a.Cols, acc)
}

// GemmNN is c[m, n] = a[m, k]·b[k, n], added to c when acc is set.
func GemmNN(p *Pool, c, a, b Mat, acc bool) { Float32.GemmNN(p, c, a, b, acc) }

// GemmNN is [GemmNN] in the arithmetic how.
func (how Compute) GemmNN(p *Pool, c, a, b Mat, acc bool) {
	if c.Rows != a.Rows || c.Cols != b.Cols || a.Cols != b.Rows {
		panic("kernel: GemmNN: shapes do not fit")
	}
	gemm(p, how, c, a, b, a.Stride, 1, b.Stride, 1, a.Cols, acc)
}

// GemmTN is c[m, n] = a[k, m]ᵀ·b[k, n], added to c when acc is set.
func GemmTN(p *Pool, c, a, b Mat, acc bool) { Float32.GemmTN(p, c, a, b, acc) }

// GemmTN is [GemmTN] in the arithmetic how.
func (how Compute) GemmTN(p *Pool, c, a, b Mat, acc bool) {
	if c.Rows != a.Cols || c.Cols != b.Cols || a.Rows != b.Rows {
		panic("kernel: GemmTN: shapes do not fit")
	}
	gemm(p, how, c, a, b, 1, a.Stride, b.Stride, 1, a.Rows, acc)
}
