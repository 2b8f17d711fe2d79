package quant

// Q1_0 and Q2_0: sign bits for 128 elements, and 2-bit codes -1 to 2 for 64, under
// one half.

const (
	q1_0Block = 128
	q1_0Bytes = 18
	q2_0Block = 64
	q2_0Bytes = 18
)

func decodeQ1_0(dst []float32, src []byte) {
	for ; len(src) >= q1_0Bytes; src, dst = src[q1_0Bytes:], dst[q1_0Block:] {
		d := half(src)
		values := [2]float32{-d, d}
		for j, q := range src[2:q1_0Bytes] {
			y := dst[8*j:][:8]
			for b := range y {
				y[b] = values[q>>b&1]
			}
		}
	}
}

func decodeQ2_0(dst []float32, src []byte) {
	for ; len(src) >= q2_0Bytes; src, dst = src[q2_0Bytes:], dst[q2_0Block:] {
		d := half(src)
		for j, q := range src[2:q2_0Bytes] {
			y := dst[4*j:][:4]
			for b := range y {
				y[b] = float32(int(q>>(2*b)&3)-1) * d
			}
		}
	}
}
