package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/merge"
)

func newExtractCmd(a *app) *cobra.Command {
	var o adapterOutput
	opt := merge.ExtractOptions{Cut: merge.Cut{Rank: 16}}
	cmd := &cobra.Command{
		Use:   "extract TUNED --base BASE -o ADAPTER --rank R",
		Short: "Find the adapter that turns one model into another",
		Long: `extract computes, for every matrix of the layers, the difference of two models and the
best approximation of it at a rank: the adapter that makes TUNED of BASE. The
models may be GGUF files or Hugging Face folders, of any types.

  graft extract tuned-f16.gguf --base base-f16.gguf -o adapter --rank 32
  graft extract tuned-folder --base base.gguf -o adapter.gguf --energy 0.95

  graft extract tuned.gguf --base base.gguf -o adapter --rank 64 --budget 2000000
  graft extract tuned.gguf --base base.gguf -o adapter.safetensors     norms and biases, too

Singular values that stand out of noise are counted as signal: they are larger than what the
same difference has with random signs, and are there still when one model is brought to the
type of the other. A matrix without any is left out (--noise takes it); --signal cuts the
others there. --budget spreads the
parameters by what each direction holds for what it costs.

What the output cannot hold (norms but in a .safetensors file or a PEFT folder, biases but in a
.safetensors file, embeddings of another size) is named when it differs. It exits with status 5 when there is nothing to
extract, or nothing but noise.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := opt.Cut.Check(); err != nil {
				return format.Usagef("%v", err)
			}
			if opt.Budget < 0 || cmd.Flags().Changed("budget") && opt.Budget == 0 {
				return format.Usagef("--budget %d is no number of parameters", opt.Budget)
			}
			if opt.Cut.Rank == 0 {
				return format.Usagef("--rank is the largest rank that is looked for and must be positive")
			}
			if o.base == "" {
				return format.Usagef("name the model it was made from with --base")
			}
			if err := o.check(args[0], o.base); err != nil {
				return err
			}
			base, err := arch.Open(o.base, arch.Options{NoVocab: true})
			if err != nil {
				return err
			}
			defer base.Close()
			tuned, err := arch.Open(args[0], arch.Options{NoVocab: true})
			if err != nil {
				return err
			}
			defer tuned.Close()
			for _, m := range []**arch.Model{&base, &tuned} {
				if *m, err = flatIfStored(*m); err != nil {
					return err
				}
			}
			form, err := adapterForm(o.form, o.path)
			if err != nil {
				return err
			}
			opt.Vectors, opt.Norms = form.name == "kohya" || form.name == "diffusers", form.name == "peft"
			opt.Threads = a.threads
			opt.Progress = func(done, total int) { a.progress("extracted %d of %d tensors", done, total) }
			ad, report, err := merge.Extract(cmd.Context(), base, tuned, opt)
			if err != nil {
				return err
			}
			if err := ad.Resolve(base); err != nil {
				return err
			}
			extra := map[string]string{"graft.extracted": args[0], "graft.base": o.base}
			if err := o.write(ad, adapter.WriteOptions{Extra: extra, Base: o.base}); err != nil {
				return err
			}
			return a.reportExtract(o.path, report)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&o.base, "base", "", "the model that TUNED was made from")
	cmd.Flags().IntVar(&opt.Cut.Rank, "rank", opt.Cut.Rank, "largest rank")
	cmd.Flags().Float64Var(&opt.Cut.Energy, "energy", 0, "share of what the rank holds to keep, 0 to 1")
	cmd.Flags().Int64Var(&opt.Budget, "budget", 0, "parameters of the whole adapter, spread by singular values; 0: every matrix gets the rank")
	cmd.Flags().BoolVar(&opt.Signal, "signal", false, "cut every matrix at what stands out of noise")
	cmd.Flags().BoolVar(&opt.Noise, "noise", false, "take matrices that differ by what looks like noise, too")
	cmd.Flags().BoolVar(&opt.Embeddings, "embeddings", false, "extract the token embeddings and the head, too")
	cmd.Flags().Uint64Var(&opt.Seed, "seed", 0, "of the random directions")
	return cmd
}

func (a *app) reportExtract(path string, report *merge.ExtractReport) error {
	if a.json {
		return a.printJSON(map[string]any{"output": path, "report": report})
	}
	rows := [][]string{{"tensor", "rank", "kept of the difference", "norm of it", "signal rank"}}
	for _, m := range report.Matrices {
		rows = append(rows, []string{m.Name, fmt.Sprint(m.Rank), fmt.Sprintf("%.4f %%", 100*m.Kept), fmt.Sprintf("%.4g", m.Norm), fmt.Sprint(m.Signal)})
	}
	a.table(rows)
	a.result("%s parameters", count(report.Parameters))
	if len(report.Noisy) > 0 {
		a.say("left out, since they differ by noise alone: %s", strings.Join(report.Noisy, ", "))
	}
	for _, name := range report.Left {
		a.say("left out, though it differs: %s", name)
	}
	return nil
}
