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
func nearestAVX2(t *latticeVector, candidates *uint16, count int, x, w, values *float32, scale float32) int

//go:noescape
func snapAVX2(t *latticeVector, levels *uint8, x, w *float32, id, scale float32) int

//go:noescape
func nearestAVX512(t *latticeVector, candidates *uint16, count int, x, w, values *float32, scale float32) int

//go:noescape
func snapAVX512(t *latticeVector, levels *uint8, x, w *float32, id, scale float32) int
