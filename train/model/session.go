package model

import (
	"fmt"

	"github.com/graft-lora/graft/internal/kernel"
)

// Session reads and continues one sequence, keeping the keys and values of what it
// has read. Layers with a window keep no more than the window and a piece of the
// prompt; the others grow as the sequence does. The logits are those that
// [Model.Logits] has at the same place, bit for bit. A session must not run while
// its model does something else.
type Session struct {
	m        *Model
	adapters []Scaled
	limit    int
	kv       cache
	on       []bool // by adapter with an invocation: it acts on what follows
}

// promptPiece is how many tokens are read at a time.
const promptPiece = 256

// NewSession starts a sequence of at most limit tokens with the adapters given.
func (m *Model) NewSession(limit int, adapters ...Scaled) (*Session, error) {
	if limit < 1 {
		return nil, fmt.Errorf("model: a session of %d tokens", limit)
	}
	if err := m.bind(adapters, nil, Dropout{}); err != nil {
		return nil, err
	}
	return &Session{m: m, adapters: adapters, limit: limit, kv: cache{layers: make([]layerCache, len(m.layers))}}, nil
}

// Len is the number of tokens read.
func (s *Session) Len() int { return s.kv.n }

// Room is how many tokens more can be read.
func (s *Session) Room() int { return s.limit - s.kv.n }

// Reset forgets what was read and keeps the memory.
func (s *Session) Reset() {
	s.kv.n, s.on = 0, nil
	for i := range s.kv.layers {
		s.kv.layers[i].base = 0
	}
}

// CacheBytes is the memory of the keys and values held.
func (s *Session) CacheBytes() int64 {
	var n int
	for _, l := range s.kv.layers {
		n += len(l.k.Data) + len(l.v.Data)
	}
	return int64(n) * 4
}

// Append reads ids and returns the logits after the last of them, valid until the
// model's next pass. A prompt may be long: it is read in pieces.
func (s *Session) Append(ids []int32) ([]float32, error) {
	m, w := s.m, &s.m.work
	if len(ids) == 0 {
		return nil, fmt.Errorf("model: nothing to append")
	}
	if len(ids) > s.limit-s.kv.n {
		return nil, fmt.Errorf("model: %d tokens after %d of a session of %d", len(ids), s.kv.n, s.limit)
	}
	acts := s.follow(ids)
	defer func() { w.invoked = nil }()
	for first := 0; first < len(ids); first += promptPiece {
		piece := ids[first:min(first+promptPiece, len(ids))]
		if err := m.lay(&Batch{IDs: piece}); err != nil {
			return nil, err
		}
		w.invoked = make([][]bool, len(acts))
		for i, a := range acts {
			if a != nil {
				w.invoked[i] = a[first : first+len(piece)]
			}
		}
		if err := m.bind(s.adapters, nil, Dropout{}); err != nil {
			return nil, err
		}
		m.prepare(false)
		for i := range w.pos {
			w.pos[i] += s.kv.n
		}
		m.growAngles(s.kv.n + len(piece))
		x := w.residual(m, 0)
		m.lookUp(x, piece)
		for i := range m.layers {
			out := w.residual(m, i+1)
			m.layerForward(i, out, x, &w.acts[0], &s.kv)
			x = out
		}
		s.kv.n += len(piece)
	}
	last := (len(ids) - 1) % promptPiece
	logits := w.logits.mat(1, m.Vocab)
	m.headForward(logits, m.headInput(w.residual(m, len(m.layers)), last, 1))
	if err := m.fail.take(); err != nil {
		return nil, err
	}
	return logits.Data, nil
}

// cache is the keys and values of a sequence, by layer.
type cache struct {
	n      int // tokens before the piece that is being read
	layers []layerCache
}

// layerCache has the keys and values from position base on.
type layerCache struct {
	k, v kernel.Mat
	base int
}

// room makes space for n more tokens after the first have positions, of which the
// queries to come see no more than the last window-1, if there is a window.
func (c *layerCache) room(have, n, window, kDim, vDim int) {
	held := have - c.base
	if held+n <= c.k.Rows {
		return
	}
	drop := 0
	if window > 0 {
		drop = max(held-(window-1), 0)
	}
	old := *c
	if keep := held - drop; keep+n > c.k.Rows || 2*keep > c.k.Rows {
		rows := max(2*(keep+n), 64)
		c.k, c.v = kernel.NewMat(rows, kDim), kernel.NewMat(rows, vDim)
	}
	c.base += drop
	copy(c.k.Data, old.k.Data[drop*kDim:held*kDim])
	copy(c.v.Data, old.v.Data[drop*vDim:held*vDim])
}

// attend adds the keys and values of a piece to layer i's and computes o of its queries.
func (c *cache) attend(m *Model, i int, o, q, k, v kernel.Mat) {
	l, window, group := &c.layers[i], m.Layers[i].Window, m.Heads/m.KVHeads
	l.room(c.n, k.Rows, window, k.Cols, v.Cols)
	at := c.n - l.base // row of the piece's first token
	for t := range k.Rows {
		copy(l.k.Row(at+t), k.Row(t))
		copy(l.v.Row(at+t), v.Row(t))
	}
	size := groupBlock(group)
	blocks := (q.Rows + size - 1) / size
	m.work.workers(m.pool.Threads())
	m.pool.For(blocks*m.KVHeads, func(j, worker int) {
		first, h := j/m.KVHeads*size, j%m.KVHeads
		end := min(first+size, q.Rows)
		key := firstKey(at+first, window)
		m.attend(heads(o, first, end, h, group*m.ValDim), heads(q, first, end, h, group*m.KeyDim),
			heads(l.k, key, at+end, h, m.KeyDim), heads(l.v, key, at+end, h, m.ValDim),
			at+first-key, window, &m.work.attn[worker])
	})
}
