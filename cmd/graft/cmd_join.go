package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

type joinOptions struct {
	output       outputFlags
	deleteShards bool
}

func newJoinCmd(a *app) *cobra.Command {
	var o joinOptions
	cmd := &cobra.Command{
		Use:   "join SHARD -o FILE.gguf",
		Short: "Make one GGUF file of shards",
		Long: `join makes one file of all shards of a model, whichever of them is named. The keys of
the split are left out, so that a file that was split and joined has its bytes
again; llama-gguf-split --merge leaves them in, with a count of 0.

  graft join parts/model-00001-of-00004.gguf -o model.gguf
  graft join parts/model-00001-of-00004.gguf -o model.gguf --delete-splits` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.join(cmd.Context(), args[0], &o) },
	}
	o.output.add(cmd, "GGUF file to write")
	cmd.Flags().BoolVar(&o.deleteShards, "delete-splits", false, "delete the shards when the file is written and on the disk")
	return cmd
}

func (a *app) join(ctx context.Context, path string, o *joinOptions) error {
	f, err := gguf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var inputs []string
	for _, s := range f.Shards {
		inputs = append(inputs, s.Path)
	}
	if err := o.output.check(inputs...); err != nil {
		return err
	}
	if _, _, _, ok := gguf.ParseShardPath(path); len(f.Shards) == 1 && !ok {
		return format.Usagef("%s is no shard of a split model", path)
	}
	plan := &format.Plan{}
	for _, t := range f.Tensors {
		plan.Outputs = append(plan.Outputs, copyTensor(t))
	}
	if err := a.writeGGUF(ctx, "copied", &o.output, withoutSplitKeys(f.Meta), plan); err != nil || o.output.dryRun {
		return err
	}
	if o.deleteShards {
		for _, p := range inputs {
			if err := os.Remove(p); err != nil {
				return err
			}
		}
	}
	st, err := os.Stat(o.output.path)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"path": o.output.path, "bytes": st.Size(), "tensors": len(plan.Outputs), "shards": inputs})
	}
	a.result("%s: %s of %s, %s", o.output.path, plural(len(plan.Outputs), "tensor"), plural(len(inputs), "shard"), size(st.Size()))
	return nil
}
