package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/graft-lora/graft/fixtures"
	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// survivalFlags say what the survival group merges and what it measures on. By
// default it is the embedded model with a lesson it is taught first.
var survivalFlags survivalSetup

type survivalSetup struct {
	adapter, moments, task, other, types, methods string
	samples, limit, windows                       int
	seed                                          uint64
	without, with                                 *score // of base and adapter, where they are known
}

func init() {
	s := &survivalFlags
	flag.StringVar(&s.adapter, "adapter", "", "survival: adapter to merge")
	flag.StringVar(&s.moments, "moments", "", "survival: text or records that moments are taken from")
	flag.StringVar(&s.task, "task", "", "survival: held-out text or records of what the adapter learned")
	flag.StringVar(&s.other, "other", "", "survival: unrelated text")
	flag.StringVar(&s.types, "types", "Q4_0,Q4_1,Q5_0,Q5_1,Q8_0,Q3_K,Q4_K,Q5_K,Q6_K,IQ4_XS", "survival: types the base is brought to, SAME for its own")
	flag.StringVar(&s.methods, "methods", "requantize,keep,fit", "survival: methods compared")
	flag.IntVar(&s.samples, "samples", 20, "survival: records or windows that moments are taken from")
	flag.IntVar(&s.limit, "limit", 20, "survival: task records or windows evaluated")
	flag.IntVar(&s.windows, "windows", 3, "survival: windows of unrelated text evaluated")
	flag.Uint64Var(&s.seed, "seed", 0, "survival: of stochastic rounding")
}

// survivalRow is what one merge left of one adapter, or, with the method "base" or
// "adapter", what it is measured against.
type survivalRow struct {
	Type           string  `json:"type"`
	Method         string  `json:"method"`
	Task           float64 `json:"task_loss"`
	Other          float64 `json:"unrelated_loss"`
	Recovery       float64 `json:"recovery"`       // (base - merged) / (base - adapter) of the loss on the task
	Elsewhere      float64 `json:"cost_elsewhere"` // loss on unrelated text, relative to the unmerged adapter's
	Gain           float64 `json:"gain"`
	GainOnInputs   float64 `json:"gain_on_inputs"`
	ErrorOnInputs  float64 `json:"error_on_inputs"`
	ChangedPercent float64 `json:"codes_changed_percent"`
	Growth         float64 `json:"growth"` // of the merged tensors and all others
	Seconds        float64 `json:"seconds"`
}

// survival merges one adapter by every method into a base of every type and prints
// the share of its effect on the loss that is left, (base - merged) / (base -
// adapter), beside the loss on unrelated text, relative to the unmerged adapter's.
func survival(modelPath string) error {
	ctx, s := context.Background(), survivalFlags
	dir, err := os.MkdirTemp("", "graft-survival")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if modelPath == "" {
		if modelPath, err = survivalLesson(ctx, dir, &s); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "type\tmethod\ttask\tunrelated\trecovery\tcost elsewhere\tgain\ton inputs\terror\tcodes\tgrowth\tseconds")
	for _, typ := range strings.Split(s.types, ",") {
		err := survivalOf(ctx, dir, modelPath, typ, &s, func(r survivalRow) error {
			fmt.Fprintf(w, "%s\t%s\t%.4f\t%.4f", r.Type, r.Method, r.Task, r.Other)
			if r.Method != "base" && r.Method != "adapter" {
				fmt.Fprintf(w, "\t%.3f\t%+.2f %%\t%.3f\t%.3f\t%.3f\t%.2f %%\t%+.1f %%\t%.1f", r.Recovery, 100*r.Elsewhere,
					r.Gain, r.GainOnInputs, r.ErrorOnInputs, r.ChangedPercent, 100*r.Growth, r.Seconds)
			}
			fmt.Fprintln(w)
			return w.Flush()
		})
		if err != nil {
			return fmt.Errorf("%s: %w", typ, err)
		}
	}
	return nil
}

// survivalLesson writes the embedded model and text and trains an adapter.
func survivalLesson(ctx context.Context, dir string, s *survivalSetup) (string, error) {
	paths, err := fixtures.Write(dir, fixtures.Model, fixtures.Train, fixtures.Eval, fixtures.Text)
	if err != nil {
		return "", err
	}
	if s.moments == "" {
		s.moments = paths[1]
	}
	s.task, s.other = paths[2], paths[3]
	if s.adapter != "" {
		return paths[0], nil
	}
	s.adapter = filepath.Join(dir, "lesson")
	c := train.DefaultConfig()
	c.Base, c.Data, c.Output, c.HeldOutPart = paths[0], paths[1], s.adapter, 0
	c.Adapter.Rank, c.Adapter.Alpha, c.Steps, c.Batch, c.Accumulate, c.LR, c.Warmup = 8, 16, 40, 1, 2, 1e-3, 5
	_, err = train.Run(ctx, c, train.Fresh, nil)
	return paths[0], err
}

// score is what a model is worth on the two texts.
type score struct{ task, other float64 }

// survivalOf measures the methods on one type and gives each row to told.
func survivalOf(ctx context.Context, dir, modelPath, typ string, s *survivalSetup, told func(survivalRow) error) error {
	basePath := modelPath
	if typ != "SAME" {
		basePath = filepath.Join(dir, "base.gguf")
		if err := quantizePure(ctx, modelPath, basePath, typ); err != nil {
			return err
		}
	}
	base, err := train.OpenBase(basePath, model.Options{})
	if err != nil {
		return err
	}
	defer base.Close()
	ad, err := base.LoadAdapter(s.adapter)
	if err != nil {
		return err
	}
	raw, err := adapter.Open(s.adapter)
	if err != nil {
		return err
	}
	deltas, err := merge.NewDeltas(base.Source, []merge.Weighted{{Adapter: raw, Factor: 1}})
	if err != nil {
		return err
	}
	active := model.Scaled{Adapter: ad, Weight: 1}
	task, err := samplesOf(base, s.task, s.limit)
	if err != nil {
		return err
	}
	other, err := samplesOf(base, s.other, s.windows)
	if err != nil {
		return err
	}
	measure := func(b *train.Base, adapters ...model.Scaled) (score, error) {
		t, err := train.Evaluate(ctx, b.Model, task, 2048, nil, adapters...)
		if err != nil {
			return score{}, err
		}
		o, err := train.Evaluate(ctx, b.Model, other, 2048, nil, adapters...)
		return score{t.Loss, o.Loss}, err
	}
	without, with := score{}, score{}
	if s.without != nil {
		without, with = *s.without, *s.with
	} else {
		if without, err = measure(base); err != nil {
			return err
		}
		if with, err = measure(base, active); err != nil {
			return err
		}
	}
	if err := told(survivalRow{Type: typ, Method: "base", Task: without.task, Other: without.other}); err != nil {
		return err
	}
	if err := told(survivalRow{Type: typ, Method: "adapter", Task: with.task, Other: with.other, Recovery: 1}); err != nil {
		return err
	}
	var baseSize int64
	for _, v := range base.Source.Views {
		for _, f := range v.From {
			baseSize += f.Size
		}
	}
	mergedPath := filepath.Join(dir, "merged.gguf")
	var wanted []string
	for _, v := range base.Source.Views {
		if deltas[v.Name] != nil {
			wanted = append(wanted, v.Name)
		}
	}
	// With much memory the methods share the moments, which the first one's time has.
	var moments merge.Moments
	if s.moments != "" {
		seen, err := samplesOf(base, s.moments, s.samples)
		if err != nil {
			return err
		}
		moments = train.NewInputMoments(base.Model, seen, 2048, 2<<30, wanted, active)
	} else if sketch, err := train.OpenSketch(s.adapter); err != nil {
		return err
	} else if sketch != nil {
		moments = sketch
	}
	for _, name := range strings.Split(s.methods, ",") {
		begin := time.Now()
		opt := merge.Options{Method: name, Seed: s.seed, Moments: moments}
		plan, report, err := merge.NewPlan(base.Source, deltas, opt)
		if err != nil {
			return err
		}
		if err := writePlan(ctx, mergedPath, base.Source.FileMeta(), plan); err != nil {
			return err
		}
		report.Finish()
		took := time.Since(begin)
		m, err := train.OpenBase(mergedPath, model.Options{})
		if err != nil {
			return err
		}
		got, err := measure(m)
		m.Close()
		if err != nil {
			return err
		}
		t := report.Total
		err = told(survivalRow{Type: typ, Method: name, Task: got.task, Other: got.other,
			Recovery: (without.task - got.task) / (without.task - with.task), Elsewhere: got.other/with.other - 1,
			Gain: t.Gain, GainOnInputs: t.GainOnInputs, ErrorOnInputs: t.ErrorOnInputs,
			ChangedPercent: 100 * float64(t.Changed) / float64(t.Elements),
			Growth:         float64(plan.Size())/float64(baseSize) - 1, Seconds: took.Seconds()})
		if err != nil {
			return err
		}
	}
	return nil
}

func samplesOf(b *train.Base, path string, limit int) ([]data.Sample, error) {
	fields := data.Fields{}
	if strings.Contains(filepath.Base(path), "gsm8k") {
		fields.Prompt, fields.Completion = "question", "answer"
	}
	samples, err := b.EvalData(path, 512, data.Options{}, fields)
	return samples[:min(limit, len(samples))], err
}

// quantizePure brings the matrices of a model's layers to one type, or to the one that
// the recipes have for rows that are no whole blocks of it. The embedding stays as it is.
func quantizePure(ctx context.Context, from, to, typ string) error {
	m, err := arch.Open(from, arch.Options{})
	if err != nil {
		return err
	}
	defer m.Close()
	opt := quant.Options{AllowRequantize: true}
	opt.Recipe.Pure = true
	if v := m.View("token_embd.weight"); v != nil {
		opt.Recipe.TokenEmbeddingType = &v.Type
	}
	if typ == "Q3_K" || typ == "Q4_K" || typ == "Q5_K" {
		typ += "_M"
	}
	if opt.Recipe.FileType, err = quant.ParseFileType(typ); err != nil {
		return err
	}
	plan, meta, err := quant.NewPlan(quant.Source{Meta: m.Meta, Views: m.Views}, opt)
	if err != nil {
		return err
	}
	return writePlan(ctx, to, meta, plan)
}

func writePlan(ctx context.Context, path string, meta *gguf.Meta, plan *format.Plan) error {
	w, err := gguf.Create(path, meta, plan, gguf.WriteOptions{Force: true})
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := format.Run(ctx, plan, w, format.RunOptions{}); err != nil {
		return err
	}
	return w.Close()
}
