package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/merge"
)

func newCombineCmd(a *app) *cobra.Command {
	var o adapterOutput
	var opt merge.CombineOptions
	names, help := merge.CombineMethods()
	var b strings.Builder
	for i := range names {
		fmt.Fprintf(&b, "  %-19s %s\n", names[i], help[i])
	}
	cmd := &cobra.Command{
		Use:   "combine ADAPTER[=FACTOR]... -o ADAPTER",
		Short: "Make one adapter of several",
		Long: `combine makes one adapter that does what several do together, each with its factor.

  graft combine a b -o both
  graft combine a=0.7 b=0.3 --method svd -o both.gguf --base model.gguf
  graft combine a b --method ties --density 0.5 -o both
  graft combine a b --method ties --density 0.5 --true-delta --energy 0.99 -o both

Methods:
` + b.String() + `
All but cat and svd compute what PEFT's add_weighted_adapter computes. Those
without _svd treat the A's and the B's apart, so that the product of the results holds
the A of one adapter times the B of another: for unlike adapters it is far from
what they do together. Their _svd forms treat the changes B*A themselves,
and cut the result to a rank, by default the largest of the adapters.
--true-delta does the algebra of any method on the changes and keeps all of
the result: linear becomes the exact weighted sum, of rank no more than the
ranks together; what pruning leaves has any rank, so give --energy or --svd-rank.
docs/adapters.md has numbers.

Adapters of one format need no base; the output has their format, too. With
--base any formats can be mixed and written.` + exitStatus,
		Args: args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkCombineUse(cmd, &opt); err != nil {
				return err
			}
			ws, err := openAdapters(args)
			if err != nil {
				return err
			}
			var paths []string
			var plain []*adapter.Adapter
			for _, w := range ws {
				paths = append(paths, w.Path)
				plain = append(plain, w.Adapter)
			}
			if err := o.check(paths...); err != nil {
				return err
			}
			done, err := o.resolve(plain...)
			if err != nil {
				return err
			}
			defer done()
			o.stay(plain[0])
			opt.Threads = a.threads
			sum, err := merge.Combine(cmd.Context(), ws, opt)
			if err != nil {
				return err
			}
			if err := o.write(sum, adapter.WriteOptions{Extra: map[string]string{"graft.combined": strings.Join(args, " "), "graft.method": opt.Method}}); err != nil {
				return err
			}
			return a.reportAdapter(o.path)
		},
	}
	o.add(cmd)
	o.addBase(cmd)
	f := cmd.Flags()
	f.StringVar(&opt.Method, "method", "cat", "how: "+strings.Join(names, ", "))
	f.Float64Var(&opt.Density, "density", 1, "share of the values that ties, dare and magnitude_prune keep")
	f.StringVar(&opt.MajoritySign, "majority-sign", "total", "how ties elects a sign: total (of the values) or frequency")
	f.IntVar(&opt.Cut.Rank, "svd-rank", 0, "rank of singular forms (0: what holds svd, the largest of the adapters for others)")
	f.Float64Var(&opt.Cut.Energy, "energy", 0, "share of the squared norm that singular forms keep, 0 to 1 (0: all)")
	f.Float64Var(&opt.Clamp, "svd-clamp", 0, "quantile that limits the values of singular forms, as PEFT's svd_clamp (0: none)")
	f.BoolVar(&opt.TrueDelta, "true-delta", false, "do the algebra on the changes themselves, without cross terms")
	f.Uint64Var(&opt.Seed, "seed", 0, "of the random choices of dare")
	return cmd
}

// checkCombineUse refuses flags that the method has no use for.
func checkCombineUse(cmd *cobra.Command, o *merge.CombineOptions) error {
	is := func(part string) bool { return strings.Contains(o.Method, part) }
	singular := o.TrueDelta || is("svd")
	if err := checkUse(cmd,
		use{[]string{"density"}, is("ties") || is("dare") || is("prune"), "the methods ties, dare and magnitude_prune"},
		use{[]string{"majority-sign"}, is("ties"), "the methods ties and dare_ties"},
		use{[]string{"seed"}, is("dare"), "the methods dare"},
		use{[]string{"svd-rank", "energy", "svd-clamp"}, singular, "the methods svd and those that end in _svd, and with --true-delta"},
	); err != nil {
		return err
	}
	if cmd.Flags().Changed("density") && o.Density == 0 {
		return format.Usagef("--density 0 would keep nothing")
	}
	return nil
}

// reportAdapter opens a written adapter again and says what it holds.
func (a *app) reportAdapter(path string) error { return a.inspect(path, inspectOptions{}) }
