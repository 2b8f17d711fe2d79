package model

import "time"

// Work is a kind of work that passes do.
type Work int

// The kinds of work, as [Spent] has them.
const (
	Frozen    Work = iota // products through frozen matrices, the head's among them
	LowRank               // products with the pairs of adapters and their gradients
	Attention             // scores, softmax, values, and the backward of it all
	RowWise               // norms, activations, rotations, sums, losses
	works
)

func (w Work) String() string {
	return [works]string{"products through the base", "products of the adapter", "attention", "work on rows"}[w]
}

// Spent is how long each kind of work took.
type Spent [works]time.Duration

// Spent says where the time of the last pass went. What is not listed is little.
func (m *Model) Spent() Spent { return m.spent }

// lap adds what has passed since the last lap to the time spent on w.
func (m *Model) lap(w Work) {
	now := time.Now()
	m.spent[w] += now.Sub(m.lapped)
	m.lapped = now
}
