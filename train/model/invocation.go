package model

import (
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// An adapter with an Invocation (activated LoRA, Greenewald et al. 2025) acts in each
// sequence from the first token of the invocation's last occurrence on, and not at all
// where there is none: what stands before has the keys and values of the base.

// invoked finds where an invocation begins last in ids; len(ids) where it does not.
func invoked(ids, invocation []int32) int {
	for i := len(ids) - len(invocation); i >= 0; i-- {
		if slices.Equal(ids[i:i+len(invocation)], invocation) {
			return i
		}
	}
	return len(ids)
}

// activity says for each token of the pass whether the i-th adapter acts on it; nil:
// on all.
func (m *Model) activity(i int, a *Adapter) []bool {
	w := &m.work
	switch {
	case len(a.Invocation) == 0:
		return nil
	case w.invoked != nil:
		return w.invoked[i]
	}
	active := make([]bool, len(w.ids))
	for _, s := range w.spans {
		if s.first+s.n > len(w.ids) {
			break // spans of a pass that was
		}
		for t := s.first + invoked(w.ids[s.first:s.first+s.n], a.Invocation); t < s.first+s.n; t++ {
			active[t] = true
		}
	}
	return active
}

// checkInvoked refuses what an invocation does not go with.
func checkInvoked(name string, p *Pair, a *Adapter) error {
	switch {
	case len(a.Invocation) == 0:
		return nil
	case name == embedName || name == headName:
		return format.Unsupported("an adapter with an invocation on %s", name)
	case p.Magnitude != nil:
		return format.Unsupported("DoRA with an invocation")
	}
	return nil
}

// silence clears the rows of tokens that b does not act on.
func (m *Model) silence(b *bound, x kernel.Mat) {
	if b.active == nil {
		return
	}
	for t := range x.Rows {
		if !b.active[m.place(t)-m.work.before] {
			clear(x.Row(t))
		}
	}
}

// follow says of each token of ids, which continue a session, whether the i-th adapter
// acts on it: from a new invocation on, or as before.
func (s *Session) follow(ids []int32) [][]bool {
	all := make([][]bool, len(s.adapters))
	if s.on == nil {
		s.on = make([]bool, len(s.adapters))
	}
	for i, a := range s.adapters {
		if a.Adapter == nil || len(a.Invocation) == 0 {
			continue
		}
		all[i] = make([]bool, len(ids))
		from := invoked(ids, a.Invocation)
		for t := range ids {
			all[i][t] = t >= from || from == len(ids) && s.on[i]
		}
		s.on[i] = all[i][len(ids)-1]
	}
	return all
}
