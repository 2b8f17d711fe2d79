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

// encodeQ1_0 keeps the signs under the mean magnitude. It ignores importance.
func encodeQ1_0(dst []byte, row, _ []float32) {
	for ; len(row) > 0; row, dst = row[q1_0Block:], dst[q1_0Bytes:] {
		var sum float32
		for _, v := range row[:q1_0Block] {
			sum += abs32(v)
		}
		putHalf(dst, sum/q1_0Block)
		for j := range 16 {
			var q uint8
			for b, v := range row[8*j:][:8] {
				if v >= 0 {
					q |= 1 << b
				}
			}
			dst[2+j] = q
		}
	}
}

// encodeQ2_0 rounds to -1, 0, 1 (and 2, which values under the largest magnitude
// do not reach). It ignores importance.
func encodeQ2_0(dst []byte, row, _ []float32) {
	for ; len(row) > 0; row, dst = row[q2_0Block:], dst[q2_0Bytes:] {
		_, d := extreme(row[:q2_0Block])
		id := reciprocal(d)
		putHalf(dst, d)
		for j := range 16 {
			var q uint8
			for b, v := range row[4*j:][:4] {
				q |= uint8(clampInt(int(roundInt(float32(v*id)))+1, 0, 3)) << (2 * b)
			}
			dst[2+j] = q
		}
	}
}
