package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/model"
)

type evalOptions struct {
	data     dataFlags
	gate     gateFlags
	adapters []string
	against  []string
	klBase   string
	noKL     bool
	asMerged bool
	ship     shipOptions
}

func newEvalCmd(a *app) *cobra.Command {
	var o evalOptions
	cmd := &cobra.Command{
		Use:   "eval MODEL --data FILE | eval --ship BASE ADAPTER... --data FILE",
		Short: "Loss and perplexity, and how far models and adapters are from each other",
		Long: `eval gives the loss and the perplexity of a model on a text (in windows, as
llama-perplexity does, the second half of each counting) or on the answers of
JSONL records. With --adapter and --against it compares: each row after the
first has its KL divergence from the reference and how often both think the
same token most likely. The reference is the model with its adapters, if any.

  graft eval model.gguf --data wiki.test.raw
  graft eval base.gguf --adapter lesson --data held-out.jsonl
  graft eval base.gguf --adapter lesson --against merged.gguf --data held-out.jsonl
  graft eval f16.gguf --against q4_k_m.gguf --against q2_k.gguf --data wiki.test.raw
  graft eval q4_k_m.gguf --kl-base f16.gguf --data wiki.test.raw

With --ship it compares the forms in which an adapter can be shipped: beside the base,
merged by each method of graft merge, merged in 16 bits, and that quantized again. The
methods that need data take it from the first half of FILE, and the second half is
what is evaluated; or --held-out is, and all of FILE is for the methods. Files are made one
at a time in the folder for temporary files (TMPDIR) and removed.

  graft eval --ship base.gguf lesson --data held-out.jsonl
  graft eval --ship base.gguf lesson --data train.jsonl --held-out held-out.jsonl --report ship.html` + exitStatus,
		Args: args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.data.path == "":
				return format.Usagef("name the text with --data")
			case o.ship.on:
				return a.ship(cmd.Context(), args, &o)
			case len(args) > 1:
				return format.Usagef("eval takes one model, and others with --against; eval --ship takes adapters")
			case cmd.Flags().Changed("held-out") || o.ship.report.path != "" || len(o.ship.methods) > 0:
				return format.Usagef("--held-out, --methods and --report are for eval --ship")
			}
			if err := checkUse(cmd, use{[]string{"max-error", "max-growth", "moment-memory", "seed"}, false, "--ship"}); err != nil {
				return err
			}
			return a.eval(cmd.Context(), args[0], &o)
		},
	}
	o.data.add(cmd, "text, or JSONL records, plain, .gz or .zst")
	o.gate.add(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&o.adapters, "adapter", nil, "PATH or PATH=FACTOR: adapter to use (repeatable; they act together)")
	addAsMerged(cmd, &o.asMerged)
	o.ship.add(cmd)
	f.StringArrayVar(&o.against, "against", nil, "another model to compare with (repeatable)")
	f.StringVar(&o.klBase, "kl-base", "", "the model that MODEL is compared with: as if MODEL stood --against it")
	f.BoolVar(&o.noKL, "no-kl", false, "losses only")
	return cmd
}

func (a *app) eval(ctx context.Context, path string, o *evalOptions) error {
	if o.klBase != "" {
		if len(o.adapters) > 0 || o.noKL {
			return format.Usagef("--kl-base goes with neither --adapter nor --no-kl: with an adapter the reference is the model with it, and others stand --against it")
		}
		o.against = append([]string{path}, o.against...)
		path = o.klBase
	}
	base, err := train.OpenBase(path, model.Options{Threads: a.threads, Context: o.data.context})
	if err != nil {
		return err
	}
	defer base.Close()
	sides := []side{{"base", base, nil}}
	if len(o.adapters) > 0 {
		loaded, err := a.useAdapters(&o.gate, base, o.adapters, o.asMerged)
		if err != nil {
			return err
		}
		sides = append(sides, side{"adapter", base, loaded})
	}
	samples, err := o.data.read(base) // after the adapters, which may bring tokens
	if err != nil {
		return err
	}
	reference := len(sides) - 1
	for _, other := range o.against {
		b, err := train.OpenBase(other, model.Options{Threads: a.threads, Context: o.data.context})
		if err != nil {
			return err
		}
		defer b.Close()
		if b.Model.Vocab != base.Model.Vocab {
			return format.Usagef("%s has a vocabulary of %d, %s of %d: they cannot be compared", path, base.Model.Vocab, other, b.Model.Vocab)
		}
		sides = append(sides, side{other, b, nil})
	}
	results, err := a.evaluate(ctx, sides, samples, reference, !o.noKL)
	if err != nil {
		return err
	}
	doc := struct {
		Model     string       `json:"model"`
		Data      string       `json:"data"`
		Reference string       `json:"reference"`
		Results   []sideResult `json:"results"`
		Recovery  []float64    `json:"recovery,omitempty"` // of each --against, when there is an adapter
	}{Model: path, Data: o.data.path, Reference: sides[reference].name, Results: results}
	if a.json {
		doc.Recovery = recoveries(results, reference)
		return a.printJSON(doc)
	}
	a.printSides(results, "the "+sides[reference].name)
	a.result("%s, %s", plural(results[0].Sequences, "sequence"), plural(results[0].Tokens, "token"))
	for i, r := range recoveries(results, reference) {
		a.result("recovery of %s: %.3f", o.against[i], r)
	}
	return nil
}

// recoveries is (base - other) / (base - adapter) for every row after the adapter's;
// nil without an adapter that lowers the loss.
func recoveries(results []sideResult, reference int) []float64 {
	if reference == 0 || results[0].Loss <= results[reference].Loss {
		return nil
	}
	var out []float64
	for _, r := range results[reference+1:] {
		out = append(out, (results[0].Loss-r.Loss)/(results[0].Loss-results[reference].Loss))
	}
	return out
}
