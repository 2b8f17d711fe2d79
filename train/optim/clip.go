package optim

import "math"

// ClipNorm is torch.nn.utils.clip_grad_norm_: it multiplies all gradients by
// min(1, max/(norm + 1e-6)), also when that is 1, and returns the norm before.
// kind is the norm: 2, 1, or math.Inf(1) for the largest magnitude. The sum runs in
// float64 in the order of params, whatever the number of threads elsewhere. A norm
// that is not finite leaves gradients that are not finite: the caller must look.
func ClipNorm(params []Param, max, kind float64) float64 {
	norm := Norm(params, kind)
	factor := float32(math.Min(1, max/(norm+1e-6)))
	for i := range params {
		g := params[i].Grad
		for j := range g {
			g[j] *= factor
		}
	}
	return norm
}

// Norm is the norm of all gradients together; kind as for [ClipNorm].
func Norm(params []Param, kind float64) float64 {
	var total float64
	for i := range params {
		for _, g := range params[i].Grad {
			x := math.Abs(float64(g))
			switch {
			case math.IsInf(kind, 1):
				if x > total || math.IsNaN(x) {
					total = x
				}
			case kind == 1:
				total += x
			default:
				total += float64(x * x)
			}
		}
	}
	if kind == 2 {
		return math.Sqrt(total)
	}
	return total
}
