package merge

func init() {
	const help = "differences that one model alone has as they are, of shared ones the mean"
	registerBlend(&blendMethod{name: "ram", help: help,
		params: []string{"epsilon"}, base: baseNeeded, min: 1, open: func(j *blendJob) (blendBlock, error) {
			return ram(j, nil), nil
		}})
	registerBlend(&blendMethod{name: "ramplus_tl", help: help + "; those of one alone grow with what it shares",
		params: []string{"epsilon", "r", "alpha"}, base: baseNeeded, min: 1, open: openRAMPlus})
}

// ram merges as reinforced agent merging does (arXiv 2601.13572). A model contributes
// to an element if its difference is larger than epsilon. An element that one model
// contributes to takes its difference (times the model's factor, if there are
// factors), one that several contribute to the mean of theirs. With a 16-bit dtype
// steps round as mergekit's do: not those behind a factor, which is a float32.
func ram(j *blendJob, factor []float32) blendBlock {
	edge := j.contributes()
	return func(dst []float32, _ int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		n := make([]float32, len(dst))
		for _, v := range x {
			for i, d := range v {
				if magnitude(d) > edge {
					n[i]++
				} else {
					v[i] = 0
				}
			}
		}
		for k, v := range x {
			for i, d := range v {
				if n[i] > 1 {
					v[i] = d / n[i]
				}
			}
			j.round(v)
			if factor != nil {
				for i := range v {
					if n[i] <= 1 {
						v[i] *= factor[k]
					}
				}
			}
		}
		for i := range dst {
			var sum float32
			for _, v := range x {
				sum += v[i]
			}
			dst[i] = sum
		}
		if factor == nil {
			j.round(dst)
		}
		for i, b := range base {
			dst[i] += b
		}
		j.round(dst)
	}
}

// contributes is the magnitude above which a difference counts.
func (j *blendJob) contributes() uint32 {
	e := []float32{float32(j.global("epsilon", 1e-5))}
	j.round(e)
	return magnitude(e[0])
}

// openRAMPlus: a model's factor is 1 + r * min(shared/alone, alpha), with how many
// elements of the tensor it contributes to together with others, and alone.
func openRAMPlus(j *blendJob) (blendBlock, error) {
	edge := j.contributes()
	shared, alone := make([]int64, len(j.models)), make([]int64, len(j.models))
	if err := j.pass(func(_ int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		for i := range base {
			n := 0
			last := 0
			for k, v := range x {
				if magnitude(v[i]) > edge {
					n, last = n+1, k
				}
			}
			if n == 1 {
				alone[last]++
				continue
			}
			for k, v := range x {
				if magnitude(v[i]) > edge {
					shared[k]++
				}
			}
		}
	}); err != nil {
		return nil, err
	}
	r, alpha, epsilon := float32(j.global("r", 0.1)), float32(j.global("alpha", 0.2)), float32(j.global("epsilon", 1e-5))
	factor := make([]float32, len(shared))
	for k := range factor {
		rho := float32(shared[k]) / max(float32(alone[k]), epsilon)
		factor[k] = 1 + float32(r*min(max(rho, 0), alpha))
	}
	return ram(j, factor), nil
}
