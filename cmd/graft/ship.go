package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// shipOptions are those of eval --ship.
type shipOptions struct {
	on      bool
	heldOut string
	methods []string
	seed    uint64
	report  reportFlags

	momentMemory        string
	maxError, maxGrowth float64
}

func (o *shipOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.on, "ship", false, "compare the ways to ship an adapter: eval --ship BASE ADAPTER... --data FILE")
	f.StringVar(&o.heldOut, "held-out", "", "ship: evaluate on this, and use all of --data for the moments; else --data is halved")
	f.StringSliceVar(&o.methods, "methods", nil, "ship: methods of merge to compare (all that apply)")
	f.Uint64Var(&o.seed, "seed", 0, "ship: of stochastic rounding")
	f.StringVar(&o.momentMemory, "moment-memory", "128MiB", "ship: memory for the moments of inputs")
	f.Float64Var(&o.maxError, "max-error", 0.5, "ship: error of outputs that promote is to reach")
	f.Float64Var(&o.maxGrowth, "max-growth", 0.1, "ship: part by which promote may let the tensors grow")
	o.report.add(cmd)
}

// shipRow is a form in which the adapter could be used, and what it does.
type shipRow struct {
	sideResult
	Method   string        `json:"method,omitempty"`  // of the merge into the base's own types
	Bytes    int64         `json:"bytes,omitempty"`   // of the file or files
	Seconds  float64       `json:"seconds,omitempty"` // to make it
	Recovery *float64      `json:"recovery,omitempty"`
	Survival *merge.Report `json:"survival,omitempty"`
	// Cannot says why there is no such file; nothing else is given then.
	Cannot string `json:"cannot,omitempty"`
}

// shipDoc is the JSON of eval --ship.
type shipDoc struct {
	Base     string     `json:"base"`
	Adapters []string   `json:"adapters"`
	Data     string     `json:"data"`
	HeldOut  string     `json:"held_out,omitempty"`
	Rows     []*shipRow `json:"rows"`
}

// shipper compares.
type shipper struct {
	*app
	o         *evalOptions
	base      *train.Base
	path      string
	adapters  []string
	reference side // the adapter beside the base, or as it was trained
	samples   []data.Sample
	// comparison is with the reference; nil if nobody asks for it.
	comparison *train.Comparison
	dir        string // for the files that are made, one at a time
	doc        shipDoc
}

// ship evaluates base, adapter and every merged form of the two. Files are made in a
// temporary folder, and removed when they have been evaluated.
func (a *app) ship(ctx context.Context, args []string, o *evalOptions) error {
	if len(args) < 2 {
		return format.Usagef("eval --ship BASE ADAPTER... --data FILE: the adapter is missing")
	}
	if len(o.adapters)+len(o.against) > 0 || o.asMerged {
		return format.Usagef("eval --ship takes its adapters after the base, and neither --adapter, --against nor --as-merged")
	}
	if err := o.ship.report.check(); err != nil {
		return err
	}
	if err := checkPromotion(o.ship.maxError, o.ship.maxGrowth); err != nil {
		return err
	}
	for _, m := range o.ship.methods {
		if _, err := merge.MethodByName(m); err != nil {
			return err
		}
	}
	if kind, err := checkpoint.Sniff(args[0]); err != nil {
		return err
	} else if kind != checkpoint.GGUFModel {
		return format.Unsupported("eval --ship on a %v: merging into stored types is for GGUF files; graft convert makes one", kind)
	}
	base, err := train.OpenBase(args[0], model.Options{Threads: a.threads, Context: o.data.context})
	if err != nil {
		return err
	}
	defer base.Close()
	s := &shipper{app: a, o: o, base: base, path: args[0], adapters: args[1:],
		doc: shipDoc{Base: args[0], Adapters: args[1:], Data: o.data.path, HeldOut: o.ship.heldOut}}
	loaded, err := a.loadAdapters(&o.gate, base, s.adapters)
	if err != nil {
		return err
	}
	s.reference = side{"adapter, unmerged", base, loaded}
	aware := trainedForm(loaded)
	if aware {
		s.reference.name = "adapter, as trained"
	}
	held := o.data
	if held.half = 2; o.ship.heldOut != "" {
		held.path, held.half = o.ship.heldOut, 0
	}
	if s.samples, err = held.read(base); err != nil {
		return err
	}
	if !o.noKL {
		if s.comparison, err = comparison(s.reference, s.samples); err != nil {
			return err
		}
		defer s.comparison.Close()
	}
	if s.dir, err = os.MkdirTemp("", "graft-ship-*"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	if err := s.compare(ctx, aware); err != nil {
		return err
	}
	if o.ship.report.path != "" {
		if err := s.doc.page(aware).WriteFile(o.ship.report.path, o.ship.report.force); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(s.doc)
	}
	s.print()
	return nil
}

// compare fills the rows.
func (s *shipper) compare(ctx context.Context, aware bool) error {
	if _, err := s.row(ctx, side{"base", s.base, nil}, &shipRow{Bytes: fileSize(s.path)}); err != nil {
		return err
	}
	total := fileSize(s.path)
	for _, arg := range s.adapters {
		total += adapterSize(parseWeighted(arg).path)
	}
	if _, err := s.row(ctx, s.reference, &shipRow{Bytes: total}); err != nil {
		return err
	}
	methods := s.o.ship.methods
	if len(methods) == 0 {
		methods = merge.MethodNames()
		if !aware {
			methods = slices.DeleteFunc(methods, func(m string) bool { return m == "aware" })
		}
	}
	for _, m := range methods {
		if err := s.merged(ctx, "merged, "+m, mergeOptions{typ: "same", method: m}); err != nil {
			return err
		}
	}
	return s.throughFloat16(ctx)
}

// row evaluates a side and adds it to the table.
func (s *shipper) row(ctx context.Context, x side, r *shipRow) (*shipRow, error) {
	reference := len(s.doc.Rows) == 1 // it is the second row
	told := func(done int) { s.progress("%s: %d of %d", x.name, done, len(s.samples)) }
	var err error
	if r.sideResult, err = x.evaluate(ctx, s.samples, s.comparison, reference, told); err != nil {
		return nil, err
	}
	s.doc.Rows = append(s.doc.Rows, r)
	if n := len(s.doc.Rows); n > 2 {
		base, adapter := s.doc.Rows[0].Loss, s.doc.Rows[1].Loss
		if base > adapter {
			kept := (base - r.Loss) / (base - adapter)
			r.Recovery = &kept
		}
	}
	return r, nil
}

// merged makes a merged file, evaluates it and removes it.
func (s *shipper) merged(ctx context.Context, name string, o mergeOptions) error {
	path := filepath.Join(s.dir, "merged.gguf")
	o.output = outputFlags{path: path, force: true, memory: "64MiB"}
	o.data, o.momentMemory, o.seed, o.gate, o.asked = s.o.data, s.o.ship.momentMemory, s.o.ship.seed, s.o.gate, true
	o.maxError, o.maxGrowth = s.o.ship.maxError, s.o.ship.maxGrowth
	if s.o.ship.heldOut == "" {
		o.data.half = 1
	}
	begun := time.Now()
	report, err := s.mergeFiles(ctx, s.path, s.adapters, &o)
	return s.evaluateFile(ctx, name, path, &shipRow{Method: strings.ToLower(o.method), Survival: report, Seconds: time.Since(begun).Seconds()}, err)
}

// evaluateFile evaluates a file that was made, or says why it could not be, and removes it.
func (s *shipper) evaluateFile(ctx context.Context, name, path string, r *shipRow, err error) error {
	defer os.Remove(path)
	var unsupported *format.UnsupportedError
	var usage *format.UsageError
	if errors.As(err, &unsupported) || errors.As(err, &usage) {
		r.Name, r.Cannot = name, err.Error()
		s.doc.Rows = append(s.doc.Rows, r)
		return nil
	}
	if err != nil {
		return err
	}
	r.Bytes = fileSize(path)
	b, err := train.OpenBase(path, model.Options{Threads: s.threads, Context: s.o.data.context})
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = s.row(ctx, side{name, b, nil}, r)
	return err
}

// throughFloat16 merges into 16 bits, and quantizes that to what the base is: what tools
// do that cannot merge into a quantized file.
func (s *shipper) throughFloat16(ctx context.Context) error {
	whole := filepath.Join(s.dir, "f16.gguf")
	o := mergeOptions{output: outputFlags{path: whole, force: true, memory: "64MiB"}, typ: "F16", gate: s.o.gate, asked: true}
	begun := time.Now()
	report, err := s.mergeFiles(ctx, s.path, s.adapters, &o)
	if err != nil {
		return err
	}
	defer os.Remove(whole)
	took := time.Since(begun)
	half, err := train.OpenBase(whole, model.Options{Threads: s.threads, Context: s.o.data.context})
	if err != nil {
		return err
	}
	defer half.Close()
	if _, err := s.row(ctx, side{"16-bit merge", half, nil}, &shipRow{Bytes: fileSize(whole), Survival: report, Seconds: took.Seconds()}); err != nil {
		return err
	}
	stored, ok := s.base.Source.Meta.Int("general.file_type")
	ftype := quant.FileType(stored)
	if info, known := ftype.Info(); !ok || !known || !info.Default.Quantized() {
		return nil // the 16-bit file is what the base is
	}
	begun = time.Now()
	path := filepath.Join(s.dir, "quantized.gguf")
	plan, meta, err := quant.NewPlan(quant.Source{Meta: half.Source.Meta, Views: half.Source.Views}, quant.Options{Recipe: quant.Recipe{FileType: ftype}})
	if err == nil {
		err = s.writeGGUF(ctx, "quantized", &outputFlags{path: path, force: true, memory: "64MiB"}, meta, plan)
	}
	return s.evaluateFile(ctx, "16-bit merge, quantized to "+ftype.String(), path, &shipRow{Seconds: (took + time.Since(begun)).Seconds()}, err)
}

// fileSize is the size of a file, or of the files in a folder; 0 for what is not there.
func fileSize(path string) int64 {
	var n int64
	filepath.WalkDir(path, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}

// adapterSize is the size of an adapter's file, or of its files in a folder that may
// hold more.
func adapterSize(path string) int64 {
	list, err := filepath.Glob(filepath.Join(path, "adapter*"))
	if err != nil || len(list) == 0 {
		return fileSize(path)
	}
	var n int64
	for _, f := range list {
		if !isGGUF(f) { // graft's training leaves the adapter in a second form
			n += fileSize(f)
		}
	}
	return n
}

// best is the row with the lowest loss among the merged files that are not larger than the
// base by more than a hundredth; nil if there is none.
func (d *shipDoc) best() *shipRow {
	var best *shipRow
	for _, r := range d.Rows[min(2, len(d.Rows)):] {
		if r.Cannot == "" && float64(r.Bytes) < 1.01*float64(d.Rows[0].Bytes) && (best == nil || r.Loss < best.Loss) {
			best = r
		}
	}
	return best
}

// fields are a row of the table as text, without its name.
func (r *shipRow) fields() []string {
	text := func(f string, x float64, ok bool) string {
		if !ok || math.IsNaN(x) {
			return "-"
		}
		return fmt.Sprintf(f, x)
	}
	var recovery, kl, top float64
	if r.Recovery != nil {
		recovery = *r.Recovery
	}
	if r.Divergence != nil {
		kl, top = r.Divergence.KL, 100*r.Divergence.SameTop
	}
	gain := "-"
	if r.Survival != nil {
		gain = fmt.Sprintf("%.3f", gainOf(r.Survival.Total))
	}
	return []string{size(r.Bytes), fmt.Sprintf("%.4f", r.Loss), fmt.Sprintf("%.4f", r.LossError), text("%.3f", recovery, r.Recovery != nil),
		text("%.5f", kl, r.Divergence != nil), text("%.2f %%", top, r.Divergence != nil), gain}
}

// shipColumns are the headings of fields.
var shipColumns = []string{"size", "loss", "±", "recovery", "KL to adapter", "same top token", "gain"}

// gainOf is the gain on inputs, where it was measured, or that of the weights.
func gainOf(s merge.Survival) float64 {
	if s.GainOnInputs != 0 {
		return s.GainOnInputs
	}
	return s.Gain
}

func (s *shipper) print() {
	rows := [][]string{append([]string{""}, shipColumns...)}
	for _, r := range s.doc.Rows {
		if r.Cannot == "" {
			rows = append(rows, append([]string{r.Name}, r.fields()...))
		}
	}
	s.table(rows)
	for _, r := range s.doc.Rows {
		if r.Cannot != "" {
			s.result("%s: %s", r.Name, r.Cannot)
		}
	}
	first := s.doc.Rows[0]
	s.result("%s, %s", plural(first.Sequences, "sequence"), plural(first.Tokens, "token"))
	if s.doc.Rows[1].Loss >= first.Loss {
		s.result("the adapter does not lower the loss here: there is no recovery to measure")
	} else if b := s.doc.best(); b != nil {
		s.result("best in the base's size: %s, %.3f of what the adapter does", b.Name, *b.Recovery)
	}
}
