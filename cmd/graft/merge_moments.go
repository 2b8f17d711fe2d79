package main

import (
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/model"
)

// moments makes the second moments of real inputs ready for a method that uses them: from
// --data, or else from the sketches that the trainer left beside the adapters. They
// are nil where there are none, and for a method that does not ask.
func (a *app) moments(base *arch.Model, deltas merge.Deltas, adapterArgs []string, o *mergeOptions) (done func(), m merge.Moments, err error) {
	method, err := merge.MethodByName(o.method)
	if err != nil {
		return nil, nil, err
	}
	nothing := func() {}
	switch {
	case !method.Data || o.output.dryRun:
		return nothing, nil, nil
	case o.data.path != "":
		o.known = "data"
		return a.dataMoments(base.Path, deltas, adapterArgs, o)
	}
	var sketches train.Sketches
	tokens := 0
	for _, arg := range adapterArgs {
		s, err := train.OpenSketch(parseWeighted(arg).path)
		if err != nil {
			return nil, nil, err
		}
		if s != nil {
			sketches, tokens = append(sketches, s), tokens+s.Tokens
		}
	}
	if len(sketches) == 0 {
		if o.chosen {
			o.method = "keep"
		}
		a.say("nothing is known of the inputs that matter, so codes are moved by method keep; with --data (text or records like the adapter's own) more survives")
		return nothing, nil, nil
	}
	o.known = "adapter"
	a.say("which inputs matter is taken from %s that the adapter was trained on; --data shows more of it", plural(tokens, "token"))
	return nothing, sketches, nil
}

// mergedMeta is the base's metadata. Where tensors got other types than the base's, the
// file type becomes the one that most of the layers have now.
func mergedMeta(base *arch.Model, plan *format.Plan) *gguf.Meta {
	meta := base.FileMeta()
	sizes, other := map[format.Type]int64{}, false
	for _, o := range plan.Outputs {
		if v := base.View(o.Name); v != nil && v.Type != o.Type {
			other = true
		}
		if strings.HasPrefix(o.Name, "blk.") && o.Type.Quantized() {
			sizes[o.Type] += o.Size()
		}
	}
	if other {
		meta.Set("general.file_type", uint32(quant.MostOf(sizes)))
	}
	return meta
}

// mergeTokens is how many tokens a merge takes of --data, in records spread over it, where no
// --limit says otherwise: as many as the trainer's sketch has at most. A file of training data
// would take hours, and more of it changes little.
const mergeTokens = 16384

// dataMoments are those of --data, for which base and adapters are run.
func (a *app) dataMoments(basePath string, deltas merge.Deltas, adapterArgs []string, o *mergeOptions) (done func(), m merge.Moments, err error) {
	memory, err := parseSize(o.momentMemory)
	if err != nil {
		return nil, nil, err
	}
	base, err := train.OpenBase(basePath, model.Options{Threads: a.threads, Context: o.data.context})
	if err != nil {
		return nil, nil, err
	}
	adapters, err := a.loadAdapters(nil, base, adapterArgs)
	if err != nil {
		base.Close()
		return nil, nil, err
	}
	some := o.data
	some.most = mergeTokens
	samples, err := some.read(base)
	if err != nil {
		base.Close()
		return nil, nil, err
	}
	if len(samples) < some.of {
		a.say("which inputs matter is taken from %d of the %d records or windows of %s; --limit N takes the first N", len(samples), some.of, some.path)
	}
	var tensors []string
	for _, v := range base.Source.Views {
		if deltas[v.Name] != nil {
			tensors = append(tensors, v.Name)
		}
	}
	in := train.NewInputMoments(base.Model, samples, evalTokens, memory, tensors, adapters...)
	in.Threads = a.threads
	in.Progress = func(first, last string) { a.progress("inputs of %s to %s", first, last) }
	return func() { base.Close() }, in, nil
}
