package model

// The loss of routers is the one that transformers adds for mixtral, qwen2moe and
// qwen3moe (Shazeer 2017, Fedus 2021), of each sequence by itself, so that how
// sequences are divided into passes does not matter: over its tokens T and all mixed
// layers L together, with E experts,
//
//	aux = E · Σ_e f_e·P_e
//
// where f_e is how often expert e was chosen, over L·T, and P_e its mean probability.
// Only P has a gradient. What is added to the loss of a pass is Batch.Router times aux for
// each trained token of the sequence, so that it is Router·aux in the mean.

// balance gathers f and P over the layers of a pass.
type balance struct {
	experts int
	of      []int // the sequence of each token
	seq     []evenness
}

// evenness is the use of experts in one sequence.
type evenness struct {
	uses    []int
	probs   []float64
	rows    int       // L·T
	trained int       // tokens
	grad    []float32 // of a probability, by expert
}

// newBalance prepares for the pass that was laid out.
func (m *Model) newBalance() *balance {
	w := &m.work
	r := &balance{experts: m.MoE.Experts, of: make([]int, len(w.ids))}
	for i, s := range w.spans {
		r.seq = append(r.seq, evenness{uses: make([]int, r.experts), probs: make([]float64, r.experts)})
		for t := range s.n {
			r.of[s.first+t] = i
		}
	}
	for _, t := range w.wanted {
		r.seq[r.of[t]].trained++
	}
	return r
}

// add counts the routing of one layer.
func (r *balance) add(mx *mixActs, tokens int) {
	used := len(mx.chosen) / tokens
	p := mx.probs.mat(tokens, r.experts)
	for t := range tokens {
		s := &r.seq[r.of[t]]
		for _, e := range mx.chosen[t*used : (t+1)*used] {
			s.uses[e]++
		}
		for e, x := range p.Row(t) {
			s.probs[e] += float64(x)
		}
		s.rows++
	}
}

// loss is aux, summed over trained tokens, and leaves the gradient of weight times aux for
// each of them. Each sequence's part is a float32, so that the sum does not depend on how
// sequences are divided into passes.
func (r *balance) loss(weight float64) float64 {
	var sum float64
	for i := range r.seq {
		s := &r.seq[i]
		s.grad = make([]float32, r.experts)
		n, scale := float64(s.rows), float64(s.trained*r.experts)
		if n == 0 {
			continue
		}
		var aux float64
		for e, u := range s.uses {
			f := float64(u) / n
			aux += float64(scale * f * s.probs[e] / n)
			s.grad[e] = float32(weight * scale * f / n)
		}
		sum += float64(float32(aux))
	}
	return sum
}
