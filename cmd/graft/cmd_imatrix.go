package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

type imatrixOptions struct {
	train.ImportanceOptions
	output     string
	force      bool
	form       string
	data       []string
	in         []string
	statistics bool
}

func newImatrixCmd(a *app) *cobra.Command {
	var o imatrixOptions
	cmd := &cobra.Command{
		Use:   "imatrix MODEL --data FILE -o DST",
		Short: "Compute, combine and show importance matrices",
		Long: `imatrix runs a text through a model and writes how much each column of each matrix
is used: what quantize --imatrix goes by. The text is cut into pieces as
llama-imatrix does, and the file is one that llama.cpp reads. Stacks of experts
have statistics for each expert.

  graft imatrix model-f16.gguf --data calibration.txt -o imatrix.gguf
  graft imatrix model-f16.gguf --data calibration.txt -o imatrix.dat --chunks 100
  graft imatrix --in-file a.gguf --in-file b.dat -o both.gguf            combine files
  graft imatrix --in-file imatrix.gguf --show-statistics                 describe one

A long run can be saved on the way and taken up again, with the same bytes in the
end as if it had not been interrupted:

  graft imatrix model.gguf --data big.txt -o i.gguf --save-frequency 100
  graft imatrix model.gguf --data big.txt -o i.gguf --in-file i.gguf.at_300 --from-chunk 300` + exitStatus,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("context") {
				o.Context = 0
			}
			switch {
			case o.statistics:
				return a.imatrixStatistics(args, &o)
			case len(args) == 0:
				return a.imatrixCombine(cmd.Context(), &o)
			}
			return a.imatrix(cmd.Context(), args[0], &o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "importance matrix to write")
	f.BoolVar(&o.force, "force", false, "replace an output that exists")
	f.StringVar(&o.form, "output-format", "", "gguf, or dat for the older form (as the output's name ends, else gguf)")
	f.StringArrayVar(&o.data, "data", nil, "text, plain, .gz or .zst (repeatable)")
	f.StringArrayVar(&o.in, "in-file", nil, "importance matrix to add (repeatable)")
	f.IntVar(&o.Context, "context", 512, "tokens of a piece (of files that are combined: theirs)")
	f.IntVar(&o.Chunks, "chunks", 0, "pieces of each text to run; 0: all")
	f.IntVar(&o.FromChunk, "from-chunk", 0, "pieces of each text to leave out at its beginning")
	f.BoolVar(&o.ParseSpecial, "parse-special", false, "names of special tokens in the text are those tokens")
	f.BoolVar(&o.ProcessOutput, "process-output", false, "the output head's input too (not for tied heads)")
	f.BoolVar(&o.NoPerplexity, "no-ppl", false, "do not compute the perplexity")
	f.IntVar(&o.Every, "save-frequency", 0, "write DST.at_N after every so many pieces")
	f.BoolVar(&o.statistics, "show-statistics", false, "describe the one --in-file, as a table")
	return cmd
}

// check fails early when the output cannot be.
func (o *imatrixOptions) check(inputs ...string) error {
	switch o.form {
	case "gguf", "dat":
	case "":
		o.form = "gguf"
		if strings.EqualFold(filepath.Ext(o.output), ".dat") {
			o.form = "dat"
		}
	default:
		return format.Usagef("--output-format %s: gguf or dat", o.form)
	}
	if o.Every < 0 {
		return format.Usagef("--save-frequency %d is negative", o.Every)
	}
	out := outputFlags{path: o.output, force: o.force}
	return out.check(append(append(inputs, o.in...), o.data...)...)
}

// read combines the files given. The size of a piece is --context, else that of
// the files.
func (o *imatrixOptions) read() (*quant.Imatrix, error) {
	m := &quant.Imatrix{ChunkSize: o.Context}
	var files []*quant.Imatrix
	for _, path := range o.in {
		f, err := quant.ReadImatrix(path)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		if m.ChunkSize == 0 {
			m.ChunkSize = f.ChunkSize
		}
	}
	if m.ChunkSize == 0 {
		m.ChunkSize = 512
	}
	for _, f := range files {
		if err := m.Add(f); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (o *imatrixOptions) write(ctx context.Context, m *quant.Imatrix, path string, force bool) error {
	if o.form == "dat" {
		return m.WriteDat(path, force)
	}
	return m.WriteGGUF(ctx, path, force)
}

func (a *app) imatrixCombine(ctx context.Context, o *imatrixOptions) error {
	if len(o.in) == 0 {
		return format.Usagef("name a model and a text with --data, or matrices to combine with --in-file")
	}
	if len(o.data) > 0 {
		return format.Usagef("--data wants a model to run it through")
	}
	if err := o.check(); err != nil {
		return err
	}
	m, err := o.read()
	if err != nil {
		return err
	}
	if err := o.write(ctx, m, o.output, o.force); err != nil {
		return err
	}
	return a.reportImatrix(o, m, train.ImportanceProgress{})
}

func (a *app) imatrix(ctx context.Context, path string, o *imatrixOptions) error {
	if len(o.data) == 0 {
		return format.Usagef("name a text with --data")
	}
	if err := o.check(path); err != nil {
		return err
	}
	m, err := o.read()
	if err != nil {
		return err
	}
	o.Context = m.ChunkSize
	base, err := train.OpenBase(path, model.Options{Threads: a.threads, Context: o.Context})
	if err != nil {
		return err
	}
	defer base.Close()
	if o.Context > base.Model.Config.Context {
		a.say("%s was made for %d tokens, fewer than a piece of %d", path, base.Model.Config.Context, o.Context)
	}
	o.Save = func(m *quant.Imatrix) error {
		return o.write(ctx, m, fmt.Sprintf("%s.at_%d", o.output, m.Chunks), true)
	}
	var last train.ImportanceProgress
	for _, name := range o.data {
		text, err := data.ReadText(name)
		if err != nil {
			return err
		}
		o.Progress = func(p train.ImportanceProgress) {
			a.progress("%s: piece %d of %d, perplexity %.3f", name, p.Done, p.Total, p.Perplexity)
		}
		if last, err = base.Importance(ctx, m, text, name, o.ImportanceOptions); err != nil {
			return err
		}
		if !o.NoPerplexity {
			a.say("%s: %s, perplexity %.4f ± %.5f", name, plural(last.Done, "piece"), last.Perplexity, last.PerplexityError)
		}
	}
	if err := o.write(ctx, m, o.output, o.force); err != nil {
		return err
	}
	return a.reportImatrix(o, m, last)
}

// reportImatrix says what was written, and which experts no token reached.
func (a *app) reportImatrix(o *imatrixOptions, m *quant.Imatrix, p train.ImportanceProgress) error {
	var partial []string
	for _, e := range m.Entries {
		n := 0
		for _, c := range e.Counts {
			if c > 0 {
				n++
			}
		}
		if n < len(e.Counts) {
			partial = append(partial, e.Name)
			a.say("%s: only %d of %d experts saw a token", e.Name, n, len(e.Counts))
		}
	}
	if a.json {
		st, err := os.Stat(o.output)
		if err != nil {
			return err
		}
		return a.printJSON(struct {
			Path    string   `json:"path"`
			Bytes   int64    `json:"bytes"`
			Entries int      `json:"entries"`
			Chunks  int      `json:"chunks"`
			Size    int      `json:"chunk_size"`
			Partial []string `json:"partial,omitempty"`
			Ppl     float64  `json:"perplexity,omitempty"`
			PplErr  float64  `json:"perplexity_error,omitempty"`
		}{o.output, st.Size(), len(m.Entries), m.Chunks, m.ChunkSize, partial, p.Perplexity, p.PerplexityError})
	}
	a.result("%s: %s on %s of %d tokens", o.output, plural(len(m.Entries), "tensor"), plural(m.Chunks, "piece"), m.ChunkSize)
	return nil
}

func (a *app) imatrixStatistics(args []string, o *imatrixOptions) error {
	paths := append(append([]string{}, args...), o.in...)
	if len(paths) != 1 {
		return format.Usagef("--show-statistics describes one importance matrix: name it with --in-file")
	}
	m, err := quant.ReadImatrix(paths[0])
	if err != nil {
		return err
	}
	tensors, layers, err := m.Statistics()
	if err != nil {
		return fmt.Errorf("%s: %w", paths[0], err)
	}
	if a.json {
		return a.printJSON(struct {
			Path    string                   `json:"path"`
			Tensors []quant.TensorStatistics `json:"tensors"`
			Layers  []quant.LayerStatistics  `json:"layers"`
		}{paths[0], tensors, layers})
	}
	rows := [][]string{{"layer", "tensor", "Σ(act²)", "min", "max", "μ", "σ", "active", "N", "entropy", "E (norm)", "ZD", "cossim"}}
	for _, s := range tensors {
		rows = append(rows, s.Row())
	}
	a.table(rows)
	a.result("")
	rows = [][]string{{"layer", "μΣ(act²)", "μZD", "μcossim"}}
	for _, l := range layers {
		rows = append(rows, []string{fmt.Sprint(l.Layer), fmt.Sprintf("%.2f", l.Sum), fmt.Sprintf("%.4f%%", 100*l.ZD), fmt.Sprintf("%.4f", l.CosSim)})
	}
	a.table(rows)
	return nil
}
