package main

import (
	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/merge"
)

func newCheckCmd(a *app) *cobra.Command {
	var base string
	cmd := &cobra.Command{
		Use:   "check PATH",
		Short: "Read every value and key of a model or an adapter and say what is wrong with it",
		Long: `check opens a model as strictly as graft opens any file, then decodes every tensor and
looks at what headers do not show: values that are NaN or infinite, tensors of
zeros, blocks that are missing, a vocabulary that does not fit the embeddings,
keys that other programs need. Of an adapter it checks that every pair is whole, finite
and changes something, and with --base that it fits that model.

  graft check model.gguf
  graft check lesson --base model.gguf

Errors end it with status 5, warnings do not.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := checkpoint.Sniff(args[0])
			if err != nil {
				return err
			}
			if kind.Adapter() {
				return a.checkAdapter(args[0], base)
			}
			m, err := arch.Open(args[0], arch.Options{})
			if err != nil {
				return err
			}
			defer m.Close()
			findings, err := merge.CheckModel(cmd.Context(), m, a.threads, func(done, total int) {
				a.progress("checked %d of %d tensors", done, total)
			})
			if err != nil {
				return err
			}
			return a.reportFindings(args[0], plural(len(m.Views), "tensor"), findings)
		},
	}
	cmd.Flags().StringVar(&base, "base", "", "for adapters: the model that it must fit")
	return cmd
}

func (a *app) checkAdapter(path, base string) error {
	ad, err := openAdapter(path)
	if err != nil {
		return err
	}
	o := adapterOutput{base: base}
	done, err := o.resolve(ad)
	if err != nil {
		return err
	}
	defer done()
	findings, err := merge.CheckAdapter(ad)
	if err != nil {
		return err
	}
	read := plural(len(ad.Pairs), "pair")
	if ad.Tokens != nil {
		read += " and rows of " + plural(len(ad.Tokens.IDs()), "token")
	}
	return a.reportFindings(path, read, findings)
}

func (a *app) reportFindings(path, read string, findings []merge.Finding) error {
	errors := 0
	for _, f := range findings {
		if f.Level == "error" {
			errors++
		}
		if f.Tensor != "" {
			a.result("%-8s %s: %s", f.Level, f.Tensor, f.Text)
		} else {
			a.result("%-8s %s", f.Level, f.Text)
		}
	}
	if a.json {
		if findings == nil {
			findings = []merge.Finding{}
		}
		if err := a.printJSON(map[string]any{"path": path, "read": read, "findings": findings}); err != nil {
			return err
		}
	}
	if errors > 0 {
		return &format.CheckError{Reason: plural(errors, "error") + " in " + path}
	}
	a.result("%s: %s read, %s", path, read, plural(len(findings), "warning"))
	return nil
}
