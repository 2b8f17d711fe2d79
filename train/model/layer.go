package model

import "github.com/graft-lora/graft/internal/kernel"

// acts are what the backward pass wants of a layer's forward pass, besides the
// layer's input. T tokens are rows of all of them.
type acts struct {
	h, h2       scratch // [d] inputs of attention and feed-forward, after their norms
	rAttn, rFFN scratch // [1] of those norms
	raw         scratch // [q+k] queries and keys before their norms, where they have some
	rQ, rK      scratch // [heads or 1] of those norms
	qkv         scratch // [q+k+v] as attention takes them
	o           scratch // [heads·value] what attention gives
	proj        scratch // [d] its projection, where a norm follows
	rPostAttn   scratch
	x1          scratch // [d] residual between attention and feed-forward
	gu          scratch // [2f] gate and up
	act         scratch // [f]
	ffn         scratch // [d] what the feed-forward gives, where a norm follows
	rPostFFN    scratch
	us          []scratch // by slot: [r] scale·x·Aᵀ of each pair
	mix         mixActs
}

// workspace is the memory of passes, kept from one to the next.
type workspace struct {
	ids     []int32
	spans   []span
	pos     []int     // of each token in its sequence
	wanted  []int     // tokens whose loss is wanted
	weights []float32 // see Model.weigh; nil: none
	places  []int     // tokens of the rows that head or experts work on; nil: row t is token t
	again   bool      // the pass is a recomputation
	before  int       // Batch.Before
	invoked [][]bool  // by adapter, of a session's piece: see activity
	balance *balance  // nil unless the loss of routers is wanted
	angles  [2]angles

	lowest int        // the first layer whose backward is wanted
	below  [2]scratch // residuals under it, in turn
	inputs []scratch  // residuals from it on: inputs[i] enters layer i
	outs   []scratch  // what attention gave, of layers that run again, where that is kept
	acts   []acts     // the first is for layers that keep nothing

	terms     []kernel.Term // of the matrices that share an input
	a, da     scratch       // of pairs that share an input, stacked
	du, drop  scratch
	scaled    scratch   // inputs of a head with DoRA of columns
	dora      scratch   // the change of one of several pairs, before it is scaled
	unwanted  scratch   // outputs of which only what backward wants is kept
	change    []scratch // by worker: rows of the change of a matrix to be merged
	g         scratch   // gradient of the residual
	dy, dh    scratch   // [d]
	do        scratch   // [heads·value]
	dqkv      scratch
	dk, dv    scratch // of every query head, before a group's are summed
	dgu, dact scratch
	attn      []attnScratch // by worker
	blocks    []queries
	final     scratch // normed residuals that the head takes
	dfinal    scratch
	rFinal    scratch
	tokens    scratch // of the wanted tokens, before the norm
	logits    scratch
	uHead     []scratch
	columns   scratch // of the gradient of logits: those of the head's own rows
	losses    []float32
	hard      []float32 // of losses with a teacher's part: that of the targets
	soft      []float32 // and the divergence from the teacher
	mix       mixWork
}

// blockInput gives the input of an attention or feed-forward block: the norm of x, or x.
func (m *Model) blockInput(x kernel.Mat, w []float32, h, r *scratch) kernel.Mat {
	if w == nil {
		return x
	}
	y := h.mat(x.Rows, x.Cols)
	m.normRows(y, x, w, r)
	return y
}

// qkvCols are the columns of queries, keys and values in the fused matrix.
func (m *Model) qkvCols(x kernel.Mat) (q, k, v kernel.Mat) {
	a, b, c := m.QDim(), m.QDim()+m.KDim(), m.QDim()+m.KDim()+m.VDim()
	return x.Sub(0, x.Rows, 0, a), x.Sub(0, x.Rows, a, b), x.Sub(0, x.Rows, b, c)
}

// layerForward computes out, the residual after layer i, from x, the one before.
// In a recomputation out is not wanted, and not computed where that saves a
// product. kv is the cache of a session, or nil.
func (m *Model) layerForward(i int, out, x kernel.Mat, a *acts, kv *cache) {
	l, T := &m.layers[i], x.Rows
	h := m.blockInput(x, l.attnNorm, &a.h, &a.rAttn)
	qkv := a.qkv.mat(T, m.QDim()+m.KDim()+m.VDim())
	q, k, v := m.qkvCols(qkv)
	if l.qkv != nil {
		m.forward(h, a.us, part{l.qkv, qkv})
	} else {
		m.forward(h, a.us, part{l.q, q}, part{l.k, k}, part{l.v, v})
	}
	if l.qNorm != nil {
		raw := a.raw.mat(T, m.QDim()+m.KDim())
		m.rows(T, func(t, _ int) { copy(raw.Row(t), qkv.Row(t)) })
		m.normRows(q, raw.Sub(0, T, 0, m.QDim()), l.qNorm, &a.rQ)
		m.normRows(k, raw.Sub(0, T, m.QDim(), raw.Cols), l.kNorm, &a.rK)
	}
	m.rope(i, q, k, false)
	o := m.attended(i, a).mat(T, m.ODim())
	switch {
	case kv != nil:
		kv.attend(m, i, o, q, k, v)
	case !m.work.again || !m.opt.KeepAttention:
		m.attention(i, o, q, k, v)
	}
	x1 := a.x1.mat(T, m.Hidden)
	m.addBlock(x1, x, l.postAttn, &a.proj, &a.rPostAttn, func(y kernel.Mat) { m.forward(o, a.us, part{l.o, y}) })

	h2 := m.blockInput(x1, l.ffnNorm, &a.h2, &a.rFFN)
	if m.work.again && l.postFFN == nil {
		m.feedForward(l, kernel.Mat{}, h2, a)
		return
	}
	m.addBlock(out, x1, l.postFFN, &a.ffn, &a.rPostFFN, func(y kernel.Mat) { m.feedForward(l, y, h2, a) })
}

// attended is where what attention gives in layer i is left.
func (m *Model) attended(i int, a *acts) *scratch {
	if w := &m.work; m.opt.KeepAttention && i >= w.lowest && i < len(m.layers)-1-m.opt.KeepLayers {
		return &w.outs[i]
	}
	return &a.o
}

// rope rotates queries and keys in place, or takes their gradients back.
func (m *Model) rope(i int, q, k kernel.Mat, back bool) {
	kind := m.Layers[i].Rope
	if kind == RopeNone {
		return
	}
	m.rows(q.Rows, func(t, _ int) {
		m.rotate(q.Row(t), m.KeyDim, kind, m.work.pos[t], back)
		m.rotate(k.Row(t), m.KeyDim, kind, m.work.pos[t], back)
	})
}

// addBlock computes out = x + s·norm(y), where f computes y and the norm may be
// absent. y is kept in proj when there is one.
func (m *Model) addBlock(out, x kernel.Mat, w []float32, proj, r *scratch, f func(y kernel.Mat)) {
	y := out
	if w != nil {
		y = proj.mat(x.Rows, x.Cols)
	}
	f(y)
	if w != nil {
		m.normRows(out, y, w, r)
	}
	m.rows(x.Rows, func(t, _ int) {
		row := out.Row(t)
		if m.ResidualScale != 1 {
			kernel.Scale(row, m.ResidualScale, row)
		}
		kernel.Add(row, x.Row(t))
	})
}

// addBlockBackward computes the gradient of addBlock's y from that of its out.
func (m *Model) addBlockBackward(dy, dout kernel.Mat, w []float32, proj, r *scratch) {
	m.rows(dy.Rows, func(t, _ int) { kernel.Scale(dy.Row(t), m.ResidualScale, dout.Row(t)) })
	if w != nil {
		m.normBackward(dy, dy, proj.mat(dy.Rows, dy.Cols), w, r, false)
	}
}

// feedForward computes y from h; a y without rows is not wanted, only what the
// backward pass wants.
func (m *Model) feedForward(l *layer, y, h kernel.Mat, a *acts) {
	if l.moe != nil {
		m.mixForward(l.moe, y, h, a)
		return
	}
	gu := a.gu.mat(h.Rows, 2*m.FF)
	gate, up := gu.Sub(0, h.Rows, 0, m.FF), gu.Sub(0, h.Rows, m.FF, 2*m.FF)
	if l.gateUp != nil {
		m.forward(h, a.us, part{l.gateUp, gu})
	} else {
		m.forward(h, a.us, part{l.gate, gate}, part{l.up, up})
	}
	act := a.act.mat(h.Rows, m.FF)
	m.activate(act, gate, up)
	m.forwardLast(act, a.us, part{l.down, y})
}

func (m *Model) activate(y, gate, up kernel.Mat) {
	f := kernel.SiLUMul
	if m.Act == GELU {
		f = kernel.GELUMul
	}
	m.rows(y.Rows, func(t, _ int) { f(y.Row(t), gate.Row(t), up.Row(t)) })
}

func (m *Model) activateBackward(dgate, dup, dy, gate, up kernel.Mat) {
	f := kernel.SiLUMulBackward
	if m.Act == GELU {
		f = kernel.GELUMulBackward
	}
	m.rows(dy.Rows, func(t, _ int) { f(dgate.Row(t), dup.Row(t), dy.Row(t), gate.Row(t), up.Row(t)) })
}

// layerBackward turns g, the gradient of the residual after layer i, into that
// before it, and adds to the gradients of the layer's pairs. x and a are the
// layer's input and what its forward pass left. When below is not set, nothing
// under the layer wants g, and it is left half done.
func (m *Model) layerBackward(i int, g, x kernel.Mat, a *acts, below bool) {
	l, w, T := &m.layers[i], &m.work, x.Rows
	dy := w.dy.mat(T, m.Hidden)
	dh := w.dh.mat(T, m.Hidden)

	m.addBlockBackward(dy, g, l.postFFN, &a.ffn, &a.rPostFFN)
	x1 := a.x1.mat(T, m.Hidden)
	h2 := x1
	if l.ffnNorm != nil {
		h2 = a.h2.mat(T, m.Hidden)
	}
	m.feedForwardBackward(l, dh, dy, h2, a)
	m.blockInputBackward(g, dh, x1, l.ffnNorm, &a.rFFN)

	m.addBlockBackward(dy, g, l.postAttn, &a.proj, &a.rPostAttn)
	do := w.do.mat(T, m.ODim())
	m.backward(do, m.attended(i, a).mat(T, m.ODim()), a.us, false, part{l.o, dy})
	dqkv := w.dqkv.mat(T, m.QDim()+m.KDim()+m.VDim())
	dq, dk, dv := m.qkvCols(dqkv)
	q, k, v := m.qkvCols(a.qkv.mat(T, dqkv.Cols))
	m.attentionBackward(i, dq, dk, dv, do, q, k, v)
	m.rope(i, dq, dk, true)
	if l.qNorm != nil {
		raw := a.raw.mat(T, m.QDim()+m.KDim())
		m.normBackward(dq, dq, raw.Sub(0, T, 0, m.QDim()), l.qNorm, &a.rQ, false)
		m.normBackward(dk, dk, raw.Sub(0, T, m.QDim(), raw.Cols), l.kNorm, &a.rK, false)
	}
	h := x
	if l.attnNorm != nil {
		h = a.h.mat(T, m.Hidden)
	}
	if !below {
		dh = kernel.Mat{}
	}
	if l.qkv != nil {
		m.backward(dh, h, a.us, false, part{l.qkv, dqkv})
	} else {
		m.backward(dh, h, a.us, false, part{l.q, dq}, part{l.k, dk}, part{l.v, dv})
	}
	if below {
		m.blockInputBackward(g, dh, x, l.attnNorm, &a.rAttn)
	}
}

// blockInputBackward adds to g the gradient of blockInput's x, from dh, that of its result.
func (m *Model) blockInputBackward(g, dh, x kernel.Mat, w []float32, r *scratch) {
	if w != nil {
		m.normBackward(g, dh, x, w, r, true)
		return
	}
	m.rows(g.Rows, func(t, _ int) { kernel.Add(g.Row(t), dh.Row(t)) })
}

// feedForwardBackward computes dh, the gradient of feedForward's h, from dy.
func (m *Model) feedForwardBackward(l *layer, dh, dy, h kernel.Mat, a *acts) {
	if l.moe != nil {
		m.mixBackward(l.moe, dh, dy, h, a)
		return
	}
	T := dy.Rows
	dact := m.work.dact.mat(T, m.FF)
	m.backward(dact, a.act.mat(T, m.FF), a.us, false, part{l.down, dy})
	gu, dgu := a.gu.mat(T, 2*m.FF), m.work.dgu.mat(T, 2*m.FF)
	dgate, dup := dgu.Sub(0, T, 0, m.FF), dgu.Sub(0, T, m.FF, 2*m.FF)
	m.activateBackward(dgate, dup, dact, gu.Sub(0, T, 0, m.FF), gu.Sub(0, T, m.FF, 2*m.FF))
	if l.gateUp != nil {
		m.backward(dh, h, a.us, false, part{l.gateUp, dgu})
		return
	}
	m.backward(dh, h, a.us, false, part{l.gate, dgate}, part{l.up, dup})
}
