package model

import (
	"slices"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

// TestMergedRows compares rows of an adapter as if merged with the model that they are merged into,
// bit for bit. Their gradients are those of the merged file's rows.
func TestMergedRows(t *testing.T) {
	t.Parallel()
	for _, c := range mergeTinies {
		for _, typ := range []format.Type{format.Q4_0, format.Q8_0, format.Q4_K, format.Q6_K} {
			t.Run(c.name+" "+typ.String(), func(t *testing.T) {
				t.Parallel()
				src := quantized(t, c.model(), typ)
				m := newModel(t, src, Options{Threads: 2})
				b := randomBatch(m.Vocab, 9, 4)
				a := withRows(m, randomAdapter(m, 3), b, 0.5)
				a.Merge = &Merge{Seed: 9}
				got := runPass(t, m, a, b)

				whole := arch.Tokens{Rows: map[string]arch.TokenRows{}}
				for name, r := range a.Rows {
					whole.Rows[name] = arch.TokenRows{IDs: r.IDs, Data: r.Data.Data}
				}
				over, err := mergedInto(t, src, a, 9).WithTokens(whole)
				if err != nil {
					t.Fatal(err)
				}
				views := slices.Clone(over.Views)
				plain := &Adapter{Pairs: map[string]*Pair{}, Rows: map[string]*Rows{}}
				for i, v := range views {
					r := a.Rows[v.Name]
					if r == nil {
						continue
					}
					w, rows := *v, *src.View(v.Name).Rows.(*memBlocks)
					rows.data = make([]byte, len(rows.data))
					if err := v.Rows.(format.RawReader).ReadRaw(rows.data, 0); err != nil {
						t.Fatal(err)
					}
					w.Rows, views[i] = &rows, &w
					stored := &Rows{IDs: r.IDs, Data: randomMat(len(r.IDs), r.Data.Cols, 1)}
					for j, id := range r.IDs {
						if err := rows.ReadRows(stored.Data.Row(j), int64(id)); err != nil {
							t.Fatal(err)
						}
					}
					if slices.Equal(stored.Data.Data, r.Data.Data) {
						t.Errorf("%s: the rows are stored as they are", v.Name)
					}
					plain.Rows[v.Name] = stored
				}
				merged := newModel(t, over.With(views), Options{Threads: 1})
				want := runPass(t, merged, plain, b)
				if !slices.Equal(got.losses, want.losses) {
					t.Error("other losses")
				}
				for name, g := range want.grads {
					if !slices.Equal(g.Rows.Data, got.grads[name].Rows.Data) {
						t.Errorf("another gradient of the rows of %s", name)
					}
				}
				if !slices.Equal(batchLogits(t, m, b, Scaled{a, 1}), batchLogits(t, merged, b)) {
					t.Error("other logits")
				}

				// The adapter changes; another takes its place.
				for _, r := range a.Rows {
					r.Data.Row(0)[0] += 3
				}
				a.Changed()
				after := runPass(t, m, a, b)
				if slices.Equal(after.losses, got.losses) {
					t.Error("changed rows have the losses of before")
				}
				other := withRows(m, randomAdapter(m, 3), b, 0.1)
				other.Merge = &Merge{Seed: 9}
				runPass(t, m, other, b)
				if !slices.Equal(runPass(t, m, a, b).losses, after.losses) {
					t.Error("other losses after another adapter")
				}
			})
		}
	}
}
