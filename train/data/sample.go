package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"slices"

	"github.com/graft-lora/graft/internal/rng"
)

// Sample is a sequence of tokens for training or evaluation.
type Sample struct {
	IDs   []int32
	Train []bool // Train[i]: the prediction of token i from those before it counts. Train[0] is false.
	// Docs are the first tokens of the documents packed into the sequence, ascending,
	// beginning with 0; attention and positions begin anew at each. Nil is one document.
	Docs  []int
	Path  string // file of its record; of the first record, when packed
	Lines []int  // lines of its records; nil for plain text

	// Of examples of preferences, see [Encoder.ReadPreferences] and [Encoder.ReadLabelled]:
	Rejected   *Sample // the answer that was not chosen, after the same prompt
	Bad        bool    // the answer was called bad
	Mismatched *Sample // the prompt with an answer that is not its own; nil where it has no room
	at         int     // its record
}

// longest is the number of tokens of the sample, or of its rejected answer if that has more.
func (s *Sample) longest() int {
	if s.Rejected == nil {
		return len(s.IDs)
	}
	return max(len(s.IDs), len(s.Rejected.IDs))
}

// Size is the number of tokens of all that is run to train on the sample at once.
func (s *Sample) Size() int {
	if s.Rejected == nil {
		return len(s.IDs)
	}
	return len(s.IDs) + len(s.Rejected.IDs)
}

// Trained is the number of trained tokens.
func (s Sample) Trained() int {
	n := 0
	for _, t := range s.Train {
		if t {
			n++
		}
	}
	return n
}

// Labels are the targets as they are usually written: the token where it is trained,
// -100 where it is not. They stand at the token itself, not shifted.
func (s Sample) Labels() []int32 {
	l := make([]int32, len(s.IDs))
	for i, id := range s.IDs {
		l[i] = -100
		if s.Train[i] {
			l[i] = id
		}
	}
	return l
}

// Digest is the SHA-256 of tokens, masks and document borders of all samples and of
// what belongs to them, in hex.
func Digest(samples []Sample) string {
	h := sha256.New()
	var b []byte
	var add func(s *Sample)
	add = func(s *Sample) {
		b = binary.LittleEndian.AppendUint64(b[:0], uint64(len(s.IDs)))
		for i, id := range s.IDs {
			x := uint64(uint32(id)) << 1
			if s.Train[i] {
				x |= 1
			}
			b = binary.AppendUvarint(b, x)
		}
		for _, d := range s.Docs {
			b = binary.AppendUvarint(b, uint64(d))
		}
		if s.Bad {
			b = append(b, "bad"...)
		}
		h.Write(b)
		for i, other := range []*Sample{s.Rejected, s.Mismatched} {
			if other != nil {
				io.WriteString(h, []string{"rejected", "mismatched"}[i])
				add(other)
			}
		}
	}
	for i := range samples {
		add(&samples[i])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Order is the order of n samples in an epoch: that of the file if shuffle is off,
// else a permutation that depends on seed and epoch only.
func Order(n int, shuffle bool, seed uint64, epoch int) []int {
	if shuffle {
		return rng.New(seed, "order").At(uint64(epoch)).Perm(n)
	}
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	return p
}

// Split holds out a part of the samples (at least one, and not all, if there are
// two), chosen by seed. Both results keep the order of samples.
func Split(samples []Sample, part float64, seed uint64) (train, held []Sample) {
	n := int(float64(part*float64(len(samples))) + 0.5)
	n = max(min(n, len(samples)-1), min(1, len(samples)-1))
	chosen := make([]bool, len(samples))
	for _, i := range rng.New(seed, "held out").Perm(len(samples))[:n] {
		chosen[i] = true
	}
	for i, s := range samples {
		if chosen[i] {
			held = append(held, s)
		} else {
			train = append(train, s)
		}
	}
	return train, held
}

// Pack puts samples together into sequences of up to length tokens: best fit, the
// longest first (ties by position), so that little room is left over. A sample that
// is longer stands alone. The result does not depend on anything but the samples.
func Pack(samples []Sample, length int) []Sample {
	byLength := make([]int, len(samples))
	for i := range byLength {
		byLength[i] = i
	}
	slices.SortStableFunc(byLength, func(a, b int) int { return len(samples[b].IDs) - len(samples[a].IDs) })
	var bins [][]int
	room := make([][]int, length+1) // bins by the room that is left in them
	for _, i := range byLength {
		n := len(samples[i].IDs)
		bin := -1
		left := 0
		for r := n; r <= length; r++ {
			if k := len(room[r]); k > 0 {
				bin, left = room[r][k-1], r-n
				room[r] = room[r][:k-1]
				break
			}
		}
		if bin < 0 {
			bin, left = len(bins), length-n
			bins = append(bins, nil)
		}
		bins[bin] = append(bins[bin], i)
		if left > 0 {
			room[left] = append(room[left], bin)
		}
	}
	packed := make([]Sample, 0, len(bins))
	for _, bin := range bins {
		slices.Sort(bin)
		p := Sample{Path: samples[bin[0]].Path}
		for _, i := range bin {
			s := samples[i]
			docs := s.Docs
			if docs == nil {
				docs = []int{0}
			}
			for _, d := range docs {
				p.Docs = append(p.Docs, len(p.IDs)+d)
			}
			p.IDs = append(p.IDs, s.IDs...)
			p.Train = append(p.Train, s.Train...)
			p.Lines = append(p.Lines, s.Lines...)
		}
		packed = append(packed, p)
	}
	return packed
}
