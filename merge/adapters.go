package merge

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/kernel"
)

// Weighted is an adapter with the factor the user gives it.
type Weighted struct {
	*adapter.Adapter
	Factor float32
}

// Join resolves the adapters against base and gives what a merge is made of: the base with the
// rows of tokens that adapters bring (base itself where none does), and the changes of its
// matrices. The adapters' memory is shared, not copied.
func Join(base *arch.Model, adapters []Weighted) (*arch.Model, Deltas, error) {
	m := base
	var plain []Weighted
	for _, a := range adapters {
		if err := a.Resolve(base); err != nil {
			return nil, nil, err
		}
		if a.Tokens != nil {
			switch {
			case a.Factor != 1:
				return nil, nil, format.Unsupported("%s has rows of tokens, which are used as they are: its factor is 1, not %v", a.Path, a.Factor)
			case m != base:
				return nil, nil, format.Unsupported("two adapters have rows of tokens (%s is the second): merge one, and train the other for what comes of that", a.Path)
			}
			var err error
			if m, err = base.WithTokens(a.ModelTokens()); err != nil {
				return nil, nil, fmt.Errorf("adapter %s: %w", a.Path, err)
			}
			pairs := *a.Adapter
			pairs.Tokens = nil
			a.Adapter = &pairs
		}
		plain = append(plain, a)
	}
	if m != base { // another model, whose embedding and head have other shapes
		ds, err := NewDeltas(m, plain)
		return m, ds, err
	}
	ds, err := gather(base, plain)
	return base, ds, err
}

// NewDeltas resolves the adapters against base and gathers what they do to each of
// its tensors. The adapters' matrices are shared, not copied. Rows of tokens are no such
// change, see [Join].
func NewDeltas(base *arch.Model, adapters []Weighted) (Deltas, error) {
	for _, a := range adapters {
		if err := a.Resolve(base); err != nil {
			return nil, err
		}
	}
	return gather(base, adapters)
}

// gather is NewDeltas for adapters that are resolved.
func gather(base *arch.Model, adapters []Weighted) (ds Deltas, err error) {
	terms := map[string][]Term{}
	for _, a := range adapters {
		if len(a.Invocation) > 0 {
			return nil, format.Unsupported("merging %s, which acts from an invocation on: merged it would act on all of a text; run it beside its base", a.Path)
		}
		if a.Tokens != nil {
			return nil, format.Unsupported("%s has rows of tokens beside its changes of matrices", a.Path)
		}
		for _, p := range a.Pairs {
			t := termOf(p)
			t.Scale *= a.Factor
			if p.Expert > 0 {
				t.Row = int64(p.Expert) * int64(p.B.Rows)
			} else {
				t.Row = int64(p.Row)
			}
			if v := base.View(p.Target); p.Magnitude != nil && v != nil && reshaped(v) {
				return nil, format.Unsupported("DoRA of tensor %s, whose rows in the file are not those of its matrix", p.Target)
			}
			if t.Columns {
				if t.norms, err = columnNorms(base, base.View(p.Target), t); err != nil {
					return nil, fmt.Errorf("tensor %s: %w", p.Target, err)
				}
			}
			terms[p.Target] = append(terms[p.Target], t)
		}
	}
	ds = Deltas{}
	for _, name := range slices.Sorted(maps.Keys(terms)) {
		ts := terms[name]
		v := base.View(name)
		if v == nil {
			return nil, fmt.Errorf("%s has no tensor %s, which an adapter changes", base.Path, name)
		}
		for _, ending := range factorEndings {
			if s := strings.TrimSuffix(name, ".weight") + ending; base.View(s) != nil && (ending != factorEnding || base.Stored()) {
				return nil, format.Unsupported("merging into tensor %s, whose factor stands in %s: quantize the float model to another type and merge into that", name, s)
			}
		}
		f, err := factorsOf(base, v)
		if err != nil {
			return nil, err
		}
		rows, cols := v.Rows.Dims()
		d := &Delta{Rows: rows, Cols: cols}
		if reshaped(v) {
			d.matrix, err = NewDelta(v.Shape[0], v.Shape[1], ts)
		} else {
			d, err = NewDelta(rows, cols, ts)
		}
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", name, err)
		}
		ds[name] = d.inStored(f)
	}
	return ds, nil
}

// reshaped says whether a tensor's rows in its file are others than its matrix'.
func reshaped(v *format.View) bool {
	_, cols := v.Rows.Dims()
	return len(v.Shape) == 2 && v.Shape[1] != cols
}

// termOf is a pair as a term of a delta; the matrices are the pair's.
func termOf(p *adapter.Pair) Term {
	t := Term{A: matOf(p.A), B: matOf(p.B), Scale: p.Scale, Magnitude: p.Magnitude, Columns: p.Columns, NormEpsilon: p.NormEpsilon}
	if full, ok := p.Full(); ok {
		t.full = matOf(full)
	}
	return t
}

// columnNorms are the norms of the columns of W + D, for DoRA over columns: the base is
// read once.
func columnNorms(m *arch.Model, v *format.View, t Term) ([]float32, error) {
	if v == nil {
		return nil, fmt.Errorf("the base has no such tensor")
	}
	f, err := factorsOf(m, v)
	if err != nil {
		return nil, err
	}
	stored := f.rows(v.Rows)
	plain := t
	plain.Magnitude, plain.Columns, plain.Row = nil, false, 0
	rows, cols := t.B.Rows, t.A.Cols
	d, err := NewDelta(int64(rows), int64(cols), []Term{plain})
	if err != nil {
		return nil, err
	}
	sums := make([]float64, cols)
	n := max(1, (1<<18)/cols)
	base, change := make([]float32, n*cols), make([]float32, n*cols)
	for row := 0; row < rows; row += n {
		w, c := base[:min(n, rows-row)*cols], change[:min(n, rows-row)*cols]
		if err := stored.ReadRows(w, t.Row+int64(row)); err != nil {
			return nil, err
		}
		d.Change(c, w, int64(row))
		for i, x := range c {
			y := float64(w[i] + x)
			sums[i%cols] += float64(y * y)
		}
	}
	norms := make([]float32, cols)
	for j, s := range sums {
		norms[j] = float32(math.Sqrt(s))
	}
	return norms, nil
}

func matOf(m adapter.Matrix) kernel.Mat {
	return kernel.Mat{Data: m.Data, Rows: m.Rows, Cols: m.Cols, Stride: m.Cols}
}

func matrixOf(m kernel.Mat) adapter.Matrix {
	return adapter.Matrix{Rows: m.Rows, Cols: m.Cols, Data: m.Data}
}
