package train

import (
	"fmt"
	"slices"

	"github.com/graft-lora/graft/internal/fmath"
	"github.com/graft-lora/graft/internal/rng"
)

// Sampling says how the next token is chosen from the logits. The zero value takes the
// most likely one. Otherwise the steps are llama.cpp's, in its order: repetition
// penalty, top-k, top-p, min-p (each on what the one before left), temperature, and
// a draw that is a function of the seed and the number of the token.
type Sampling struct {
	Temperature float64 `json:"temperature" yaml:"temperature"` // 0 takes the most likely token
	TopK        int     `json:"top_k" yaml:"top_k"`             // only the k most likely; 0: all
	TopP        float64 `json:"top_p" yaml:"top_p"`             // only the most likely that together have this probability; 0 or 1: all
	MinP        float64 `json:"min_p" yaml:"min_p"`             // only those with this part of the largest probability; 0: all
	// RepeatPenalty divides positive logits, and multiplies negative ones, of tokens
	// among the last RepeatLast; 0 or 1 does nothing. RepeatLast 0 means 64.
	RepeatPenalty float64 `json:"repeat_penalty" yaml:"repeat_penalty"`
	RepeatLast    int     `json:"repeat_last" yaml:"repeat_last"`
	Seed          uint64  `json:"seed" yaml:"seed"`
}

// Check says which setting is out of range.
func (s *Sampling) Check() error {
	switch {
	case !(s.Temperature >= 0):
		return fmt.Errorf("train: temperature is %v", s.Temperature)
	case s.TopK < 0:
		return fmt.Errorf("train: top_k is %d", s.TopK)
	case !(s.TopP >= 0 && s.TopP <= 1):
		return fmt.Errorf("train: top_p is %v, which is not between 0 and 1", s.TopP)
	case !(s.MinP >= 0 && s.MinP <= 1):
		return fmt.Errorf("train: min_p is %v, which is not between 0 and 1", s.MinP)
	case !(s.RepeatPenalty >= 0) || s.RepeatLast < 0:
		return fmt.Errorf("train: repeat_penalty is %v and repeat_last %d", s.RepeatPenalty, s.RepeatLast)
	}
	return nil
}

type candidate struct {
	id    int32
	logit float64
}

// pick chooses the token that follows history. n numbers the draw. It changes logits.
func (s *Sampling) pick(logits []float32, history []int32, n int) int32 {
	s.penalize(logits, history)
	if s.Temperature == 0 {
		_, at := top(logits)
		return int32(at)
	}
	c := s.likely(logits)
	if s.TopP > 0 && s.TopP < 1 {
		p := softmax(c, 1)
		sum := 0.0
		for i := range c {
			if sum += p[i]; sum >= s.TopP {
				c = c[:i+1]
				break
			}
		}
	}
	if s.MinP > 0 {
		least := c[0].logit + fmath.Log(s.MinP)
		for len(c) > 1 && c[len(c)-1].logit < least {
			c = c[:len(c)-1]
		}
	}
	p := softmax(c, s.Temperature)
	u := rng.New(s.Seed, "sample").Float64(uint64(n))
	for i := range c {
		if u -= p[i]; u < 0 {
			return c[i].id
		}
	}
	return c[0].id // the probabilities summed to a little less than one
}

func (s *Sampling) penalize(logits []float32, history []int32) {
	if s.RepeatPenalty == 0 || s.RepeatPenalty == 1 {
		return
	}
	last := s.RepeatLast
	if last == 0 {
		last = 64
	}
	seen := map[int32]bool{}
	for _, id := range history[max(0, len(history)-last):] {
		if seen[id] {
			continue
		}
		seen[id] = true
		if logits[id] > 0 {
			logits[id] /= float32(s.RepeatPenalty)
		} else {
			logits[id] *= float32(s.RepeatPenalty)
		}
	}
}

// likely lists the TopK most likely tokens, or all, the likeliest first and the
// lower id first among equals.
func (s *Sampling) likely(logits []float32) []candidate {
	less := func(a, b candidate) int {
		switch {
		case a.logit > b.logit:
			return -1
		case a.logit < b.logit:
			return 1
		}
		return int(a.id) - int(b.id)
	}
	if s.TopK == 0 || s.TopK >= len(logits) {
		c := make([]candidate, len(logits))
		for i, v := range logits {
			c[i] = candidate{int32(i), float64(v)}
		}
		slices.SortFunc(c, less)
		return c
	}
	c := make([]candidate, 0, s.TopK+1)
	for i, v := range logits {
		x := candidate{int32(i), float64(v)}
		if len(c) == s.TopK && less(x, c[s.TopK-1]) > 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(c, x, less)
		c = slices.Insert(c, at, x)
		c = c[:min(len(c), s.TopK)]
	}
	return c
}

// softmax gives the probabilities of candidates, of which the first has the largest logit.
func softmax(c []candidate, temperature float64) []float64 {
	p := make([]float64, len(c))
	sum := 0.0
	for i := range c {
		p[i] = fmath.Exp((c[i].logit - c[0].logit) / temperature)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}
