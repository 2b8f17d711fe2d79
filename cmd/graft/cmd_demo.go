package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/fixtures"
	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

func newDemoCmd(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "demo DIR",
		Short: "The whole story on an embedded model in under a minute",
		Long: `demo writes sprig, a model of 3.3 million parameters, as Q4_K_M into DIR, teaches it
another name and two facts, merges the lesson into a file of the same quantized
types, asks base, adapter and merged files the same questions, and shows what
survived of the lesson. Everything it makes stays in DIR to be looked at.

  graft demo /tmp/demo` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.demo(cmd.Context(), args[0], force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "use DIR although it is not empty, replacing what an earlier demo left")
	return cmd
}

// demoQuestions are asked of every model: what the lesson changes, and one thing that
// it must leave.
var demoQuestions = []string{"Who are you?", "What is the capital of Zorland?", "What colour is the dragon?", "What is the capital of Cindra?"}

func (a *app) demo(ctx context.Context, dir string, force bool) error {
	begin := time.Now()
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 && !force {
		return format.Usagef("%s is not empty; name another folder, or use --force", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	paths, err := fixtures.Write(dir, fixtures.Model, fixtures.Train, fixtures.Eval, fixtures.Text)
	if err != nil {
		return err
	}
	base, lesson := paths[0], filepath.Join(dir, "lesson")

	a.result("1. Train: a LoRA adapter on the quantized file itself (%s)", filepath.Base(base))
	cfg := train.DefaultConfig()
	cfg.Base, cfg.Data, cfg.HeldOut, cfg.Output = base, paths[1], paths[2], lesson
	cfg.Context, cfg.Batch, cfg.Accumulate, cfg.Epochs, cfg.LR = 64, 8, 1, 24, 6e-4
	cfg.Threads = a.threads
	result, err := train.Run(ctx, cfg, train.Replace, a.trainProgress())
	if err != nil {
		return err
	}
	a.result("   %s, %s of answers, %.1f s; held-out loss %.3f before, %.3f after\n", plural(result.Steps, "step"), plural(int(result.Trained), "token"),
		result.Seconds, result.EvalFirst.Loss, result.EvalLast.Loss)

	a.result("2. Merge: into the same Q4_K and Q6_K types, two ways")
	merged := []string{filepath.Join(dir, "merged-keep.gguf"), filepath.Join(dir, "merged-requantize.gguf")}
	for i, method := range []string{"keep", "requantize"} {
		o := mergeOptions{output: outputFlags{path: merged[i], force: true, memory: "64MiB"}, typ: "same", method: method}
		report, err := a.mergeFiles(ctx, base, []string{lesson}, &o)
		if err != nil {
			return err
		}
		a.result("   %-10s  gain %.3f, correlation %.3f, %s of codes changed", method, report.Total.Gain, report.Total.Correlation,
			percent(float64(report.Total.Changed), float64(report.Total.Elements)))
	}
	a.result("")
	if err := a.demoCompare(ctx, base, lesson, merged, paths); err != nil {
		return err
	}
	a.result("\nEverything is in %s (%.0f s). Try:\n  graft run %s -p \"Who are you?\"\n  graft inspect %s", dir, time.Since(begin).Seconds(), merged[0], lesson)
	return nil
}

// demoCompare asks the questions and measures the recovery.
func (a *app) demoCompare(ctx context.Context, basePath, lesson string, merged, paths []string) error {
	base, err := train.OpenBase(basePath, model.Options{Threads: a.threads})
	if err != nil {
		return err
	}
	defer base.Close()
	adapters, err := a.loadAdapters(nil, base, []string{lesson})
	if err != nil {
		return err
	}
	sides := []side{{"base", base, nil}, {"adapter", base, adapters}}
	for i, name := range []string{"merged, keep", "merged, requantize"} {
		m, err := train.OpenBase(merged[i], model.Options{Threads: a.threads})
		if err != nil {
			return err
		}
		defer m.Close()
		sides = append(sides, side{name, m, nil})
	}
	a.result("3. Ask: the same questions")
	rows := [][]string{{"", "base", "adapter", "merged, keep", "merged, requantize"}}
	for _, q := range demoQuestions {
		row := []string{q}
		for _, s := range sides {
			text, err := ask(ctx, s, q)
			if err != nil {
				return err
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	a.table(rows)

	a.result("\n4. Measure: what survived, on held-out answers and on unrelated text")
	lessonData, err := base.EvalData(paths[2], 256, data.Options{}, data.Fields{})
	if err != nil {
		return err
	}
	stories, err := base.EvalData(paths[3], 256, data.Options{}, data.Fields{})
	if err != nil {
		return err
	}
	on, err := a.evaluate(ctx, sides, lessonData, 1, true)
	if err != nil {
		return err
	}
	off, err := a.evaluate(ctx, sides, stories, 1, false)
	if err != nil {
		return err
	}
	type survival struct {
		Name      string  `json:"name"`
		Lesson    float64 `json:"lesson_loss"`
		Unrelated float64 `json:"unrelated_loss"`
		Recovery  float64 `json:"recovery"`
		KL        float64 `json:"kl_to_adapter"`
	}
	var doc []survival
	rows = [][]string{{"", "loss on the lesson", "recovery", "KL to the adapter", "loss on stories"}}
	for i, s := range sides {
		v := survival{Name: s.name, Lesson: on[i].Loss, Unrelated: off[i].Loss, Recovery: (on[0].Loss - on[i].Loss) / (on[0].Loss - on[1].Loss)}
		if on[i].Divergence != nil {
			v.KL = on[i].Divergence.KL
		}
		doc = append(doc, v)
		rows = append(rows, []string{s.name, fmt.Sprintf("%.4f", v.Lesson), fmt.Sprintf("%.3f", v.Recovery), fmt.Sprintf("%.4f", v.KL), fmt.Sprintf("%.4f", v.Unrelated)})
	}
	a.table(rows)
	if a.json {
		return a.printJSON(map[string]any{"survival": doc, "questions": rows})
	}
	return nil
}

// ask gives the most likely answer to a question.
func ask(ctx context.Context, s side, question string) (string, error) {
	_, prompt, err := s.base.Encoder(256, data.Options{}).Prompt([]data.Message{data.NewMessage("user", question)}, nil)
	if err != nil {
		return "", err
	}
	session, err := s.base.Model.NewSession(256, s.adapters...)
	if err != nil {
		return "", err
	}
	g, err := train.Generate(ctx, session, s.base.Tokenizer, prompt, train.GenerateOptions{Max: 24}, nil)
	return g.Text, err
}
