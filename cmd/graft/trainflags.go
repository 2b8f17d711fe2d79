package main

import (
	"github.com/spf13/pflag"

	"github.com/graft-lora/graft/train"
)

// addDataFlags binds the flags of what a run learns from.
func (o *trainOptions) addDataFlags(f *pflag.FlagSet) {
	c := &o.cfg
	f.StringArrayVar(&o.data, "data", nil, "what is learned: text, JSONL or JSON (also .gz, .zst) or Parquet; FILE=WEIGHT, repeated, mixes several")
	f.StringVar(&c.DataCache, "data-cache", c.DataCache, "folder for tokenized samples, kept by content; none: not kept; empty: the user's cache, from 1 MiB of data on")
	f.StringVar(&c.Samples.Masked, "masked", c.Samples.Masked, "data of which less than 2 % is trained: error, allow")
	f.StringVar(&c.Samples.Endless, "endless", c.Samples.Endless, "answers after which the model would not stop: error, allow")
}

// setData gives the run the files of --data and the prompts of --sample-prompt, if there
// are any, in place of its own.
func (o *trainOptions) setData(c *train.Config) {
	if len(o.prompts) > 0 {
		c.SamplePrompts = o.prompts
	}
	if len(o.data) == 0 {
		return
	}
	var list []train.Dataset
	for _, s := range o.data {
		list = append(list, train.ParseDataset(s))
	}
	c.SetData(list...)
}

// addTeacherFlags binds the flags of distillation.
func (o *trainOptions) addTeacherFlags(f *pflag.FlagSet) {
	d := &o.cfg.Distill
	f.StringVar(&d.Teacher, "teacher", d.Teacher, "larger model with the same tokens to learn from; run once, its predictions are kept in the output folder")
	f.IntVar(&d.TopK, "top-k", d.TopK, "of the teacher: predictions kept for each trained token; 0: 64")
	f.Float64Var(&d.Weight, "distill-weight", d.Weight, "of the teacher: weight of the divergence from it, the plain loss has the rest; 0: 0.5")
	f.Float64Var(&d.Temperature, "temperature", d.Temperature, "of the teacher: both models' predictions are softened by it; 0: 1")
}

// addWatchFlags binds the flags of what is shown of a run on the way.
func (o *trainOptions) addWatchFlags(f *pflag.FlagSet) {
	c := &o.cfg
	f.StringVar(&c.Report, "report", c.Report, "where to write the report (HTML), instead of report.html in the output folder")
	f.StringArrayVar(&o.prompts, "sample-prompt", nil, "prompt answered at every evaluation, for the log and the report; may be repeated")
	f.IntVar(&c.SampleTokens, "sample-tokens", c.SampleTokens, "tokens of such an answer at most")
}
