package merge

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

// Measure finds what survived of the deltas in merged, a model made from base in any
// way and of any types: what other tools merged can be measured, too. Rows are
// streamed; the numbers do not depend on threads.
func Measure(ctx context.Context, base, merged *arch.Model, ds Deltas, threads int) (*Report, error) {
	if err := ds.check(base); err != nil {
		return nil, err
	}
	r := &Report{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(threads, 1))
	for _, v := range base.Views {
		d := ds[v.Name]
		if d == nil {
			continue
		}
		w := merged.View(v.Name)
		if w == nil {
			return nil, fmt.Errorf("%s has no tensor %s", merged.Path, v.Name)
		}
		if rows, cols := w.Rows.Dims(); rows != d.Rows || cols != d.Cols {
			return nil, fmt.Errorf("tensor %s is %dx%d in %s", v.Name, rows, cols, merged.Path)
		}
		was, err := factorsOf(base, v)
		if err != nil {
			return nil, err
		}
		is, err := factorsOf(merged, w)
		if err != nil {
			return nil, err
		}
		t := r.tally(w, "measured")
		t.grid = nil // the two have no codes in common
		g.Go(func() error {
			t.begin(d.Rows)
			defer t.end()
			defer release(v)
			defer release(w)
			if err := t.measure(ctx, was.rows(v.Rows), is.rows(w.Rows), d.ofWeights()); err != nil {
				return fmt.Errorf("tensor %s: %w", v.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r.Finish()
	return r, nil
}

func (t *tally) measure(ctx context.Context, base, merged format.RowReader, d *Delta) error {
	n := max(blockFloats/4/d.Cols, 1)
	buf := make([]float32, 3*n*d.Cols)
	for row := int64(0); row < d.Rows; row += n {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := min(n, d.Rows-row) * d.Cols
		w, delta, now := buf[:k], buf[k:2*k], buf[2*k:3*k]
		if err := base.ReadRows(w, row); err != nil {
			return err
		}
		if err := merged.ReadRows(now, row); err != nil {
			return err
		}
		d.Change(delta, w, row)
		t.count(nil, nil, w, now, delta, row)
	}
	return nil
}
