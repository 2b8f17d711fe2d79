package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// dataFlags name what a model is evaluated on.
type dataFlags struct {
	path    string
	context int
	limit   int
	samples data.Options
	fields  data.Fields
	half    int // 1: the first half of the samples only, 2: the second
	most    int // tokens, in samples spread over the whole, where there is no limit; 0: all
	of      int // samples that the last read spread its own over
}

func (d *dataFlags) add(cmd *cobra.Command, what string) {
	f := cmd.Flags()
	f.StringVar(&d.path, "data", "", what)
	f.IntVar(&d.context, "context", 512, "tokens of a window of text, or of the longest record")
	f.IntVar(&d.limit, "limit", 0, "evaluate on the first N records or windows only; 0: all")
	f.StringVar(&d.samples.Chat, "chat", "", "use the chat template for prompts: auto, always, never")
	f.StringVar(&d.samples.Train, "train-on", "", "what counts in the loss: answers, last, all")
	f.StringVar(&d.fields.Messages, "messages-field", "", "name of the field with the conversation (messages)")
	f.StringVar(&d.fields.Prompt, "prompt-field", "", "name of the field with the prompt (prompt)")
	f.StringVar(&d.fields.Completion, "completion-field", "", "name of the field with the answer (completion)")
	f.StringVar(&d.fields.Text, "text-field", "", "name of the field with plain text (text)")
}

// dataFlagNames are those besides --data itself.
var dataFlagNames = []string{"context", "limit", "chat", "train-on", "messages-field", "prompt-field", "completion-field", "text-field"}

// read makes the samples, with base's tokenizer and template.
func (d *dataFlags) read(base *train.Base) ([]data.Sample, error) {
	samples, err := base.EvalData(d.path, d.context, d.samples, d.fields)
	if err != nil {
		return nil, err
	}
	if d.limit > 0 && d.limit < len(samples) {
		samples = samples[:d.limit]
	}
	if n := len(samples) / 2; d.half > 0 {
		if n == 0 {
			return nil, format.Usagef("%s has one record or window, which cannot be halved: give other data with --held-out", d.path)
		}
		before := samples[:n]
		if samples = samples[n:]; d.half == 1 {
			samples = before
		}
	}
	if d.of = len(samples); d.most > 0 && d.limit == 0 {
		samples = spread(samples, d.most)
	}
	return samples, nil
}

// spread are samples of about that many tokens, evenly spread over all; at least one.
func spread(samples []data.Sample, tokens int) []data.Sample {
	total := 0
	for _, s := range samples {
		total += len(s.IDs)
	}
	if total <= tokens {
		return samples
	}
	n := max(len(samples)*tokens/total, 1)
	some := make([]data.Sample, n)
	for i := range some {
		some[i] = samples[i*len(samples)/n]
	}
	return some
}

// evalTokens is how many tokens are run at once, which bounds memory.
const evalTokens = 2048

// side is a model in a comparison, with or without adapters.
type side struct {
	name     string
	base     *train.Base
	adapters []model.Scaled
}

// sideResult is a row of the table of a comparison.
type sideResult struct {
	Name string `json:"name"`
	train.EvalResult
	// Divergence from the reference; nil for the reference itself and where it was not asked for.
	Divergence *train.Divergence `json:"divergence,omitempty"`
}

// evaluate gives the loss of every side, and with kl each one's divergence from the
// side numbered reference.
func (a *app) evaluate(ctx context.Context, sides []side, samples []data.Sample, reference int, kl bool) ([]sideResult, error) {
	var out []sideResult
	var c *train.Comparison
	if kl && len(sides) > 1 {
		var err error
		if c, err = comparison(sides[reference], samples); err != nil {
			return nil, err
		}
		defer c.Close()
	}
	for i, s := range sides {
		told := func(done int) { a.progress("%s: %d of %d", s.name, done, len(samples)) }
		r, err := s.evaluate(ctx, samples, c, i == reference, told)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// keptLogits is how much of the disk the logits of a reference may take, which is then run
// once however many models are compared with it.
const keptLogits = 2 << 30

func comparison(reference side, samples []data.Sample) (*train.Comparison, error) {
	return train.NewComparison(train.Side{Model: reference.base.Model, Adapters: reference.adapters}, samples, evalTokens, keptLogits)
}

// evaluate gives the loss of a side, and if c is not nil and the side not its reference the
// divergence from that.
func (s side) evaluate(ctx context.Context, samples []data.Sample, c *train.Comparison, reference bool, told func(done int)) (r sideResult, err error) {
	r.Name = s.name
	switch {
	case c == nil:
		r.EvalResult, err = train.Evaluate(ctx, s.base.Model, samples, evalTokens, told, s.adapters...)
	case reference:
		r.EvalResult, err = c.Reference(ctx, told)
	default:
		r.Divergence = new(train.Divergence)
		r.EvalResult, *r.Divergence, err = c.With(ctx, train.Side{Model: s.base.Model, Adapters: s.adapters}, told)
	}
	return r, err
}

// printSides shows a comparison.
func (a *app) printSides(results []sideResult, reference string) {
	rows := [][]string{{"", "loss", "±", "perplexity", "±"}}
	kl := false
	for _, r := range results {
		kl = kl || r.Divergence != nil
	}
	if kl {
		rows[0] = append(rows[0], "KL to "+reference, "±", "same top token", "±")
	}
	for _, r := range results {
		row := []string{r.Name, fmt.Sprintf("%.4f", r.Loss), fmt.Sprintf("%.4f", r.LossError), fmt.Sprintf("%.3f", r.Perplexity), fmt.Sprintf("%.3f", r.PerplexityError())}
		if d := r.Divergence; d != nil {
			row = append(row, fmt.Sprintf("%.5f", d.KL), fmt.Sprintf("%.5f", d.KLError), fmt.Sprintf("%.2f %%", 100*d.SameTop), fmt.Sprintf("%.2f", 100*d.TopError))
		}
		rows = append(rows, row)
	}
	a.table(rows)
}

// loadAdapters loads adapter arguments, PATH or PATH=FACTOR, for a base, through the gate if
// there is one.
func (a *app) loadAdapters(g *gateFlags, base *train.Base, args []string) ([]model.Scaled, error) {
	var out []model.Scaled
	for _, arg := range args {
		w := parseWeighted(arg)
		ad, err := a.load(g, base, w.path)
		if err != nil {
			return nil, err
		}
		out = append(out, model.Scaled{Adapter: ad, Weight: w.factor})
	}
	return out, nil
}

// recoveryTable says how much of an adapter a merged file has kept, on text.
type recoveryTable struct {
	Data     string     `json:"data"`
	Base     sideResult `json:"base"`
	Adapter  sideResult `json:"adapter"`
	Merged   sideResult `json:"merged"`
	Recovery float64    `json:"recovery"` // (base - merged) / (base - adapter) of the loss
}

// recovery measures a merged file against its base and adapters.
func (a *app) recovery(ctx context.Context, basePath string, adapters []string, mergedPath string, d *dataFlags) (*recoveryTable, error) {
	base, err := train.OpenBase(basePath, model.Options{Threads: a.threads})
	if err != nil {
		return nil, err
	}
	defer base.Close()
	loaded, err := a.loadAdapters(nil, base, adapters)
	if err != nil {
		return nil, err
	}
	adapterName := "adapter, unmerged"
	if trainedForm(loaded) {
		adapterName = "adapter, as trained"
	}
	merged, err := train.OpenBase(mergedPath, model.Options{Threads: a.threads})
	if err != nil {
		return nil, err
	}
	defer merged.Close()
	samples, err := d.read(base)
	if err != nil {
		return nil, err
	}
	rs, err := a.evaluate(ctx, []side{{"base", base, nil}, {adapterName, base, loaded}, {"merged", merged, nil}}, samples, 1, true)
	if err != nil {
		return nil, err
	}
	t := &recoveryTable{Data: d.path, Base: rs[0], Adapter: rs[1], Merged: rs[2]}
	gain := t.Base.Loss - t.Adapter.Loss
	if gain <= 0 {
		return nil, &format.CheckError{Reason: fmt.Sprintf("the adapter does not lower the loss on %s (%.4f without, %.4f with it): recovery cannot be measured there", d.path, t.Base.Loss, t.Adapter.Loss)}
	}
	t.Recovery = (t.Base.Loss - t.Merged.Loss) / gain
	return t, nil
}

func (a *app) printRecovery(t *recoveryTable) {
	a.result("")
	a.printSides([]sideResult{t.Base, t.Adapter, t.Merged}, "the adapter")
	a.result("recovery on %s: %.3f", t.Data, t.Recovery)
}
