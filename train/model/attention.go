package model

import "github.com/graft-lora/graft/internal/kernel"

// queryBlock is how many queries are scored at once, at most, and queryRows how many
// rows of scores those are with all the heads that share keys and values: the products
// pack these once for all. Scores are held for that many rows, never for a whole
// sequence. As each row of scores is whole, its softmax is the plain one, and the
// backward pass, which takes a head at a time, makes the same bits again.
const (
	queryBlock = 64
	queryRows  = 192
)

// groupBlock is how many queries of each of the heads of a group are scored at once.
func groupBlock(group int) int { return max(min(queryRows/group, queryBlock), 1) }

// attnScratch is one worker's scores and their gradients, and what a group of heads gives.
type attnScratch struct{ q, p, o, dp, capped, soft scratch }

// workers makes scratch for every worker of the pool.
func (w *workspace) workers(n int) {
	for len(w.attn) < n {
		w.attn = append(w.attn, attnScratch{})
	}
}

// queries is a block of a sequence's queries, first to end within the sequence.
type queries struct {
	span       span
	first, end int
}

// queryBlocks cuts the sequences of the batch in blocks of up to size, the longest work first.
func (w *workspace) queryBlocks(size int) []queries {
	w.blocks = w.blocks[:0]
	for _, s := range w.spans {
		for end := s.n; end > 0; {
			first := (end - 1) / size * size
			w.blocks = append(w.blocks, queries{s, first, end})
			end = first
		}
	}
	return w.blocks
}

// firstKey is the first key that the query at pos sees.
func firstKey(pos, window int) int {
	if window == 0 {
		return 0
	}
	return max(0, pos-window+1)
}

// heads are columns of one head in rows r0 to r1.
func heads(x kernel.Mat, r0, r1, head, dim int) kernel.Mat {
	return x.Sub(r0, r1, head*dim, (head+1)*dim)
}

// attention computes o[T, Heads·ValDim] of layer i from rotated queries, keys and values.
func (m *Model) attention(i int, o, q, k, v kernel.Mat) {
	window, group := m.Layers[i].Window, m.Heads/m.KVHeads
	blocks := m.work.queryBlocks(groupBlock(group))
	m.work.workers(m.pool.Threads())
	m.pool.For(len(blocks)*m.KVHeads, func(j, worker int) {
		b, h := blocks[j/m.KVHeads], j%m.KVHeads
		key := firstKey(b.first, window)
		r0, r1, k0 := b.span.first+b.first, b.span.first+b.end, b.span.first+key
		m.attend(heads(o, r0, r1, h, group*m.ValDim), heads(q, r0, r1, h, group*m.KeyDim),
			heads(k, k0, r1, h, m.KeyDim), heads(v, k0, r1, h, m.ValDim),
			b.first-key, window, &m.work.attn[worker])
	})
	m.lap(Attention)
}

// attend is one block of the heads that share k and v, side by side in q and o: query
// row r sees the keys up to row r+lead, and of them the last window ones if there is
// a window.
func (m *Model) attend(o, q, k, v kernel.Mat, lead, window int, s *attnScratch) {
	group := q.Cols / m.KeyDim
	p := s.p.mat(group*q.Rows, k.Rows)
	m.scores(p, m.scaled(q, s), k, q.Rows, lead, window)
	for i := range group {
		one := p.Sub(i*q.Rows, (i+1)*q.Rows, 0, p.Cols)
		seenBy(one, lead, window, func(_ int, row []float32, _, _ int) { kernel.Softmax(row, row) })
	}
	if group == 1 {
		m.opt.Compute.GemmNN(nil, o, p, v, false)
		return
	}
	under := s.o.mat(p.Rows, m.ValDim)
	m.opt.Compute.GemmNN(nil, under, p, v, false)
	for r := range under.Rows {
		i := r / q.Rows
		copy(o.Row(r % q.Rows)[i*m.ValDim:(i+1)*m.ValDim], under.Row(r))
	}
}

// scaled is q times the scale of scores, which costs less than scaling those, the heads
// of q under each other.
func (m *Model) scaled(q kernel.Mat, s *attnScratch) kernel.Mat {
	x := s.q.mat(q.Rows*(q.Cols/m.KeyDim), m.KeyDim)
	for r := range x.Rows {
		i := r / q.Rows
		kernel.Scale(x.Row(r), m.AttnScale, q.Row(r % q.Rows)[i*m.KeyDim:(i+1)*m.KeyDim])
	}
	return x
}

// scores makes s the capped scores of scaled queries and keys, n of the former for each
// head; those of keys that a query does not see mean nothing.
func (m *Model) scores(s, q, k kernel.Mat, n, lead, window int) {
	m.opt.Compute.GemmNT(nil, s, q, k, false)
	if m.AttnSoftcap == 0 {
		return
	}
	for r := range s.Rows {
		at := r%n + lead
		seen := s.Row(r)[firstKey(at, window) : at+1]
		kernel.Softcap(seen, seen, m.AttnSoftcap)
	}
}

// seenBy calls f with what each query of x sees, columns lo to hi of row r, and
// clears the rest.
func seenBy(x kernel.Mat, lead, window int, f func(r int, row []float32, lo, hi int)) {
	for r := range x.Rows {
		row, lo, hi := x.Row(r), firstKey(r+lead, window), r+lead+1
		clear(row[:lo])
		clear(row[hi:])
		f(r, row[lo:hi], lo, hi)
	}
}

// attentionBackward computes dq, dk and dv of layer i from do and what attention took.
// Every query head has keys and values of its own in dkAll and dvAll until the
// heads of a group are summed, so that heads can be worked on side by side.
func (m *Model) attentionBackward(i int, dq, dk, dv, do, q, k, v kernel.Mat) {
	w := &m.work
	window, group := m.Layers[i].Window, m.Heads/m.KVHeads
	dkAll, dvAll := dk, dv
	if group > 1 {
		dkAll, dvAll = w.dk.mat(dk.Rows, m.QDim()), w.dv.mat(dv.Rows, m.ODim())
	}
	w.workers(m.pool.Threads())
	m.pool.For(len(w.spans)*m.Heads, func(j, worker int) {
		s, h := w.spans[j/m.Heads], j%m.Heads
		end := s.first + s.n
		for first := 0; first < s.n; first += queryBlock {
			key := firstKey(first, window)
			r0, r1, k0 := s.first+first, min(s.first+first+queryBlock, end), s.first+key
			m.attendBackward(
				heads(dq, r0, r1, h, m.KeyDim), heads(dkAll, k0, r1, h, m.KeyDim), heads(dvAll, k0, r1, h, m.ValDim),
				heads(do, r0, r1, h, m.ValDim), heads(q, r0, r1, h, m.KeyDim),
				heads(k, k0, r1, h/group, m.KeyDim), heads(v, k0, r1, h/group, m.ValDim),
				first-key, window, &w.attn[worker])
		}
	})
	m.lap(Attention)
	if group == 1 {
		return
	}
	m.rows(dk.Rows, func(t, _ int) {
		sumGroups(dk.Row(t), dkAll.Row(t), m.KeyDim, group)
		sumGroups(dv.Row(t), dvAll.Row(t), m.ValDim, group)
	})
}

// sumGroups adds up every group of heads of src, in their order.
func sumGroups(dst, src []float32, dim, group int) {
	for h := 0; h < len(dst); h += dim {
		one := dst[h : h+dim]
		copy(one, src[h*group:])
		for g := 1; g < group; g++ {
			kernel.Add(one, src[h*group+g*dim:][:dim])
		}
	}
}

// attendBackward is the backward of attend for one head: dq is overwritten, and so are
// the rows of dk and dv from lead on, which no earlier block saw; those before are added to.
func (m *Model) attendBackward(dq, dk, dv, do, q, k, v kernel.Mat, lead, window int, s *attnScratch) {
	p, dp := s.p.mat(q.Rows, k.Rows), s.dp.mat(q.Rows, k.Rows)
	q = m.scaled(q, s)
	capped := p
	if m.AttnSoftcap != 0 {
		capped = s.capped.mat(q.Rows, k.Rows)
	}
	m.scores(capped, q, k, q.Rows, lead, window)
	seenBy(p, lead, window, func(r int, row []float32, lo, hi int) { kernel.Softmax(row, capped.Row(r)[lo:hi]) })
	m.addSeen(dv, p, do, lead)
	m.opt.Compute.GemmNT(nil, dp, do, v, false)
	seenBy(dp, lead, window, func(r int, row []float32, lo, hi int) {
		kernel.SoftmaxBackward(row, p.Row(r)[lo:hi], row)
		if m.AttnSoftcap != 0 {
			kernel.SoftcapBackward(row, row, capped.Row(r)[lo:hi], m.AttnSoftcap)
		}
	})
	m.opt.Compute.GemmNN(nil, dq, dp, k, false)
	for r := range dq.Rows {
		kernel.Scale(dq.Row(r), m.AttnScale, dq.Row(r))
	}
	m.addSeen(dk, dp, q, lead)
}

// addSeen adds pᵀ·x to the first rows of d and makes it the others.
func (m *Model) addSeen(d, p, x kernel.Mat, first int) {
	m.opt.Compute.GemmTN(nil, d.Sub(0, first, 0, d.Cols), p.Sub(0, p.Rows, 0, first), x, true)
	m.opt.Compute.GemmTN(nil, d.Sub(first, d.Rows, 0, d.Cols), p.Sub(0, p.Rows, first, p.Cols), x, false)
}
