package merge

import (
	"math"

	"github.com/graft-lora/graft/internal/fmath"
)

func init() {
	registerBlend(&blendMethod{name: "model_stock", help: "between the mean of the models and the base, the nearer to the mean the more they agree",
		params: []string{"filter_wise"}, base: baseNeeded, min: 1, open: openModelStock})
	registerBlend(&blendMethod{name: "sce", help: "where the differences vary most: weighted by their squares, signs elected",
		params: []string{"select_topk"}, base: baseNeeded, min: 1, open: openSCE})
	registerBlend(&blendMethod{name: "arcee_fusion", help: "of the model those values that matter most, of the base the others",
		base: baseNeeded, min: 1, max: 1, open: openFusion})
}

// openModelStock follows Jang et al. 2024: with c the mean cosine between the
// differences of n models and t = n c / (1 + (n-1) c), the result is
// t * mean + (1-t) * base.
func openModelStock(j *blendJob) (blendBlock, error) {
	n := float64(len(j.models))
	ratio := func(g [][]float64) float64 {
		var sum float64
		pairs := 0
		for a := range g {
			for b := range a {
				norm := math.Sqrt(g[a][a]) * math.Sqrt(g[b][b])
				sum += min(max(g[a][b]/max(norm, 1e-6), -1), 1)
				pairs++
			}
		}
		if pairs == 0 {
			return 1
		}
		c := sum / float64(pairs)
		return n * c / (1 + float64((n-1)*c))
	}
	blend := func(dst []float32, x [][]float32, base []float32, t float64) {
		for i, b := range base {
			var sum float64
			for _, v := range x {
				sum += float64(v[i])
			}
			dst[i] = float32(float64(t*(sum/n)) + float64((1-t)*float64(b)))
		}
	}
	if j.global("filter_wise", 0) == 0 {
		g, err := j.gram()
		if err != nil {
			return nil, err
		}
		t := ratio(g)
		return func(dst []float32, _ int64, x [][]float32, base []float32) {
			blend(dst, x, base, t)
			j.round(dst)
		}, nil
	}
	return func(dst []float32, _ int64, x [][]float32, base []float32) {
		k, cols := len(x), int(j.cols)
		d := make([][]float32, k)
		row := make([][]float32, k)
		for at := 0; at < len(dst); at += cols {
			g := make([][]float64, k)
			for a := range x {
				row[a] = x[a][at : at+cols]
				d[a] = append(d[a][:0], row[a]...)
			}
			j.subtractBase(d, base[at:at+cols])
			for a := range x {
				g[a] = make([]float64, k)
				for b := range a + 1 {
					g[a][b] = dot64(d[a], d[b])
				}
			}
			blend(dst[at:at+cols], row, base[at:at+cols], ratio(g))
		}
		j.round(dst)
	}, nil
}

// openSCE follows Wan et al. 2024 (select, calculate, erase).
func openSCE(j *blendJob) (blendBlock, error) {
	keep, err := j.mostVarying(j.global("select_topk", 1))
	if err != nil {
		return nil, err
	}
	weights := make([]float64, len(j.models))
	if err := j.pass(func(row int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		keep(x, row)
		for k, v := range x {
			weights[k] += dot64(v, v)
		}
	}); err != nil {
		return nil, err
	}
	var sum float64
	for k := range weights {
		weights[k] /= float64(j.rows * j.cols)
		sum += weights[k]
	}
	for k := range weights {
		if sum < 1e-6 {
			weights[k] = 1 / float64(len(weights))
		} else {
			weights[k] /= sum
		}
	}
	return func(dst []float32, row int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		keep(x, row)
		for i, b := range base {
			var vote float32
			for _, v := range x {
				vote += v[i]
			}
			majority := float32(1)
			if !(vote >= 0) {
				majority = -1
			}
			var total, n float32
			for k, v := range x {
				if sign(v[i]) == majority {
					total += float32(float32(weights[k]) * v[i])
					n += float32(weights[k])
				}
			}
			dst[i] = b + total/max(n, 1e-6)
		}
		j.round(dst)
	}, nil
}

// mostVarying returns what sets to zero all but the elements whose variance over the
// models is largest: a share of those where it is not zero.
func (j *blendJob) mostVarying(share float64) (func(x [][]float32, row int64), error) {
	if share >= 1 {
		return func([][]float32, int64) {}, nil
	}
	var nonzero int64
	variances := func(f func([]float32)) error {
		return j.pass(func(_ int64, x [][]float32, base []float32) {
			j.subtractBase(x, base)
			f(variance(x))
		})
	}
	if err := variances(func(v []float32) {
		for _, a := range v {
			if a != 0 {
				nonzero++
			}
		}
	}); err != nil {
		return nil, err
	}
	k := int64(max(share, 0) * float64(nonzero))
	n := j.rows * j.cols
	if k == 0 {
		return func(x [][]float32, _ int64) {
			for _, v := range x {
				clear(v)
			}
		}, nil
	}
	at, err := atRanks(variances, n-k)
	if err != nil {
		return nil, err
	}
	edge := at[0].bits
	return func(x [][]float32, _ int64) {
		for i, v := range variance(x) {
			if magnitude(v) < edge {
				for _, y := range x {
					y[i] = 0
				}
			}
		}
	}, nil
}

// variance is that of each element over the models, in float64 and rounded.
func variance(x [][]float32) []float32 {
	out := make([]float32, len(x[0]))
	n := float64(len(x))
	for i := range out {
		var mean, sum float64
		for _, v := range x {
			mean += float64(v[i]) / n
		}
		for _, v := range x {
			d := float64(v[i]) - mean
			sum += float64(d * d)
		}
		out[i] = float32(sum / n)
	}
	return out
}

// openFusion: the importance of an element is |x - b| times the divergence of its
// row, KL(softmax(x) over softmax(b)). Elements at or above median + 1.5 times the
// distance of the quartiles are the model's.
func openFusion(j *blendJob) (blendBlock, error) {
	cols := int(j.cols)
	importance := func(x, base []float32) []float32 {
		out := make([]float32, len(x))
		for at := 0; at < len(x); at += cols {
			v, b := x[at:at+cols], base[at:at+cols]
			kl := divergence(v, b)
			for i := range v {
				out[at+i] = float32(math.Abs(float64(v[i])-float64(b[i])) * kl)
			}
		}
		return out
	}
	n := float64(j.rows*j.cols - 1)
	at, err := atRanks(func(f func([]float32)) error {
		return j.pass(func(_ int64, x [][]float32, base []float32) { f(importance(x[0], base)) })
	}, int64(0.25*n), int64(0.5*n), int64(0.75*n))
	if err != nil {
		return nil, err
	}
	q := func(i int) float64 { return float64(math.Float32frombits(at[i].bits)) }
	threshold := float32(q(1) + float64(1.5*(q(2)-q(0))))
	return func(dst []float32, _ int64, x [][]float32, base []float32) {
		for i, v := range importance(x[0], base) {
			dst[i] = base[i]
			if v >= threshold {
				dst[i] = x[0][i]
			}
		}
		j.round(dst)
	}, nil
}

// divergence is KL(softmax(x) over softmax(y)), each probability raised by 1e-8.
func divergence(x, y []float32) float64 {
	const eps = 1e-8
	p, q := softmax64(x), softmax64(y)
	var kl float64
	for i, a := range p {
		kl += float64((a + eps) * fmath.Log((a+eps)/(q[i]+eps)))
	}
	return kl
}

func softmax64(x []float32) []float64 {
	top := math.Inf(-1)
	for _, v := range x {
		top = max(top, float64(v))
	}
	out := make([]float64, len(x))
	var sum float64
	for i, v := range x {
		out[i] = fmath.Exp(float64(v) - top)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}
