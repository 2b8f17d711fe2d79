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
	p.A, p.B, p.Scale, p.Rank, p.alpha, p.full = a, b, scale, a.Rows, 0, Matrix{}
}

// PEFTTensors gives the pair's factors as PEFT stores them: key names and matrices,
// B's rows in the order of Hugging Face checkpoints. a must be resolved.
func (a *Adapter) PEFTTensors(p *Pair) (keyA, keyB string, ma, mb Matrix) {
	p = p.asNamed()
	b, _ := a.hf(p)
	return p.peftTensors(b)
}

// peftTensors are those of a pair as it is named, with B as Hugging Face checkpoints have it.
func (p *Pair) peftTensors(b Matrix) (keyA, keyB string, ma, mb Matrix) {
	key := peftPrefix + p.Module
	if p.embedding {
		return key + ".lora_embedding_A", key + ".lora_embedding_B", b.transposed(), p.A.transposed()
	}
	return key + ".lora_A.weight", key + ".lora_B.weight", p.A, b
}
