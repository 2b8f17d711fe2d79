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

// setData gives the run the files of --data, if there are any, in place of its own.
func (o *trainOptions) setData(c *train.Config) {
	if len(o.data) == 0 {
		return
	}
	var list []train.Dataset
	for _, s := range o.data {
		list = append(list, train.ParseDataset(s))
	}
	c.SetData(list...)
}
