package merge

import (
	"crypto/sha256"
	"encoding/binary"
)

// dice gives the random numbers of one tensor: a function of the seed, the tensor's
// name and the position of the element, so that any thread may ask for any element
// in any order and the merged file is always the same.
type dice uint64

func newDice(seed uint64, tensor string) dice {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	h := sha256.Sum256(append(s[:], tensor...))
	return dice(binary.LittleEndian.Uint64(h[:]))
}

// at returns a number in [0, 1) for the element at pos: the output function of
// SplitMix64 (Steele, Lea and Flood 2014) at the pos-th state after the tensor's.
func (d dice) at(pos int64) float64 {
	z := uint64(d) + (uint64(pos)+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11) / (1 << 53)
}
