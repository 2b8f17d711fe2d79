package merge

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
)

// ExtractOptions says what is extracted.
type ExtractOptions struct {
	Cut        Cut  // Rank must be positive
	Embeddings bool // the token embeddings and the head, too
	// Budget is how many parameters the adapter may have in all, spread by what singular
	// values hold for what they cost; 0: every matrix gets its rank.
	Budget int64
	// Signal cuts every matrix at the values that stand out of noise, see [Extracted].
	Signal bool
	// Noise takes matrices whose difference looks like nothing but noise, too.
	Noise bool
	// Vectors takes norms and biases, Norms the norms alone, which only some formats of adapters hold.
	Vectors, Norms bool
	Seed           uint64
	Threads        int
	Progress       func(done, total int)

	stored bool // the models are seen as they stand, such as diffusion checkpoints
}

// notUNet are what a checkpoint of a diffusion model holds besides it.
var notUNet = []string{"conditioner.", "cond_stage_model.", "text_encoder", "first_stage_model.", "vae."}

// storedExtractable says whether a tensor of a diffusion checkpoint, seen as it stands, can be in an adapter: a matrix or a
// convolution of the model itself.
func storedExtractable(v *format.View) bool {
	return len(v.Shape) == 2 && !reshaped(v) && strings.HasSuffix(v.Name, ".weight") &&
		!slices.ContainsFunc(notUNet, func(s string) bool { return strings.HasPrefix(v.Name, s) })
}

// module is how other programs name a tensor's module, where the tensor's name does not say it; else "".
func (o *ExtractOptions) module(tensor string) string {
	if !o.stored {
		return ""
	}
	return "diffusion_model." + strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(tensor, ".weight"), "model."), "diffusion_model.")
}

// Extracted says what was found in one matrix.
type Extracted struct {
	Name string  `json:"tensor"`
	Rank int     `json:"rank"`
	Kept float64 `json:"kept"` // share of the squared norm of the difference that the pair holds
	Norm float64 `json:"norm"` // Frobenius norm of the difference
	// Signal is how many of the singular values found stand out of noise, such as
	// quantization makes; at most the rank looked for.
	Signal int `json:"signal_rank"`

	spectrum []float64
	pair     *adapter.Pair
}

// ExtractReport is what an extraction found and what it left.
type ExtractReport struct {
	Matrices []*Extracted `json:"matrices"`
	// Left are tensors that differ and are not in the adapter, which holds matrices
	// of the layers: norms, biases, and unless asked for embeddings and head.
	Left []string `json:"left_out,omitempty"`
	// Noisy are matrices that differ by noise alone, and are left out for that.
	Noisy []string `json:"noise,omitempty"`
	// Parameters of the adapter.
	Parameters int64 `json:"parameters"`
}

// Extract makes the adapter that turns base into tuned, as far as the rank allows:
// the truncated SVD of the difference of every matrix. The models may be stored
// in any types; what is extracted is the difference of their values, including what
// quantization made of it. Memory is O((rows+cols) * rank) for one matrix, and the adapter.
// It is a [format.CheckError] if nothing differs, or nothing but noise.
func Extract(ctx context.Context, base, tuned *arch.Model, opt ExtractOptions) (*adapter.Adapter, *ExtractReport, error) {
	base, err := asWeights(base)
	if err != nil {
		return nil, nil, err
	}
	if tuned, err = asWeights(tuned); err != nil {
		return nil, nil, err
	}
	resized, err := sameTensors(base, tuned, opt.Embeddings)
	if err != nil {
		return nil, nil, err
	}
	opt.stored = base.Stored()
	pool := kernel.NewPool(opt.Threads)
	defer pool.Close()
	report := &ExtractReport{Matrices: []*Extracted{}, Left: resized}
	var vectors []*adapter.Pair
	for i, v := range base.Views {
		w := tuned.View(v.Name)
		if opt.Progress != nil {
			opt.Progress(i, len(base.Views))
		}
		if w == nil || !slices.Equal(v.Shape, w.Shape) {
			continue // among resized
		}
		if len(v.Shape) == 1 && (opt.Vectors || opt.Norms && strings.HasSuffix(v.Name, "norm.weight")) {
			p, err := extractVector(v, w)
			if err != nil {
				return nil, nil, fmt.Errorf("tensor %s: %w", v.Name, err)
			}
			if p != nil {
				vectors = append(vectors, p)
			}
			continue
		}
		if base.Stored() && !storedExtractable(v) || !base.Stored() && !extractable(v, opt.Embeddings) {
			differs, err := anyDifference(ctx, v, w)
			if err != nil {
				return nil, nil, fmt.Errorf("tensor %s: %w", v.Name, err)
			}
			if differs {
				report.Left = append(report.Left, v.Name)
			}
			continue
		}
		if err := extractTensor(ctx, pool, v, w, opt, report); err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", v.Name, err)
		}
		release(v)
		release(w)
	}
	if err := report.choose(opt); err != nil {
		return nil, nil, err
	}
	pairs := vectors
	for _, m := range report.Matrices {
		pairs = append(pairs, m.pair)
	}
	for _, p := range pairs {
		report.Parameters += int64(p.Rank) * int64(p.A.Cols+p.B.Rows)
	}
	switch {
	case len(pairs) > 0:
		return adapter.New("extracted", base.Arch, pairs), report, nil
	case len(report.Noisy) > 0:
		return nil, report, &format.CheckError{Reason: fmt.Sprintf("there is nothing to extract: what %d matrices of %s differ by from %s looks like quantization noise; --noise takes it all the same",
			len(report.Noisy), tuned.Path, base.Path)}
	}
	if n := len(report.Left); n > 0 {
		return nil, report, &format.CheckError{Reason: fmt.Sprintf("there is nothing to extract: what %s differs by from %s is no part of such an adapter: %s",
			tuned.Path, base.Path, strings.Join(report.Left[:min(n, 8)], ", "))}
	}
	return nil, report, &format.CheckError{Reason: fmt.Sprintf("there is nothing to extract: no matrix of %s differs from %s", tuned.Path, base.Path)}
}

// choose leaves out noise and gives each matrix the rank it gets.
func (r *ExtractReport) choose(opt ExtractOptions) error {
	kept := r.Matrices[:0]
	for _, m := range r.Matrices {
		if m.Signal == 0 && !opt.Noise {
			r.Noisy = append(r.Noisy, m.Name)
			continue
		}
		kept = append(kept, m)
	}
	r.Matrices = kept
	ranks := make([]int, len(kept))
	for i, m := range kept {
		if ranks[i] = m.Rank; opt.Signal && m.Signal > 0 {
			ranks[i] = min(m.Rank, m.Signal)
		}
	}
	if opt.Budget > 0 {
		spectra, costs := make([][]float64, len(kept)), make([]int64, len(kept))
		for i, m := range kept {
			spectra[i], costs[i] = m.spectrum[:ranks[i]], int64(m.pair.B.Rows+m.pair.A.Cols)
		}
		ranks = shareOut(spectra, costs, opt.Budget)
	}
	list := kept[:0]
	for i, m := range kept {
		if ranks[i] == 0 {
			r.Left = append(r.Left, m.Name+" (beyond the budget)")
			continue
		}
		m.cut(ranks[i])
		list = append(list, m)
	}
	r.Matrices = list
	if opt.Budget > 0 && len(kept) > 0 && len(list) == 0 {
		return format.Usagef("a budget of %d parameters does not hold a single direction", opt.Budget)
	}
	return nil
}

// cut leaves the first directions of a matrix.
func (m *Extracted) cut(rank int) {
	var held float64
	for _, s := range m.spectrum[:min(rank, len(m.spectrum))] {
		held += float64(s * s)
	}
	m.Rank, m.Kept = rank, min(held/(m.Norm*m.Norm), 1)
	a, b := m.pair.A, m.pair.B
	if rank >= a.Rows {
		return
	}
	a.Rows, a.Data = rank, a.Data[:rank*a.Cols]
	narrow := adapter.Matrix{Rows: b.Rows, Cols: rank, Data: make([]float32, b.Rows*rank)}
	for i := range b.Rows {
		copy(narrow.Row(i), b.Row(i))
	}
	m.pair.SetFactors(a, narrow, 1)
}

// extractVector is the difference of two vectors, nil if there is none.
func extractVector(base, tuned *format.View) (*adapter.Pair, error) {
	_, n := base.Rows.Dims()
	d := make([]float32, n)
	if err := (Difference{tuned.Rows, base.Rows}).ReadRows(d, 0); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(d, func(x float32) bool { return x != 0 }) {
		return nil, nil
	}
	p := &adapter.Pair{Target: base.Name, Expert: -1, Vector: true}
	p.SetFactors(adapter.Matrix{Rows: 1, Cols: int(n), Data: d}, adapter.Matrix{Rows: 1, Cols: 1, Data: []float32{1}}, 1)
	return p, nil
}

// sameTensors makes sure that tuned can be base changed. Embeddings and heads of
// other sizes, which an adapter cannot hold, are listed unless they are wanted.
func sameTensors(base, tuned *arch.Model, embeddings bool) (resized []string, err error) {
	if base.Arch != tuned.Arch {
		return nil, format.Usagef("%s is %s and %s is %s: an adapter stays within one architecture", base.Path, base.Arch, tuned.Path, tuned.Arch)
	}
	for _, v := range tuned.Views {
		switch {
		case base.View(v.Name) != nil:
		case embeddings || extractable(v, false):
			return nil, fmt.Errorf("%s has %s, which %s lacks: an adapter cannot add tensors", tuned.Path, v.Name, base.Path)
		default:
			resized = append(resized, v.Name+" (the base has none)")
		}
	}
	for _, v := range base.Views {
		w := tuned.View(v.Name)
		switch {
		case w == nil && (embeddings || extractable(v, false)):
			return nil, fmt.Errorf("%s has %s, which %s lacks", base.Path, v.Name, tuned.Path)
		case w == nil:
			resized = append(resized, v.Name+" (the tuned model has none)")
		case slices.Equal(v.Shape, w.Shape):
		case embeddings || extractable(v, false):
			return nil, fmt.Errorf("tensor %s is %s in %s and %s in %s: an adapter cannot resize it", v.Name, shape(v.Shape), base.Path, shape(w.Shape), tuned.Path)
		default:
			resized = append(resized, fmt.Sprintf("%s (resized from %s to %s)", v.Name, shape(v.Shape), shape(w.Shape)))
		}
	}
	return resized, nil
}

func shape(s []int64) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(s), "[]"), " ", "x")
}

func extractable(v *format.View, embeddings bool) bool {
	if len(v.Shape) < 2 || !strings.HasSuffix(v.Name, ".weight") {
		return false
	}
	return embeddings || strings.HasPrefix(v.Name, "blk.")
}

// anyDifference reads two tensors until a value differs.
func anyDifference(ctx context.Context, a, b *format.View) (bool, error) {
	t := &TensorDiff{}
	err := diffTensor(ctx, t, a, b)
	return t.Changed > 0, err
}

// extractTensor adds to the report the pair of a matrix, or of each matrix of a stack.
func extractTensor(ctx context.Context, pool *kernel.Pool, base, tuned *format.View, opt ExtractOptions, report *ExtractReport) error {
	rows, _ := base.Rows.Dims()
	stack := int64(1)
	for _, d := range base.Shape[:len(base.Shape)-2] {
		stack *= d
	}
	for e := range stack {
		m := slice{Difference{tuned.Rows, base.Rows}, e * (rows / stack), rows / stack}
		l, s, err := truncatedSVD(ctx, pool, m, opt.Cut, opt.Seed)
		if err != nil {
			return err
		}
		norm := s.norm()
		if norm == 0 {
			continue
		}
		signal, err := signalOf(ctx, pool, base, tuned, m, l, s, opt)
		if err != nil {
			return err
		}
		spectrum := l.Singular
		l = l.withoutNoise()
		p := &adapter.Pair{Target: base.Name, Expert: -1, Module: opt.module(base.Name)}
		if shape := base.From[0].Shape; opt.stored && len(shape) > 2 {
			p.Kernel = shape[2:]
		}
		name := base.Name
		if stack > 1 {
			p.Expert = int(e)
			name = key(p)
		}
		p.SetFactors(matrixOf(l.A), matrixOf(l.B), 1)
		report.Matrices = append(report.Matrices, &Extracted{Name: name, Rank: l.A.Rows, Norm: norm, Signal: signal, spectrum: spectrum, pair: p})
	}
	return nil
}

// slice is a run of rows of a matrix.
type slice struct {
	m           format.RowReader
	first, rows int64
}

func (s slice) Dims() (rows, cols int64) {
	_, cols = s.m.Dims()
	return s.rows, cols
}

func (s slice) ReadRows(dst []float32, row int64) error { return s.m.ReadRows(dst, s.first+row) }
