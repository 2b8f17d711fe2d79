package merge

// taskMethod is a method of task arithmetic (Ilharco et al. 2023): the differences from
// the base are made sparse, weighted and added to the base,
//
//	b + lambda * sum w d / divisor
//
// where, with an election, only those d count whose weighted sign is that of the
// weighted sum. With a 16-bit dtype every step rounds, as mergekit's do.
type taskMethod struct {
	name, help string
	params     []string
	sparsify   sparsifier
	elect      bool
	normalize  bool // defaults of the parameters
	rescale    bool // to the L1 norm of before
}

// sparsifier says which elements of a difference are kept. It may read the matrix to
// find out. nil keeps all.
type sparsifier func(j *blendJob, model int, density float64) (keep blendMask, err error)

// blendMask marks the elements to keep of the block d of whole rows.
type blendMask func(keep []bool, d []float32, row int64)

func init() {
	for _, m := range []taskMethod{
		{"task_arithmetic", "the base and the weighted sum of the differences from it", nil, nil, false, false, false},
		{"ties", "the largest of each difference, a sign elected, the mean of those that agree", []string{"density", "rescale"}, keepLargest, true, true, false},
		{"dare_linear", "random ones of each difference, at the same L1 norm, and their weighted sum", []string{"density", "rescale"}, keepRandom, false, false, true},
		{"dare_ties", "random ones of each difference, a sign elected, the sum of those that agree", []string{"density", "rescale"}, keepRandom, true, false, true},
		{"breadcrumbs", "each difference without its largest and smallest, and their weighted sum", []string{"density", "gamma", "rescale"}, keepMiddle, false, false, false},
		{"breadcrumbs_ties", "each difference without its largest and smallest, a sign elected, the sum of those that agree", []string{"density", "gamma", "rescale"}, keepMiddle, true, false, false},
		{"della", "random ones of each difference, large ones rather, a sign elected, the mean of those that agree", []string{"density", "epsilon", "rescale"}, keepLikely, true, true, true},
		{"della_linear", "random ones of each difference, large ones rather, and their weighted sum", []string{"density", "epsilon", "rescale"}, keepLikely, false, false, true},
	} {
		registerBlend(&blendMethod{name: m.name, help: m.help, base: baseNeeded, min: 1, open: m.open,
			params: append([]string{"weight", "lambda", "normalize"}, m.params...)})
	}
}

// task is a difference made ready.
type task struct {
	weight float32
	mask   blendMask // nil: all
	scale  float32   // of what is kept
}

func (m taskMethod) open(j *blendJob) (blendBlock, error) {
	weights, err := j.params("weight", required)
	if err != nil {
		return nil, err
	}
	w := make([]float32, len(weights))
	for i, v := range weights {
		w[i] = float32(v)
	}
	j.round(w)
	tasks := make([]task, len(w))
	for k := range tasks {
		tasks[k] = task{weight: w[k], scale: 1}
		density, err := j.models[k].param("density", 1)
		if err != nil {
			return nil, err
		}
		if m.sparsify == nil || density >= 1 {
			continue
		}
		if tasks[k].mask, err = m.sparsify(j, k, max(density, 0)); err != nil {
			return nil, err
		}
		if j.mask != nil {
			tasks[k].mask = j.recorded(k)
		}
	}
	if j.global("rescale", truth(m.rescale)) != 0 {
		if err := j.rescale(tasks); err != nil {
			return nil, err
		}
	}
	normalize, lambda := j.global("normalize", truth(m.normalize)) != 0, float32(j.global("lambda", 1))
	return func(dst []float32, row int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		for k, t := range tasks {
			t.apply(x[k], row, j.round)
			for i := range x[k] {
				x[k][i] *= t.weight
			}
			j.round(x[k])
		}
		m.sum(dst, x, tasks, normalize, j.round)
		if lambda != 1 {
			for i := range dst {
				dst[i] *= lambda
			}
			j.round(dst)
		}
		for i, b := range base {
			dst[i] += b
		}
		j.round(dst)
	}, nil
}

// truth is how a parameter says yes or no.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// apply makes a difference sparse.
func (t task) apply(d []float32, row int64, round func([]float32)) {
	if t.mask == nil {
		return
	}
	keep := make([]bool, len(d))
	t.mask(keep, d, row)
	for i, k := range keep {
		if !k {
			d[i] = 0
		} else if t.scale != 1 {
			d[i] *= t.scale
		}
	}
	if t.scale != 1 {
		round(d)
	}
}

// sum adds the weighted differences x, and divides by the weights that took part.
func (m taskMethod) sum(dst []float32, x [][]float32, tasks []task, normalize bool, round func([]float32)) {
	divisor := make([]float32, len(dst))
	var all float32
	for _, t := range tasks {
		all += t.weight
	}
	for i := range dst {
		var sum float32
		for _, v := range x {
			sum += v[i]
		}
		dst[i], divisor[i] = sum, all
	}
	if m.elect {
		round(dst) // the vote is a sum like others
		for i, vote := range dst {
			majority := float32(1)
			if !(vote >= 0) {
				majority = -1
			}
			var sum, n float32
			for k, v := range x {
				if sign(v[i]) == majority {
					sum += v[i]
					n += tasks[k].weight
				}
			}
			dst[i], divisor[i] = sum, n
		}
	}
	round(dst)
	if !normalize {
		return
	}
	round(divisor)
	for i, n := range divisor {
		if n == 0 || !m.elect && n < 1e-8 && n > -1e-8 {
			n = 1
		}
		dst[i] /= n
	}
	round(dst)
}

// rescale finds the factors that bring the sparse differences to the L1 norms that
// they had.
func (j *blendJob) rescale(tasks []task) error {
	before, after := make([]float64, len(tasks)), make([]float64, len(tasks))
	any := false
	for _, t := range tasks {
		any = any || t.mask != nil
	}
	if !any {
		return nil
	}
	err := j.pass(func(row int64, x [][]float32, base []float32) {
		j.subtractBase(x, base)
		for k, t := range tasks {
			if t.mask == nil {
				continue
			}
			keep := make([]bool, len(x[k]))
			t.mask(keep, x[k], row)
			for i, v := range x[k] {
				if v < 0 {
					v = -v
				}
				before[k] += float64(v)
				if keep[i] {
					after[k] += float64(v)
				}
			}
		}
	})
	for k := range tasks {
		if before[k] >= 1e-7 && after[k] >= 1e-7 {
			tasks[k].scale = float32(before[k] / after[k])
		}
	}
	return err
}

// recorded is a mask that a test gives.
func (j *blendJob) recorded(model int) blendMask {
	return func(keep []bool, _ []float32, row int64) {
		for i := range keep {
			r, c := int64(i)/j.cols, int64(i)%j.cols
			keep[i] = j.mask(j.name, model, j.element(row+r)+c)
		}
	}
}
