package main

import (
	"context"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/merge"
)

// promotionSteps are the parts of --max-growth that are tried one after another until the
// recovery asked for is there: the first is none.
var promotionSteps = []float64{0, 0.25, 0.5, 1}

// checkPromotion refuses limits of method promote that mean nothing.
func checkPromotion(maxError, maxGrowth float64) error {
	if !(maxError >= 0) || !(maxGrowth >= 0) {
		return format.Usagef("--max-error %v and --max-growth %v: neither may be negative", maxError, maxGrowth)
	}
	return nil
}

// checkRecovery says whether a recovery can be asked for, and makes it what counts as lost.
func (o *mergeOptions) checkRecovery() error {
	switch {
	case o.method != "promote":
		return format.Usagef("--recovery is for --method promote, which lets the file grow until it is reached")
	case o.data.path == "":
		return format.Usagef("--recovery needs --data, which it is measured on (or on --held-out)")
	}
	o.minRecov = o.recovery
	return nil
}

// sayPromoted says when promoting did not bring the tensors' error to what is asked for.
func (a *app) sayPromoted(r *merge.Report, o *mergeOptions) {
	if o.method != "promote" || len(r.Tensors) == 0 {
		return
	}
	if e := r.TensorError(); e > o.maxError {
		a.say("the error of the tensors' outputs is %.3g, --max-error %.3g is asked for: a larger --max-growth than %.3g allows more, where tensors are left that can be promoted", e, o.maxError, o.maxGrowth)
	}
}

// promoteOn merges again with more growth, the tensors that lose most first, until the
// recovery asked for is reached or no growth is left. It returns the last merge's report.
func (a *app) promoteOn(ctx context.Context, basePath string, adapterArgs []string, o *mergeOptions, measured *dataFlags, report *merge.Report, reached **recoveryTable) (*merge.Report, error) {
	o.output.force = true // what is replaced is this merge's own last try
	for (*reached).Recovery < o.recovery && len(o.growths) > 1 {
		o.growths = o.growths[1:]
		a.say("recovery %.4f, asked for is %.4g: promoting within a growth of %s", (*reached).Recovery, o.recovery, percent(o.growths[0]*o.maxGrowth, 1))
		var err error
		if report, err = a.mergeFiles(ctx, basePath, adapterArgs, o); err != nil {
			return nil, err
		}
		if *reached, err = a.recovery(ctx, basePath, adapterArgs, o.output.path, measured); err != nil {
			return nil, err
		}
	}
	return report, nil
}
