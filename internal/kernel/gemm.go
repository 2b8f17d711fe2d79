package kernel

// GemmNT is c[m, n] = a[m, k]·b[n, k]ᵀ, added to c when acc is set.
func GemmNT(p *Pool, c, a, b Mat, acc bool) {
	if c.Rows != a.Rows || c.Cols != b.Rows || a.Cols != b.Cols {
		panic("kernel: GemmNT: shapes do not fit")
	}
	gemm(p, c, a, b, a.Stride, 1, 1, b.Stride, a.Cols, acc)
}

// GemmNN is c[m, n] = a[m, k]·b[k, n], added to c when acc is set.
func GemmNN(p *Pool, c, a, b Mat, acc bool) {
	if c.Rows != a.Rows || c.Cols != b.Cols || a.Cols != b.Rows {
		panic("kernel: GemmNN: shapes do not fit")
	}
	gemm(p, c, a, b, a.Stride, 1, b.Stride, 1, a.Cols, acc)
}

// GemmTN is c[m, n] = a[k, m]ᵀ·b[k, n], added to c when acc is set.
func GemmTN(p *Pool, c, a, b Mat, acc bool) {
	if c.Rows != a.Cols || c.Cols != b.Cols || a.Rows != b.Rows {
		panic("kernel: GemmTN: shapes do not fit")
	}
	gemm(p, c, a, b, 1, a.Stride, b.Stride, 1, a.Rows, acc)
}
