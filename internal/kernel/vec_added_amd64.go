//go:build !noasm

package kernel

//go:noescape
func addF16AVX512(dst, src *byte, d *float32, s *addedSums, n int)

//go:noescape
func addBF16AVX512(dst, src *byte, d *float32, s *addedSums, n int)

func addF16Vec(dst, src []byte, d []float32, s *addedSums) int {
	n, wide := whole(len(d))
	if n == 0 || !wide {
		return 0
	}
	addF16AVX512(&dst[0], &src[0], &d[0], s, n)
	return n
}

func addBF16Vec(dst, src []byte, d []float32, s *addedSums) int {
	n, wide := whole(len(d))
	if n == 0 || !wide {
		return 0
	}
	addBF16AVX512(&dst[0], &src[0], &d[0], s, n)
	return n
}
