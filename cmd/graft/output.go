package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// outputFlags are those of every command that writes a model.
type outputFlags struct {
	path   string
	force  bool
	dryRun bool
	memory string
}

func (o *outputFlags) add(cmd *cobra.Command, what string) {
	f := cmd.Flags()
	f.StringVarP(&o.path, "output", "o", "", what)
	f.BoolVar(&o.force, "force", false, "replace an output that exists")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be written, and write nothing")
	f.StringVar(&o.memory, "memory", "64MiB", "bytes in flight between reading and writing")
}

// check fails early when the output is missing, exists, or is one of the inputs.
func (o *outputFlags) check(inputs ...string) error {
	if o.path == "" {
		if o.dryRun {
			return nil
		}
		return format.Usagef("name the output with -o")
	}
	for _, in := range inputs {
		if same(in, o.path) {
			return format.Usagef("%s is an input: graft never writes over what it reads", o.path)
		}
	}
	if o.dryRun {
		return nil
	}
	if _, err := os.Stat(o.path); err == nil {
		if !o.force {
			return format.Usagef("%s exists; --force replaces it", o.path)
		}
		return nil
	}
	return needFolder(o.path)
}

// needFolder fails where the folder that path is to be in is not there.
func needFolder(path string) error {
	if dir := filepath.Dir(path); !isDir(dir) {
		return format.Usagef("there is no folder %s to write %s into: make it first", dir, path)
	}
	return nil
}

// replaceable fails early where a small file of some kind cannot be written: there is something else in its place, or
// one of its kind and no force. marks are what files of the kind begin with, or have near the beginning.
func replaceable(path string, force bool, what string, marks ...string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return needFolder(path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if !force {
		return format.Usagef("%s exists; --force replaces it", path)
	}
	head := make([]byte, 4096)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return format.Usagef("%s is not %s: graft does not write one in its place", path, what)
	}
	for _, m := range marks {
		if bytes.Contains(head[:n], []byte(m)) {
			return nil
		}
	}
	return format.Usagef("%s is not %s: graft does not write one in its place", path, what)
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// isGGUF says whether an output path asks for a GGUF file rather than a folder.
func isGGUF(path string) bool { return strings.EqualFold(filepath.Ext(path), ".gguf") }

// writeGGUF carries out a plan into a GGUF file.
func (a *app) writeGGUF(ctx context.Context, verb string, o *outputFlags, meta *gguf.Meta, plan *format.Plan) error {
	memory, err := parseSize(o.memory)
	if err != nil {
		return err
	}
	opt := gguf.WriteOptions{Force: o.force}
	if o.dryRun {
		path := o.path
		if path == "" {
			path = "out.gguf"
		}
		l, err := gguf.LayoutOf(path, meta, plan, opt)
		if err != nil {
			return err
		}
		return a.printPlan(plan, l.Size())
	}
	w, err := gguf.Create(o.path, meta, plan, opt)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := format.Run(ctx, plan, w, a.runOptions(verb, memory)); err != nil {
		return err
	}
	return w.Close()
}

// printPlan shows what a plan would write.
func (a *app) printPlan(plan *format.Plan, total int64) error {
	type row struct {
		Name  string  `json:"tensor"`
		Type  string  `json:"type"`
		Shape []int64 `json:"shape"`
		Size  int64   `json:"bytes"`
		Why   string  `json:"why"`
	}
	doc := struct {
		Tensors []row `json:"tensors"`
		Size    int64 `json:"file_bytes"`
	}{Size: total}
	rows := [][]string{{"tensor", "type", "shape", "bytes", "why"}}
	for _, o := range plan.Outputs {
		doc.Tensors = append(doc.Tensors, row{o.Name, o.Type.String(), o.Shape, o.Size(), o.Why})
		rows = append(rows, []string{o.Name, o.Type.String(), shapeString(o.Shape), count(o.Size()), o.Why})
	}
	if a.json {
		return a.printJSON(doc)
	}
	a.table(rows)
	a.result("%d tensors, %s bytes in all", len(plan.Outputs), count(total))
	return nil
}
