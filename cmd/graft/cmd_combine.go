package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/merge"
)

func newCombineCmd(a *app) *cobra.Command {
	var o adapterOutput
	var method string
	names, help := merge.CombineMethods()
	var b strings.Builder
	for i := range names {
		fmt.Fprintf(&b, "  %-7s %s\n", names[i], help[i])
	}
	cmd := &cobra.Command{
		Use:   "combine ADAPTER[=FACTOR]... -o ADAPTER",
		Short: "Make one adapter of several",
		Long: `combine makes one adapter that does what several do together, each with its factor.

  graft combine a b -o both
  graft combine a=0.7 b=0.3 --method svd -o both.gguf --base model.gguf

Methods:
` + b.String() + `
Adapters of one format need no base; the output has their format, too. With
--base any formats can be mixed and written.` + exitStatus,
		Args: args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
			sum, err := merge.Combine(method, ws)
			if err != nil {
				return err
			}
			if err := o.write(sum, adapter.WriteOptions{Extra: map[string]string{"graft.combined": strings.Join(args, " "), "graft.method": method}}); err != nil {
				return err
			}
			return a.reportAdapter(o.path)
		},
	}
	o.add(cmd)
	o.addBase(cmd)
	cmd.Flags().StringVar(&method, "method", "cat", "how: "+strings.Join(names, ", "))
	return cmd
}

// reportAdapter opens a written adapter again and says what it holds.
func (a *app) reportAdapter(path string) error { return a.inspect(path, inspectOptions{}) }
