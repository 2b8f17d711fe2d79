package main

import (
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/merge"
)

// outputError is how far what an adapter adds to outputs is from what it added before, relative to that, on
// inputs of which no direction matters more than another: the Frobenius norms of the changes and their differences.
type outputError struct {
	All         float64 `json:"all"`
	Largest     float64 `json:"largest"`
	LargestName string  `json:"largest_matrix"`
}

// noDifference is what the comparison itself rounds.
const noDifference = 1e-12

// quantizeAdapter writes an adapter in another type, and says what that lost.
func (a *app) quantizeAdapter(path string, o *quantizeOptions) error {
	out := adapterOutput{path: o.output.path, base: o.base, typ: o.typ, force: o.output.force}
	if o.output.dryRun {
		return format.Usagef("--dry-run is for models: all matrices of an adapter get the one type")
	}
	if _, _, err := out.as(); err != nil {
		return err
	}
	ad, err := openAdapter(path)
	if err != nil {
		return err
	}
	out.stay(ad)
	done, err := out.resolve(ad)
	if err != nil {
		return err
	}
	defer done()
	if err := out.write(ad, adapter.WriteOptions{}); err != nil {
		return err
	}
	return a.inspect(out.path, inspectOptions{base: out.base, original: ad})
}

// errorAgainst compares an adapter with the one it was made of. Both are resolved, or neither is.
func errorAgainst(original, written *adapter.Adapter) (*outputError, error) {
	list, err := merge.DiffAdapters(original, written)
	if err != nil {
		return nil, err
	}
	e := &outputError{}
	var of, left float64
	for _, d := range list {
		if d.NormA == 0 {
			continue
		}
		of += float64(d.NormA * d.NormA)
		left += float64(d.Norm * d.Norm)
		if x := d.Norm / d.NormA; x > max(e.Largest, noDifference) {
			e.Largest, e.LargestName = x, d.Name
		}
	}
	if of > 0 && e.Largest > 0 {
		e.All = math.Sqrt(left / of)
	}
	return e, nil
}
