package main

import (
	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/atomicfile"
	"github.com/graft-lora/graft/internal/cpu"
)

// version is the version of the binary; release builds set it with -ldflags.
var version = "dev"

const exitStatus = `

EXIT STATUS
  0 done · 1 failed · 2 bad usage · 3 a file is corrupt · 4 unsupported
  5 a check did not hold (an adapter was lost in a merge, two files differ) · 130 interrupted`

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "graft",
		Short: "Train, merge, convert and quantize language models on the files you already have",
		Long: `graft turns model files into other model files, and trains the small ones that
change the big ones: on GGUF and safetensors files, without Python or a GPU, a
few rows at a time.

  graft demo /tmp/demo      the whole story on an embedded model, in under a minute` + exitStatus,
		Version: version,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return format.Usagef("there is no command %q; graft help lists them", args[0])
		},
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if err := cpu.CheckEnv(); err != nil {
				return format.Usagef("%v", err)
			}
			if a.noSync {
				atomicfile.NoSync()
			}
			return a.setThreads()
		},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return format.Usagef("%v", err) })
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print one JSON document on standard output")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no remarks")
	f.IntVar(&a.threads, "threads", 0, "threads to use (0: all cores); never changes a byte of the output")
	f.BoolVar(&a.noSync, "no-sync", false, "do not wait until the disk has what is written: files are whole, unless the machine itself fails in the next half minute")
	root.AddCommand(
		newInspectCmd(a),
		newCheckCmd(a),
		newDiffCmd(a),
		newEditCmd(a),
		newConvertCmd(a),
		newQuantizeCmd(a),
		newImatrixCmd(a),
		newSplitCmd(a),
		newJoinCmd(a),
		newHashCmd(a),
		newTrainCmd(a),
		newEvalCmd(a),
		newRunCmd(a),
		newMergeCmd(a),
		newExtractCmd(a),
		newCombineCmd(a),
		newResizeCmd(a),
		newBlendCmd(a),
		newAdaptersCmd(a),
		newSignCmd(a),
		newVerifyCmd(a),
		newAttestCmd(a),
		newDebugCmd(a),
		newDemoCmd(a),
	)
	return root
}

// args checks the number of positional arguments, as bad usage.
func args(min, max int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		if len(got) < min || max >= 0 && len(got) > max {
			return format.Usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
}
