package main

import (
	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
)

// use says of flags whether they are used as the others stand, and else what they go with.
type use struct {
	flags []string
	used  bool
	with  string
}

// checkUse refuses flags that were given and would do nothing, since who gives one means it.
func checkUse(cmd *cobra.Command, uses ...use) error {
	for _, u := range uses {
		for _, f := range u.flags {
			if !u.used && cmd.Flags().Changed(f) {
				return format.Usagef("--%s would do nothing: it goes with %s", f, u.with)
			}
		}
	}
	return nil
}
