package adapter

// Resolved says whether [Adapter.Resolve] has brought a to a base model's terms.
func (a *Adapter) Resolved() bool { return a.resolved }

// Clone returns a copy of p that shares its matrices.
func (p *Pair) Clone() *Pair {
	q := *p
	return &q
}

// SetFactors makes scale*b*a the pair's change. The matrices become the pair's.
func (p *Pair) SetFactors(a, b Matrix, scale float32) {
	p.A, p.B, p.Scale, p.Rank, p.alpha = a, b, scale, a.Rows, 0
}
