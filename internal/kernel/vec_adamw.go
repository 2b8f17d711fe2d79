package kernel

import "math"

// AdamWStep are the scalars of one step of AdamW, each computed in float64 and
// rounded once.
type AdamWStep struct {
	Keep  float32 // 1 - lr·wd
	W1    float32 // 1 - β1
	B2    float32 // β2
	W2    float32 // 1 - β2
	Root2 float32 // √(1 - β2^t)
	Eps   float32
	Size  float32 // lr / (1 - β1^t)
}

// AdamW updates the parameters p and the moments m and v with the gradient g, in the
// order of torch.optim.AdamW:
//
//	m[i] = W1*(g[i]-m[i]) + m[i]
//	v[i] = B2*v[i] + W2*g[i]*g[i]
//	p[i] = Keep*p[i] - Size*(m[i] / (sqrt(v[i])/Root2 + Eps))
func AdamW(p, m, v, g []float32, s AdamWStep) {
	sameLen(len(p), len(m))
	sameLen(len(p), len(v))
	sameLen(len(p), len(g))
	n := adamWVec(p, m, v, g, &s)
	p, m, v, g = p[n:], m[n:], v[n:], g[n:]
	for i, gi := range g {
		mi := m[i] + float32(s.W1*(gi-m[i]))
		vi := float32(s.B2*v[i]) + float32(float32(s.W2*gi)*gi)
		m[i], v[i] = mi, vi
		d := float32(math.Sqrt(float64(vi)))/s.Root2 + s.Eps
		p[i] = float32(p[i]*s.Keep) - float32(s.Size*(mi/d))
	}
}
