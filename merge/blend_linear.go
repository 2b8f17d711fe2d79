package merge

import "github.com/graft-lora/graft/internal/kernel"

func init() {
	registerBlend(&blendMethod{name: "linear", help: "weighted mean of the models, or with normalize: false their weighted sum",
		params: []string{"weight", "normalize"}, min: 1, open: openLinear})
	registerBlend(&blendMethod{name: "passthrough", help: "tensors of one model each, layers in any order and number; times scale",
		params: []string{"scale"}, min: 1, max: 1, open: openPassthrough})
	registerBlend(&blendMethod{name: "nearswap", help: "the base moved to the model, the less the further they are apart: by t/distance, at most all the way",
		params: []string{"t"}, base: baseNeeded, min: 1, max: 1, open: openNearswap})
}

// openLinear: sum w x / sum w in float32, whatever the dtype.
func openLinear(j *blendJob) (blendBlock, error) {
	w, err := j.params("weight", required)
	if err != nil {
		return nil, err
	}
	divisor := float32(1)
	if j.global("normalize", 1) != 0 {
		divisor = 0
		for _, v := range w {
			divisor += float32(v)
		}
	}
	return func(dst []float32, _ int64, x [][]float32, _ []float32) {
		weightedSum(dst, x, w)
		if divisor != 1 {
			for i := range dst {
				dst[i] /= divisor
			}
		}
		j.round(dst)
	}, nil
}

// weightedSum adds in the models' order, each step a fused multiply-add.
func weightedSum(dst []float32, x [][]float32, w []float64) {
	clear(dst)
	for k, v := range x {
		kernel.Axpy(dst, float32(w[k]), v)
	}
}

func openPassthrough(j *blendJob) (blendBlock, error) {
	s, err := j.models[0].param("scale", 1)
	if err != nil {
		return nil, err
	}
	f := float32(s)
	return func(dst []float32, _ int64, x [][]float32, _ []float32) {
		for i, v := range x[0] {
			dst[i] = f * v
		}
		j.round(dst)
	}, nil
}

func openNearswap(j *blendJob) (blendBlock, error) {
	t64, err := j.models[0].param("t", required)
	if err != nil {
		return nil, err
	}
	t := float32(t64)
	return func(dst []float32, _ int64, x [][]float32, base []float32) {
		for i, a := range base {
			b := x[0][i]
			d := a - b
			if d < 0 {
				d = -d
			}
			w := min(max(t/max(d, 1e-6), 0), 1)
			dst[i] = float32(w*b) + float32((1-w)*a)
		}
		j.round(dst)
	}, nil
}
