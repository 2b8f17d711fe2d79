package model

import "strings"

// Shape is what the memory of a pass depends on.
type Shape struct {
	Tokens  int // of the batch
	Longest int // its longest sequence
	Trained int // tokens whose loss is wanted
	Dropout bool
	DoRA    bool // the pairs have magnitudes
	Rows    int  // of the head that are trained as they are, see [Rows]
}

// trainedIn says of a matrix whether anything of it is trained: one with rank 0 in ranks
// has trained [Rows].
func trainedIn(ranks map[string]int) func(l *linear) bool {
	return func(l *linear) bool { _, ok := ranks[l.name]; return ok }
}

// PassMemory is the bytes of the buffers that LossAndGrad needs for batches of
// shape s and an adapter whose pairs have ranks, by matrix (0: only rows of tokens are
// trained), with opt's KeepLayers, KeepAttention, HeadMemory and Threads. Weights, adapters and gradients are not
// counted, nor the panels that products keep to themselves. It is the sum over the
// buffers themselves: what is allocated is that, but less where a thread never
// meets the longest sequence, and a little more or less where experts are adapted,
// since it depends on the tokens how many of them go to each.
func (m *Model) PassMemory(s Shape, ranks map[string]int, opt Options) int64 {
	n := len(m.Layers)
	if opt.KeepLayers < 0 || opt.KeepLayers >= n {
		opt.KeepLayers = n - 1
	}
	if opt.HeadMemory <= 0 {
		opt.HeadMemory = defaultHeadMemory
	}
	if opt.Threads <= 0 {
		opt.Threads = m.pool.Threads()
	}
	lowest := m.lowestOf(trainedIn(ranks))
	groups := m.groupsOf(ranks, s.DoRA)

	places := make([]sizes, 1+opt.KeepLayers)
	total := (n+1-lowest)*s.Tokens*m.Hidden + min(lowest, 2)*s.Tokens*m.Hidden
	for i := range m.layers {
		places[placeOf(i, n, opt.KeepLayers, lowest)].atLeast(m.actSizes(i, s.Tokens, groups))
		if opt.KeepAttention && i >= lowest && i < n-1-opt.KeepLayers {
			total += s.Tokens * m.ODim()
		}
	}
	for i := range places {
		total += places[i].sum()
	}
	work := m.groupSizes(groups, s, opt)
	for i := range m.layers {
		work.atLeast(m.layerSizes(i, s.Tokens, i >= lowest))
	}
	total += work.sum() + opt.Threads*m.attentionSize(s.Longest, lowest < n) + m.headSize(s, ranks, opt, lowest < n || trainedIn(ranks)(m.embed))
	return 4 * int64(total+4*s.Longest*(m.RopeDim/2)) // and the angles
}

// sizes are those of a set of buffers that different layers use in turn.
type sizes []int

// atLeast makes every buffer as large as that of t.
func (s *sizes) atLeast(t sizes) {
	*s = append(*s, make([]int, max(len(t)-len(*s), 0))...)
	for i, n := range t {
		(*s)[i] = max((*s)[i], n)
	}
}

func (s sizes) sum() (n int) {
	for _, x := range s {
		n += x
	}
	return n
}

// group is matrices that share an input, with the ranks of their pairs, and how
// many rows of input they have for every token.
type group struct {
	layer, in, rank, pairs, rows int
	out                          int  // of DoRA, the outputs that are kept before they are scaled
	down                         bool // a feed-forward block ends with it: in a recomputation nobody wants its outputs
}

// groupsOf lists the groups that have pairs; the head is in layer -1.
func (m *Model) groupsOf(ranks map[string]int, dora bool) (all []group) {
	add := func(layer, rows int, linears ...*linear) {
		g := group{layer: layer, rows: rows}
		for _, l := range linears {
			if l != nil && ranks[l.name] > 0 {
				g.in, g.rank, g.pairs, g.down = l.in, g.rank+ranks[l.name], g.pairs+1, strings.Contains(l.name, ".ffn_down")
				if dora {
					g.out += l.out
				}
			}
		}
		if g.pairs > 0 {
			all = append(all, g)
		}
	}
	for i := range m.layers {
		l := &m.layers[i]
		add(i, 1, l.qkv, l.q, l.k, l.v)
		add(i, 1, l.o)
		add(i, 1, l.gateUp, l.gate, l.up)
		add(i, 1, l.down)
		if l.moe == nil {
			continue
		}
		// The experts of a stack have their rows side by side.
		add(i, m.MoE.Used, l.moe.gate[0], l.moe.up[0])
		add(i, m.MoE.Used, l.moe.down[0])
		if l.moe.shared != nil {
			add(i, 1, l.moe.shared.gate, l.moe.shared.up)
			add(i, 1, l.moe.shared.down)
		}
	}
	add(-1, 1, m.head)
	return all
}

// actSizes are those of acts of layer i, in one order for all layers.
func (m *Model) actSizes(i, T int, groups []group) sizes {
	l, d := &m.layers[i], m.Hidden
	has := func(w []float32, n int) int {
		if w == nil {
			return 0
		}
		return n * T
	}
	s := sizes{
		has(l.attnNorm, d+1), has(l.ffnNorm, d+1), has(l.postAttn, d+1), has(l.postFFN, d+1),
		has(l.qNorm, m.QDim()+m.KDim()), T * (m.QDim() + m.KDim() + m.VDim()), T * m.ODim(), T * d, 0, 0, 0, 0, 0, 0,
	}
	if l.qNorm != nil {
		s[8] = T * (m.QDim()/len(l.qNorm) + m.KDim()/len(l.kNorm))
	}
	if l.moe == nil {
		s[9], s[10] = T*2*m.FF, T*m.FF
	} else {
		e, u, f := m.MoE.Experts, m.MoE.Used, m.MoE.FF
		s[11] = T * (e + u + u*(d+3*f))
		if l.moe.shared != nil {
			s[12] = T * (3*m.MoE.SharedFF + d + 1)
		}
	}
	for _, g := range groups {
		if g.layer == i {
			s = append(s, T*g.rows*(g.rank+g.out)) // layers have their groups in one order
		}
	}
	return s
}

// layerSizes are those of the work on layer i, forward and perhaps backward.
func (m *Model) layerSizes(i, T int, backward bool) sizes {
	l, d := &m.layers[i], m.Hidden
	var s [4]int
	if l.moe != nil {
		s[0] = T * (m.MoE.Experts + m.MoE.Used*d)
	}
	if !backward {
		return s[:]
	}
	s[1] = T * (2*d + m.ODim() + m.QDim() + m.KDim() + m.VDim())
	if m.Heads != m.KVHeads {
		s[1] += T * (m.QDim() + m.ODim())
	}
	if l.moe == nil {
		s[2] = T * 3 * m.FF
	} else {
		e, u, f := m.MoE.Experts, m.MoE.Used, m.MoE.FF
		s[3] = T * (e + 2*u + u*(d+3*f))
		if l.moe.shared != nil {
			s[3] += T * (3*m.MoE.SharedFF + d + 1)
		}
	}
	return s[:]
}

// groupSizes are those of what every group uses in turn: stacked A, its
// gradient, the gradients of x·Aᵀ, and inputs with elements dropped.
func (m *Model) groupSizes(groups []group, s Shape, opt Options) sizes {
	var w [9]int
	for _, g := range groups {
		T := s.Tokens
		if g.layer < 0 {
			T = min(headRowsOf(opt.HeadMemory, m.Vocab), s.Trained)
		}
		if g.pairs > 1 {
			w[4] = max(w[4], g.rank*g.in)
			if !s.Dropout {
				w[5] = max(w[5], g.rank*g.in)
			}
		}
		w[6] = max(w[6], T*g.rows*g.rank)
		if g.down {
			w[8] = max(w[8], T*g.out)
		}
		if s.Dropout {
			w[7] = max(w[7], T*g.rows*g.in)
		}
	}
	return w[:]
}

// attentionSize is that of one worker's scratch.
func (m *Model) attentionSize(longest int, backward bool) int {
	scores := func(size int) (most int) {
		for _, l := range m.Layers {
			for first := 0; first < longest; first += size {
				end := min(first+size, longest)
				most = max(most, (end-first)*(end-firstKey(first, l.Window)))
			}
		}
		return most
	}
	group := m.Heads / m.KVHeads
	rows := group * min(groupBlock(group), longest)
	size, capped := group*scores(groupBlock(group)), 0
	if group > 1 {
		size += rows * m.ValDim
	}
	if backward {
		one := scores(queryBlock)
		size += max(one-group*scores(groupBlock(group)), 0) + one
		if m.AttnSoftcap != 0 {
			capped = one
		}
		rows = max(rows, min(queryBlock, longest))
	}
	if m.FinalSoftcap != 0 {
		capped = max(capped, m.Vocab)
	}
	return size + capped + rows*m.KeyDim
}

// headSize is that of the last norm, the head and the loss.
func (m *Model) headSize(s Shape, ranks map[string]int, opt Options, below bool) int {
	n := min(headRowsOf(opt.HeadMemory, m.Vocab), s.Trained)
	size := n*(2*m.Hidden+1+m.Vocab+ranks[m.head.name]+s.Rows) + s.Trained + s.Tokens*m.Hidden // with the gradient of the residual
	if below {
		size += n * m.Hidden
	}
	if s.DoRA && ranks[m.head.name] > 0 {
		size += n * m.Vocab
	}
	return size
}
