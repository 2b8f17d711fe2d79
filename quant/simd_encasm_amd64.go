//go:build amd64 && !noasm

package quant

//go:noescape
func weighImportanceAVX2(x, w, codes, state *float32, n int)

//go:noescape
func weighImportanceAVX512(x, w, codes, state *float32, n int)

//go:noescape
func weighMeanAVX2(x, w, codes, state *float32, n int)

//go:noescape
func weighMeanAVX512(x, w, codes, state *float32, n int)

//go:noescape
func weighAbsAVX2(x, w, codes, state *float32, n int)

//go:noescape
func weighAbsAVX512(x, w, codes, state *float32, n int)

//go:noescape
func weighSquareAVX2(x, w, codes, state *float32, n int)

//go:noescape
func weighSquareAVX512(x, w, codes, state *float32, n int)

//go:noescape
func searchScaleAVX2(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32)

//go:noescape
func searchScaleAVX512(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32)

//go:noescape
func searchDescentAVX2(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32)

//go:noescape
func searchDescentAVX512(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32)

//go:noescape
func searchMinAVX2(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32, mad int)

//go:noescape
func searchMinAVX512(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32, mad int)

//go:noescape
func searchPositiveAVX2(x, w, codes, state *float32, n int, tries *float32, count int, high int32)

//go:noescape
func searchPositiveAVX512(x, w, codes, state *float32, n int, tries *float32, count int, high int32)

//go:noescape
func requantizeAVX2(codes *byte, x, scales, mins *float32, groups, n int, low, high float32)

//go:noescape
func requantizeAVX512(codes *byte, x, scales, mins *float32, groups, n int, low, high float32)

//go:noescape
func roundCodesAVX2(codes *byte, x, scales, mins *float32, groups, n int, low, high float32)

//go:noescape
func roundCodesAVX512(codes *byte, x, scales, mins *float32, groups, n int, low, high float32)

//go:noescape
func turnRows(dst, src *float32, n int)

//go:noescape
func searchIQ4AVX2(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32)

//go:noescape
func codesIQ4AVX2(codes *byte, x, scales, mins *float32, groups, n int, low, high float32)

//go:noescape
func searchIQ4AVX512(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32)

//go:noescape
func codesIQ4AVX512(codes *byte, x, scales, mins *float32, groups, n int, low, high float32)

//go:noescape
func latticeScanAVX2(t *latticeVector, x, w, values, scales *float32, u *uint32, count int)

//go:noescape
func latticeRoundAVX2(t *latticeVector, x, ids *float32, count int, u *uint32, stride, n int)

//go:noescape
func latticeFitAVX2(t *latticeVector, wx, w *float32, u *uint32, stride, groups int, sumqx, sumq2 *float32, count int)

//go:noescape
func latticeScanAVX512(t *latticeVector, x, w, values, scales *float32, u *uint32, count int)

//go:noescape
func latticeRoundAVX512(t *latticeVector, x, ids *float32, count int, u *uint32, stride, n int)

//go:noescape
func latticeFitAVX512(t *latticeVector, wx, w *float32, u *uint32, stride, groups int, sumqx, sumq2 *float32, count int)
