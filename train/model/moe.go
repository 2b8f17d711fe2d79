package model

import (
	"cmp"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// mixture is a feed-forward block of many experts, of which a router picks a few
// for each token.
type mixture struct {
	router         *linear
	gate, up, down []*linear // by expert
	shared         *shared   // or nil
}

// shared is the expert that every token uses, times the sigmoid of one more
// router's score.
type shared struct {
	gate, up, down *linear
	router         *linear // one output
}

// mixActs are what the backward pass wants of a mixture's forward pass. Slots are
// the uses of experts by tokens, T·Used of them, ordered by expert and then token.
type mixActs struct {
	probs   scratch // [T, experts] of the router
	weights scratch // [T, used] what experts' outputs are multiplied by
	chosen  []int32 // [T·used] experts of each token, the likeliest first
	slots   []int32 // [T·used] the slot of each of those
	uses    []int32 // [slots] the place in chosen of each slot
	places  []int   // [slots] the token of each slot
	starts  []int   // [experts+1] first slot of each expert
	x       scratch // [slots, d] inputs
	gu      scratch // [slots, 2f]
	act     scratch // [slots, f]

	sharedGU, sharedAct, sharedOut, sharedGate scratch
}

// mixWork is memory that a mixture needs only while it is worked on.
type mixWork struct {
	scores, out, weights, dweights, dscores, dact, dgu, dx scratch
	sharedDy, sharedDact, sharedDGU, sharedDgate           scratch
}

func (ld *loader) mixture(p string) *mixture {
	c := &ld.m.Config
	e := c.MoE.Experts
	x := &mixture{router: ld.router(p+"ffn_gate_inp.weight", e, c.Hidden)}
	x.gate = ld.experts(p+"ffn_gate_exps.weight", e, c.MoE.FF, c.Hidden)
	x.up = ld.experts(p+"ffn_up_exps.weight", e, c.MoE.FF, c.Hidden)
	x.down = ld.experts(p+"ffn_down_exps.weight", e, c.Hidden, c.MoE.FF)
	if c.MoE.SharedFF > 0 {
		x.shared = &shared{
			gate:   ld.linear(p+"ffn_gate_shexp", c.MoE.SharedFF, c.Hidden),
			up:     ld.linear(p+"ffn_up_shexp", c.MoE.SharedFF, c.Hidden),
			down:   ld.linear(p+"ffn_down_shexp", c.Hidden, c.MoE.SharedFF),
			router: ld.router(p+"ffn_gate_inp_shexp.weight", 1, c.Hidden),
		}
	}
	return x
}

// experts takes a stack of n matrices.
func (ld *loader) experts(name string, n, out, in int) []*linear {
	v := ld.view(name, n, out, in)
	all := make([]*linear, n)
	var rows format.RowReader
	if v != nil {
		rows = ld.rows(v)
	}
	for i := range all {
		all[i] = &linear{name: name, out: out, in: in, slots: ld.slots, stacked: true, expert: i}
		if v == nil {
			ld.bad(name, "the tensor is missing")
			continue
		}
		all[i].w = &matrix{name: name, rows: rows, first: int64(i) * int64(out), out: out, in: in, fail: &ld.m.fail}
	}
	ld.m.stacks[name] = all
	return all
}

// router takes a matrix that adapters cannot change. One of a single row may be
// stored as a vector.
func (ld *loader) router(name string, out, in int) *linear {
	shape := []int{out, in}
	if v := ld.src.View(name); out == 1 && v != nil && len(v.Shape) == 1 {
		shape = shape[1:]
	}
	l := &linear{name: name, out: out, in: in}
	if v := ld.view(name, shape...); v != nil {
		l.w = &matrix{name: name, rows: v.Rows, out: out, in: in, fail: &ld.m.fail}
	} else {
		ld.bad(name, "the tensor is missing")
	}
	return l
}

// mixForward computes y from h, or only what the backward pass wants if y has no rows.
func (m *Model) mixForward(x *mixture, y, h kernel.Mat, a *acts) {
	mx, T, used := &a.mix, h.Rows, m.MoE.Used
	scores := m.work.mix.scores.mat(T, m.MoE.Experts)
	m.forward(h, nil, part{x.router, scores})
	m.route(mx, scores)
	if m.work.balance != nil && !m.work.again {
		m.work.balance.add(mx, T)
	}
	S := T * used
	in := mx.x.mat(S, m.Hidden)
	m.rows(S, func(s, _ int) { copy(in.Row(s), h.Row(mx.places[s])) })
	f := m.MoE.FF
	gu, act := mx.gu.mat(S, 2*f), mx.act.mat(S, f)
	out := m.work.mix.out.mat(S, m.Hidden)
	for e := range m.MoE.Experts {
		s0, s1 := mx.starts[e], mx.starts[e+1]
		if s0 == s1 {
			continue
		}
		rows := in.Sub(s0, s1, 0, m.Hidden)
		gate, up, hidden := gu.Sub(s0, s1, 0, f), gu.Sub(s0, s1, f, 2*f), act.Sub(s0, s1, 0, f)
		m.work.places = mx.places[s0:s1]
		m.forward(rows, a.us, part{x.gate[e], gate}, part{x.up[e], up})
		m.activate(hidden, gate, up)
		down := part{l: x.down[e]}
		if y.Rows > 0 {
			down.y = out.Sub(s0, s1, 0, m.Hidden)
		}
		m.forwardLast(hidden, a.us, down)
	}
	m.work.places = nil
	if x.shared != nil {
		m.sharedForward(x.shared, y, h, a)
	}
	if y.Rows == 0 {
		return
	}
	weights := mx.weights.mat(T, used)
	m.rows(T, func(t, _ int) {
		row := y.Row(t)
		if x.shared == nil {
			clear(row)
		}
		for j, w := range weights.Row(t) {
			kernel.Axpy(row, w, out.Row(int(mx.slots[t*used+j])))
		}
	})
}

// route picks the experts of every token from the router's scores and gives the
// uses their slots. Of experts with equal probabilities the first is taken.
func (m *Model) route(mx *mixActs, scores kernel.Mat) {
	T, e, used := scores.Rows, m.MoE.Experts, m.MoE.Used
	probs, weights := mx.probs.mat(T, e), mx.weights.mat(T, used)
	mx.chosen = grow(mx.chosen, T*used)
	mx.slots = grow(mx.slots, T*used)
	mx.uses = grow(mx.uses, T*used)
	mx.places = grow(mx.places, T*used)
	mx.starts = grow(mx.starts, e+1)
	clear(mx.starts)
	order := make([]int32, e)
	for t := range T {
		p := probs.Row(t)
		kernel.Softmax(p, scores.Row(t))
		for i := range order {
			order[i] = int32(i)
		}
		slices.SortStableFunc(order, func(i, j int32) int { return cmp.Compare(p[j], p[i]) })
		var sum float32
		for j, i := range order[:used] {
			mx.chosen[t*used+j] = i
			mx.starts[i+1]++
			weights.Row(t)[j] = p[i]
			sum += p[i]
		}
		for j := range used {
			w := &weights.Row(t)[j]
			if m.MoE.Normalise {
				*w /= sum
			}
			*w *= m.MoE.Scale
		}
	}
	for i := range e {
		mx.starts[i+1] += mx.starts[i]
	}
	next := slices.Clone(mx.starts)
	for j, i := range mx.chosen {
		s := next[i]
		next[i]++
		mx.slots[j], mx.uses[s], mx.places[s] = int32(s), int32(j), j/used
	}
}

// mixBackward computes dh, the gradient of mixForward's h, from dy. With the
// gradient of an expert's hidden values before its weight, dy·W, that of the
// weight is its product with those values, so the expert's output need not be kept.
func (m *Model) mixBackward(x *mixture, dh, dy, h kernel.Mat, a *acts) {
	mx, w, T, used, f := &a.mix, &m.work.mix, dy.Rows, m.MoE.Used, m.MoE.FF
	S := T * used
	dout := w.out.mat(S, m.Hidden)
	m.rows(S, func(s, _ int) { copy(dout.Row(s), dy.Row(mx.places[s])) })
	gu, act := mx.gu.mat(S, 2*f), mx.act.mat(S, f)
	dact, dgu, dx := w.dact.mat(S, f), w.dgu.mat(S, 2*f), w.dx.mat(S, m.Hidden)
	weights, dweights := mx.weights.mat(T, used), w.dweights.mat(T, used)
	bySlot := w.weights.mat(S, 1).Data
	for s, use := range mx.uses {
		bySlot[s] = weights.Data[use]
	}
	for e := range m.MoE.Experts {
		s0, s1 := mx.starts[e], mx.starts[e+1]
		if s0 == s1 {
			continue
		}
		m.work.places = mx.places[s0:s1]
		d := dact.Sub(s0, s1, 0, f)
		m.work.weights = bySlot[s0:s1]
		m.backward(d, act.Sub(s0, s1, 0, f), a.us, false, part{x.down[e], dout.Sub(s0, s1, 0, m.Hidden)})
		m.work.weights = nil
		m.rows(s1-s0, func(r, _ int) {
			dweights.Data[mx.uses[s0+r]] = kernel.Dot(d.Row(r), act.Row(s0+r))
			kernel.Scale(d.Row(r), bySlot[s0+r], d.Row(r))
		})
		dgate, dup := dgu.Sub(s0, s1, 0, f), dgu.Sub(s0, s1, f, 2*f)
		m.activateBackward(dgate, dup, d, gu.Sub(s0, s1, 0, f), gu.Sub(s0, s1, f, 2*f))
		din := dx.Sub(s0, s1, 0, m.Hidden)
		m.backward(din, mx.x.mat(S, m.Hidden).Sub(s0, s1, 0, m.Hidden), a.us, false, part{x.gate[e], dgate}, part{x.up[e], dup})
	}
	m.work.places = nil
	dscores := w.dscores.mat(T, m.MoE.Experts)
	m.rows(T, func(t, _ int) {
		row := dh.Row(t)
		clear(row)
		for j := range used {
			kernel.Add(row, dx.Row(int(mx.slots[t*used+j])))
		}
		m.routeBackward(dscores.Row(t), dweights.Row(t), mx, t)
	})
	m.backward(dh, h, nil, true, part{x.router, dscores})
	if x.shared != nil {
		m.sharedBackward(x.shared, dh, dy, h, a)
	}
}

// routeBackward makes ds the gradient of token t's scores from that of its weights.
func (m *Model) routeBackward(ds, dw []float32, mx *mixActs, t int) {
	used := len(dw)
	probs := mx.probs.mat(len(mx.chosen)/used, m.MoE.Experts).Row(t)
	chosen := mx.chosen[t*used : (t+1)*used]
	var mean float32 // of dw, by the weights: what normalising takes away
	sum := float32(1)
	if m.MoE.Normalise {
		sum = 0
		for _, e := range chosen {
			sum += probs[e]
		}
		for j, e := range chosen {
			mean += float32(dw[j] * (probs[e] / sum))
		}
	}
	clear(ds)
	for j, e := range chosen {
		ds[e] = m.MoE.Scale * (dw[j] - mean) / sum
	}
	if m.work.balance != nil {
		b := m.work.balance
		kernel.Add(ds, b.seq[b.of[t]].grad)
	}
	kernel.SoftmaxBackward(ds, probs, ds)
}

// sharedForward makes y the shared expert's part.
func (m *Model) sharedForward(x *shared, y, h kernel.Mat, a *acts) {
	mx, T, f := &a.mix, h.Rows, m.MoE.SharedFF
	gu, act := mx.sharedGU.mat(T, 2*f), mx.sharedAct.mat(T, f)
	gate, up := gu.Sub(0, T, 0, f), gu.Sub(0, T, f, 2*f)
	m.forward(h, a.us, part{x.gate, gate}, part{x.up, up})
	m.activate(act, gate, up)
	// The output is kept: the gradient of its router wants it.
	out := mx.sharedOut.mat(T, m.Hidden)
	m.forward(act, a.us, part{x.down, out})
	g := mx.sharedGate.mat(T, 1)
	m.forward(h, nil, part{x.router, g})
	kernel.VecSigmoid(g.Data, g.Data)
	if y.Rows > 0 {
		m.rows(T, func(t, _ int) { kernel.Scale(y.Row(t), g.Data[t], out.Row(t)) })
	}
}

// sharedBackward adds the shared expert's part of the gradient of h to dh.
func (m *Model) sharedBackward(x *shared, dh, dy, h kernel.Mat, a *acts) {
	mx, w, T, f := &a.mix, &m.work.mix, dy.Rows, m.MoE.SharedFF
	g, out := mx.sharedGate.mat(T, 1), mx.sharedOut.mat(T, m.Hidden)
	dout, dg := w.sharedDy.mat(T, m.Hidden), w.sharedDgate.mat(T, 1)
	m.rows(T, func(t, _ int) {
		s := g.Data[t]
		dg.Data[t] = kernel.Dot(dy.Row(t), out.Row(t)) * float32(s*(1-s))
		kernel.Scale(dout.Row(t), s, dy.Row(t))
	})
	gu, dgu, dact := mx.sharedGU.mat(T, 2*f), w.sharedDGU.mat(T, 2*f), w.sharedDact.mat(T, f)
	m.backward(dact, mx.sharedAct.mat(T, f), a.us, false, part{x.down, dout})
	dgate, dup := dgu.Sub(0, T, 0, f), dgu.Sub(0, T, f, 2*f)
	m.activateBackward(dgate, dup, dact, gu.Sub(0, T, 0, f), gu.Sub(0, T, f, 2*f))
	m.backward(dh, h, a.us, true, part{x.gate, dgate}, part{x.up, dup})
	m.backward(dh, h, nil, true, part{x.router, dg})
}

// grow gives s the length n; its contents mean nothing.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
