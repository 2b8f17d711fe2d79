package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/merge"
)

func newResizeCmd(a *app) *cobra.Command {
	var o adapterOutput
	var cut merge.Cut
	var ranks map[string]int
	cmd := &cobra.Command{
		Use:   "resize ADAPTER -o ADAPTER --rank R | --energy E",
		Short: "Bring an adapter to another rank, keeping as much of it as the rank can hold",
		Long: `resize finds the best approximation of every pair at a smaller rank, from the factors
alone (QR and a small singular value decomposition; the change is never formed),
and says how much of each was kept.

  graft resize adapter -o small --rank 4
  graft resize adapter -o small --energy 0.99      each matrix gets the rank it needs
  graft resize adapter -o small --rank 4 --rank-pattern v_proj=8,down_proj=2

What kohya's resize_lora calls sv_fro P is --energy P*P.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cut.Check(); err != nil {
				return format.Usagef("%v", err)
			}
			if cut == (merge.Cut{}) && ranks == nil {
				return format.Usagef("name the size: --rank R, --energy E or --rank-pattern PATTERN=R")
			}
			if err := o.check(args[0]); err != nil {
				return err
			}
			ad, err := openAdapter(args[0])
			if err != nil {
				return err
			}
			done, err := o.resolve(ad)
			if err != nil {
				return err
			}
			defer done()
			o.stay(ad)
			small, report, err := merge.Resize(ad, cut, ranks)
			if err != nil {
				return err
			}
			if err := o.write(small, adapter.WriteOptions{Extra: map[string]string{"graft.resized": args[0]}}); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"output": o.path, "matrices": report, "kept": merge.KeptOfAll(report)})
			}
			rows := [][]string{{"matrix", "rank", "", "kept"}}
			for _, r := range report {
				rows = append(rows, []string{r.Name, fmt.Sprint(r.Rank[0]), fmt.Sprint(r.Rank[1]), fmt.Sprintf("%.4f %%", 100*r.Kept)})
			}
			rows = append(rows, []string{"all", "", "", fmt.Sprintf("%.4f %%", 100*merge.KeptOfAll(report))})
			a.table(rows)
			return nil
		},
	}
	o.add(cmd)
	o.addBase(cmd)
	cmd.Flags().IntVar(&cut.Rank, "rank", 0, "largest rank")
	cmd.Flags().Var(&patterns[int]{&ranks, strconv.Atoi}, "rank-pattern", "PATTERN=R: another largest rank for some matrices, by the end of their names; may be repeated")
	cmd.Flags().Float64Var(&cut.Energy, "energy", 0, "share of the squared norm to keep, 0 to 1")
	return cmd
}
