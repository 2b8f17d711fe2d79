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
	Seed       uint64
	Threads    int
	Progress   func(done, total int)
}

// Extracted says what was found in one matrix.
type Extracted struct {
	Name string  `json:"tensor"`
	Rank int     `json:"rank"`
	Kept float64 `json:"kept"` // share of the squared norm of the difference that the pair holds
	Norm float64 `json:"norm"` // Frobenius norm of the difference
}

// ExtractReport is what an extraction found and what it left.
type ExtractReport struct {
	Matrices []Extracted `json:"matrices"`
	// Left are tensors that differ and are not in the adapter, which holds matrices
	// of the layers: norms, biases, and unless asked for embeddings and head.
	Left []string `json:"left_out,omitempty"`
}

// Extract makes the adapter that turns base into tuned, as far as the rank allows:
// the truncated SVD of the difference of every matrix. The models may be stored
// in any types; what is extracted is the difference of their values, including what
// quantization made of it. Memory is O((rows+cols) * rank) for one matrix, and the adapter.
// It is a [format.CheckError] if nothing differs.
func Extract(ctx context.Context, base, tuned *arch.Model, opt ExtractOptions) (*adapter.Adapter, *ExtractReport, error) {
	if err := sameTensors(base, tuned); err != nil {
		return nil, nil, err
	}
	pool := kernel.NewPool(opt.Threads)
	defer pool.Close()
	report := &ExtractReport{Matrices: []Extracted{}}
	var pairs []*adapter.Pair
	for i, v := range base.Views {
		w := tuned.View(v.Name)
		if opt.Progress != nil {
			opt.Progress(i, len(base.Views))
		}
		if !extractable(v, opt.Embeddings) {
			differs, err := anyDifference(ctx, v, w)
			if err != nil {
				return nil, nil, fmt.Errorf("tensor %s: %w", v.Name, err)
			}
			if differs {
				report.Left = append(report.Left, v.Name)
			}
			continue
		}
		ps, err := extractTensor(ctx, pool, v, w, opt, report)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", v.Name, err)
		}
		release(v)
		release(w)
		pairs = append(pairs, ps...)
	}
	if len(pairs) == 0 {
		return nil, report, &format.CheckError{Reason: fmt.Sprintf("there is nothing to extract: no matrix of %s differs from %s", tuned.Path, base.Path)}
	}
	return adapter.New("extracted", base.Arch, pairs), report, nil
}

func sameTensors(base, tuned *arch.Model) error {
	if base.Arch != tuned.Arch {
		return format.Usagef("%s is %s and %s is %s: an adapter stays within one architecture", base.Path, base.Arch, tuned.Path, tuned.Arch)
	}
	for _, v := range tuned.Views {
		if base.View(v.Name) == nil {
			return fmt.Errorf("%s has %s, which %s lacks: an adapter cannot add tensors", tuned.Path, v.Name, base.Path)
		}
	}
	for _, v := range base.Views {
		w := tuned.View(v.Name)
		if w == nil {
			return fmt.Errorf("%s has %s, which %s lacks", base.Path, v.Name, tuned.Path)
		}
		if !slices.Equal(v.Shape, w.Shape) {
			return fmt.Errorf("tensor %s is %s in %s and %s in %s", v.Name, shape(v.Shape), base.Path, shape(w.Shape), tuned.Path)
		}
	}
	return nil
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

// extractTensor makes the pairs of a matrix, or of each matrix of a stack.
func extractTensor(ctx context.Context, pool *kernel.Pool, base, tuned *format.View, opt ExtractOptions, report *ExtractReport) ([]*adapter.Pair, error) {
	rows, _ := base.Rows.Dims()
	stack := int64(1)
	for _, d := range base.Shape[:len(base.Shape)-2] {
		stack *= d
	}
	var pairs []*adapter.Pair
	for e := range stack {
		m := slice{Difference{tuned.Rows, base.Rows}, e * (rows / stack), rows / stack}
		l, norm, err := TruncatedSVD(ctx, pool, m, opt.Cut, opt.Seed)
		if err != nil {
			return nil, err
		}
		if norm == 0 {
			continue
		}
		var held float64
		for _, s := range l.Singular[:l.A.Rows] {
			held += float64(s * s)
		}
		l = l.withoutNoise()
		p := &adapter.Pair{Target: base.Name, Expert: -1}
		name := base.Name
		if stack > 1 {
			p.Expert = int(e)
			name = key(p)
		}
		p.SetFactors(matrixOf(l.A), matrixOf(l.B), 1)
		pairs = append(pairs, p)
		report.Matrices = append(report.Matrices, Extracted{Name: name, Rank: l.A.Rows, Kept: min(held/(norm*norm), 1), Norm: norm})
	}
	return pairs, nil
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
