package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

type splitOptions struct {
	output        outputFlags
	maxTensors    int
	maxSize       string
	noTensorFirst bool
}

func newSplitCmd(a *app) *cobra.Command {
	var o splitOptions
	cmd := &cobra.Command{
		Use:   "split FILE.gguf -o PREFIX",
		Short: "Divide a GGUF file into shards",
		Long: `split writes PREFIX-00001-of-0000N.gguf and so on, with the bytes that
llama-gguf-split writes. Any shard, given to any command, stands for the whole
model; graft join makes one file of them again.

  graft split model.gguf -o parts/model                            128 tensors a shard
  graft split model.gguf -o parts/model --max-size 2G --dry-run
  graft split model.gguf -o parts/model --max-tensors 64 --no-tensor-first-split

Sizes count the tensors' bytes, in powers of ten (500M, 2G) or two (500MiB). A
tensor that is larger than a shard may be gets one of its own.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.split(cmd.Context(), args[0], &o) },
	}
	o.output.add(cmd, "prefix of the shards, with or without .gguf")
	f := cmd.Flags()
	f.IntVar(&o.maxTensors, "max-tensors", 0, "most tensors of a shard (128)")
	f.StringVar(&o.maxSize, "max-size", "", "most bytes of a shard: 500M, 2G")
	f.BoolVar(&o.noTensorFirst, "no-tensor-first-split", false, "the first shard holds only the metadata")
	return cmd
}

// parseShardSize reads the sizes of llama-gguf-split, whose M and G are powers of
// ten, and those of every other command.
func parseShardSize(s string) (int64, error) {
	for suffix, unit := range map[string]int64{"M": 1e6, "G": 1e9} {
		if num, ok := strings.CutSuffix(s, suffix); ok {
			if n, err := strconv.ParseInt(num, 10, 32); err == nil && n > 0 {
				return n * unit, nil
			}
		}
	}
	return parseSize(s)
}

func (o *splitOptions) writeOptions() (gguf.WriteOptions, error) {
	w := gguf.WriteOptions{Force: o.output.force, NoTensorFirst: o.noTensorFirst, MaxTensors: o.maxTensors}
	if o.maxTensors < 0 || o.maxTensors > 0 && o.maxSize != "" {
		return w, format.Usagef("a model is split by --max-tensors, a positive number, or by --max-size")
	}
	if o.maxSize != "" {
		var err error
		w.MaxSize, err = parseShardSize(o.maxSize)
		return w, err
	}
	if w.MaxTensors == 0 {
		w.MaxTensors = 128
	}
	return w, nil
}

func (a *app) split(ctx context.Context, path string, o *splitOptions) error {
	opt, err := o.writeOptions()
	if err != nil {
		return err
	}
	if o.output.path == "" {
		return format.Usagef("name the prefix of the shards with -o")
	}
	f, err := gguf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	meta := withoutSplitKeys(f.Meta)
	plan := &format.Plan{}
	for _, t := range f.Tensors {
		plan.Outputs = append(plan.Outputs, copyTensor(t))
	}
	out := o.output.path
	l, err := gguf.LayoutOf(out, meta, plan, opt)
	if err != nil {
		return err
	}
	if len(l.Shards) == 1 {
		// What would be one file is one shard of one, and says so.
		out = gguf.ShardPath(strings.TrimSuffix(out, ".gguf"), 0, 1)
		opt = gguf.WriteOptions{Force: opt.Force}
		meta.Set("split.no", uint16(0))
		meta.Set("split.tensors.count", int32(len(plan.Outputs)))
		meta.Set("split.count", uint16(1))
		if l, err = gguf.LayoutOf(out, meta, plan, opt); err != nil {
			return err
		}
	}
	for _, s := range l.Shards {
		for _, in := range f.Shards {
			if same(in.Path, s.Path) {
				return format.Usagef("%s is an input: graft never writes over what it reads", s.Path)
			}
		}
		if _, err := os.Stat(s.Path); err == nil && !opt.Force && !o.output.dryRun {
			return format.Usagef("%s exists; --force replaces it", s.Path)
		}
	}
	if !o.output.dryRun {
		memory, err := parseSize(o.output.memory)
		if err != nil {
			return err
		}
		w, err := gguf.Create(out, meta, plan, opt)
		if err != nil {
			return err
		}
		defer w.Abort()
		if err := format.Run(ctx, plan, w, a.runOptions("copied", memory)); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	return a.reportShards(l)
}

func withoutSplitKeys(m *gguf.Meta) *gguf.Meta {
	c := m.Clone()
	for _, kv := range m.All() {
		if strings.HasPrefix(kv.Key, "split.") {
			c.Delete(kv.Key)
		}
	}
	return c
}

// reportShards lists the files of a layout.
func (a *app) reportShards(l *gguf.Layout) error {
	type shard struct {
		Path    string `json:"path"`
		Tensors int    `json:"tensors"`
		Size    int64  `json:"bytes"`
	}
	var list []shard
	rows := [][]string{{"file", "tensors", "bytes"}}
	for _, s := range l.Shards {
		list = append(list, shard{s.Path, len(s.Offsets), s.Size})
		rows = append(rows, []string{s.Path, fmt.Sprint(len(s.Offsets)), count(s.Size)})
	}
	if a.json {
		return a.printJSON(map[string]any{"shards": list})
	}
	a.table(rows)
	return nil
}
