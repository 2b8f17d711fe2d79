package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/model"
)

// addAsMerged adds the flag of commands that run adapters on their base.
func addAsMerged(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "as-merged", false, "use the adapter as the file would that it is merged into (method aware), bit for bit")
}

// useAdapters loads adapters for a base, to be used beside it or, with asMerged, as
// if merged into it. It warns of those that were trained for a merge and are not merged.
func (a *app) useAdapters(g *gateFlags, base *train.Base, args []string, asMerged bool) ([]model.Scaled, error) {
	loaded, err := a.loadAdapters(g, base, args)
	if err != nil {
		return nil, err
	}
	for i := range loaded {
		switch ad := loaded[i].Adapter; {
		case asMerged && ad.TrainedFor != nil:
			ad.Merge = ad.TrainedFor
		case asMerged:
			ad.Merge = &model.Merge{}
		case ad.TrainedFor != nil:
			a.say("warning: %s was trained to be merged (train --merge-aware): unmerged, as it is used here, it is not what was trained; graft merge, or --as-merged", args[i])
		}
	}
	return loaded, nil
}

// trainedForm gives an adapter that was trained to be merged, and is alone and at full
// strength, the form in which it was trained.
func trainedForm(loaded []model.Scaled) (merged bool) {
	if len(loaded) != 1 || loaded[0].Weight != 1 || loaded[0].TrainedFor == nil {
		return false
	}
	loaded[0].Merge = loaded[0].TrainedFor
	return true
}

// chooseMethod takes the method that the adapters were trained for, or the default,
// where none was named.
func (a *app) chooseMethod(adapters []merge.Weighted, o *mergeOptions) error {
	aware := 0
	for _, w := range adapters {
		m, ok, err := w.Adapter.MergeAware()
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		aware++
		same := o.typ == "" || strings.EqualFold(o.typ, "same")
		if len(adapters) == 1 && w.Factor == 1 && same && (o.method == "" || o.method == "aware") {
			o.method, o.seed, o.trainedFor = "aware", m.Seed, true
		}
	}
	if aware > 0 && !o.trainedFor && !o.asked {
		a.say("warning: an adapter here was trained to be merged by itself, at full strength and by method aware: another merge is not what was trained")
	}
	if o.method == "" {
		o.method, o.chosen = "fit", true // keep, where nothing is known of inputs
	}
	return nil
}
