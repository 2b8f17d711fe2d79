package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
	"github.com/graft-lora/graft/train/objective"
	"github.com/graft-lora/graft/train/optim"
)

type trainOptions struct {
	cfg      train.Config
	targets  string
	exclude  string
	resume   bool
	force    bool
	showMask int
	memory   string
	plan     bool
	data     []string
	prompts  []string
}

// rate is the flag of the learning rate.
type rate struct{ c *train.Config }

func (r *rate) String() string {
	switch {
	case r.c == nil:
		return ""
	case r.c.AutoLR:
		return "auto"
	}
	return strconv.FormatFloat(r.c.LR, 'g', -1, 64)
}

func (r *rate) Set(s string) (err error) {
	if r.c.AutoLR = s == "auto"; !r.c.AutoLR {
		if r.c.LR, err = strconv.ParseFloat(s, 64); err != nil {
			return errors.New("it is a number or auto")
		}
	}
	return nil
}

func (r *rate) Type() string { return "float or auto" }

func newTrainCmd(a *app) *cobra.Command {
	o := trainOptions{cfg: train.DefaultConfig()}
	cmd := &cobra.Command{
		Use:   "train --base MODEL --data FILE -o DIR | train RUN.yaml",
		Short: "Train a LoRA adapter on a frozen model, quantized or not",
		Long: `train teaches a model something without changing it: the base stays the file it is,
quantized and mapped, and a LoRA adapter is trained beside it. DIR gets the
adapter as a PEFT folder and as a GGUF file, the log (JSONL), the loss curve
(SVG), a record of every setting and digest, and the checkpoints.

  graft train --base model.gguf --data chat.jsonl -o lesson
  graft train --base model.gguf --data qa.jsonl --prompt-field question --completion-field answer -o lesson
  graft train --base model.gguf --data chat.jsonl --show-mask 3      what is trained, token by token
  graft train --base model.gguf --data chat.jsonl --plan             what it would take: memory, time, disk
  graft train --base model.gguf --data pairs.jsonl --objective dpo -o lesson
  graft train --resume -o lesson                                     go on after a kill: the same bytes
  graft train run.yaml

DATA is plain text, or JSONL (also .gz, .zst) or Parquet of {"messages": [...]},
{"prompt": ..., "completion": ...} or {"text": ...}. Only answers are trained.
Several files mix by weight: --data a.jsonl --data b.parquet=0.5.
For preferences, {"prompt": ..., "chosen": ..., "rejected": ...}, or for kto
{"prompt": ..., "completion": ..., "label": true or false}.

A run file has the settings that DIR/run.yaml shows, or the names that axolotl and
PEFT have for them; flags given besides it win.` + exitStatus,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := o.config(cmd, args)
			if err != nil {
				return err
			}
			cfg.Threads = a.threads
			if o.plan {
				return a.trainPlan(cmd.Context(), cfg)
			}
			if o.showMask > 0 {
				return a.showMask(cfg, o.showMask)
			}
			return a.train(cmd.Context(), cfg, &o)
		},
	}
	o.addFlags(cmd)
	return cmd
}

// addFlags binds a flag to each setting; the run file's names are the flags' where
// a person would type them.
func (o *trainOptions) addFlags(cmd *cobra.Command) {
	c, f := &o.cfg, cmd.Flags()
	f.StringVar(&c.Base, "base", c.Base, "model to train on: GGUF, safetensors or Hugging Face folder")
	f.StringVar(&c.Hold, "hold", c.Hold, "quantize a base stored in full as it is opened: "+strings.Join(train.Holds(), ", "))
	o.addDataFlags(f)
	o.addTeacherFlags(f)
	o.addWatchFlags(f)
	f.StringVarP(&c.Output, "output", "o", c.Output, "folder for the adapter, the log and the checkpoints")
	f.BoolVar(&o.resume, "resume", false, "go on from the last checkpoint in the output folder")
	f.BoolVar(&o.force, "force", false, "replace an output folder that holds another run")
	f.BoolVar(&o.plan, "plan", false, "say what would be trained and what it needs, and stop")
	f.IntVar(&o.showMask, "show-mask", 0, "print the first N samples token by token, with what is trained, and stop")

	f.StringVar(&c.HeldOut, "held-out", c.HeldOut, "file to evaluate on")
	f.Float64Var(&c.HeldOutPart, "held-out-part", c.HeldOutPart, "part of the data held out when there is no such file")
	f.StringVar(&c.Fields.Messages, "messages-field", c.Fields.Messages, "name of the field with the conversation (messages)")
	f.StringVar(&c.Fields.Prompt, "prompt-field", c.Fields.Prompt, "name of the field with the prompt (prompt)")
	f.StringVar(&c.Fields.Completion, "completion-field", c.Fields.Completion, "name of the field with the answer (completion)")
	f.StringVar(&c.Fields.Text, "text-field", c.Fields.Text, "name of the field with plain text (text)")
	f.StringVar(&c.Fields.Chosen, "chosen-field", c.Fields.Chosen, "name of the field with the preferred answer (chosen)")
	f.StringVar(&c.Fields.Rejected, "rejected-field", c.Fields.Rejected, "name of the field with the other answer (rejected)")
	f.StringVar(&c.Fields.Label, "label-field", c.Fields.Label, "name of the field that says whether an answer is good (label)")
	f.StringVar(&c.Samples.Chat, "chat", c.Samples.Chat, "use the chat template for prompts: auto, always, never")
	f.StringVar(&c.Samples.Train, "train-on", c.Samples.Train, "what is trained: answers, last, all")
	f.StringVar(&c.Samples.Long, "long", c.Samples.Long, "records longer than the context: truncate, drop, error")
	f.StringVar(&c.Samples.Untrained, "untrained", c.Samples.Untrained, "records without a trained token: error, drop")
	f.StringVar(&c.Samples.Between, "between", c.Samples.Between, "text between a prompt and its completion where they are no conversation")
	f.StringVar(&c.ChatTemplate, "chat-template", c.ChatTemplate, "file with a Jinja template to use in place of the model's")
	f.BoolVar(&c.Samples.Pack, "pack", c.Samples.Pack, "put several samples into a sequence, without attention between them")
	f.BoolVar(&c.Shuffle, "shuffle", c.Shuffle, "a new order in each epoch")
	f.IntVar(&c.Context, "context", c.Context, "tokens of the longest sequence")

	f.IntVar(&c.Adapter.Rank, "rank", c.Adapter.Rank, "rank of the adapter")
	f.Float64Var(&c.Adapter.Alpha, "alpha", c.Adapter.Alpha, "strength: the change is alpha/rank * B*A")
	f.BoolVar(&c.Adapter.RSLoRA, "rslora", c.Adapter.RSLoRA, "alpha/sqrt(rank) instead")
	f.Float64Var(&c.Adapter.Dropout, "dropout", c.Adapter.Dropout, "part of the adapter's inputs dropped in training")
	f.StringVar(&o.targets, "targets", strings.Join(c.Adapter.Targets, ","), "matrices to change: all-linear, module names (q_proj, attn_q) or patterns, by comma; none: rows of tokens only")
	f.StringVar(&o.exclude, "exclude", strings.Join(c.Adapter.Exclude, ","), "matrices not to change, in the same words")
	addAdapterFlags(f, c)
	f.StringVar(&c.Adapter.From, "from", c.Adapter.From, "adapter to begin with")
	f.BoolVar(&c.Adapter.QALoRA, "qa-lora", c.Adapter.QALoRA, "train for merge --method exact: inputs pooled over sub-blocks, for bases of Q4_1, Q5_1, Q2_K, Q4_K, Q5_K")
	f.BoolVar(&c.Adapter.Float32, "adapter-float32", c.Adapter.Float32, "hold and save the adapter in float32 instead of float16")

	f.BoolVar(&c.Adapter.MergeAware, "merge-aware", c.Adapter.MergeAware, "train for the merged file: compute with the codes that merging gives")
	f.StringVar(&c.Objective.Name, "objective", c.Objective.Name, "what it is trained for: "+strings.Join(objective.Names(), ", ")+" (sft)")
	f.Float64Var(&c.Objective.Beta, "beta", c.Objective.Beta, "of preferences: how much a log-ratio weighs; 0: the objective's default")
	f.Float64Var(&c.Objective.Gamma, "gamma", c.Objective.Gamma, "of simpo: margin between the answers; 0: its default")
	f.Float64Var(&c.Objective.LabelSmoothing, "label-smoothing", c.Objective.LabelSmoothing, "of preferences: part of them taken to be wrong")
	f.Float64Var(&c.Objective.NLL, "nll", c.Objective.NLL, "of preferences: weight of the plain loss of chosen answers beside")
	f.Float64Var(&c.Objective.Desirable, "desirable", c.Objective.Desirable, "of kto: weight of good answers; 0: 1")
	f.Float64Var(&c.Objective.Undesirable, "undesirable", c.Objective.Undesirable, "of kto: weight of bad answers; 0: 1")

	f.IntVar(&c.Steps, "steps", c.Steps, "optimizer steps; 0: as many as the epochs take")
	f.Float64Var(&c.Epochs, "epochs", c.Epochs, "times through the data")
	f.IntVar(&c.Batch, "batch", c.Batch, "sequences at once")
	f.IntVar(&c.Accumulate, "accumulate", c.Accumulate, "batches a step")
	f.Var(&rate{c}, "lr", "peak learning rate, or auto: what suits the width of the model")
	f.Float64Var(&c.LRRatio, "lr-ratio", c.LRRatio, "LoRA+: the rate of B is this times that of A")
	f.StringVar(&c.Schedule.Name, "schedule", c.Schedule.Name, "course of the rate: "+strings.Join(optim.ScheduleNames(), ", ")+" (wsd)")
	f.Float64Var(&c.Schedule.Cycles, "schedule-cycles", c.Schedule.Cycles, "of cosine (0.5: half a wave) and cosine_with_restarts: waves; 0: the schedule's default")
	f.Float64Var(&c.Schedule.MinRatio, "schedule-min", c.Schedule.MinRatio, "of the schedules with a lowest rate: that as a part of the rate")
	f.IntVar(&c.Schedule.Decay, "schedule-decay", c.Schedule.Decay, "of wsd: steps of falling rate at the end")
	f.Float64Var(&c.Schedule.Power, "schedule-power", c.Schedule.Power, "of polynomial; 0: 1")
	f.Float64Var(&c.Warmup, "warmup", c.Warmup, "steps of warm-up, or below 1 a part of all steps")
	f.Float64Var(&c.ClipNorm, "clip-norm", c.ClipNorm, "largest norm of the gradient; 0: not clipped")
	f.StringVar(&c.Optimizer.Name, "optimizer", c.Optimizer.Name, "optimizer")
	f.Float64Var(&c.Optimizer.WeightDecay, "weight-decay", c.Optimizer.WeightDecay, "decoupled weight decay")
	f.Uint64Var(&c.Seed, "seed", c.Seed, "of the initial adapter, the order, the split and the dropout")

	f.IntVar(&c.EvalEvery, "eval-every", c.EvalEvery, "steps between evaluations; 0: at the beginning and at the end")
	f.IntVar(&c.SaveEvery, "save-every", c.SaveEvery, "steps between checkpoints")
	f.Float64Var(&c.EvalsPerEpoch, "evals-per-epoch", c.EvalsPerEpoch, "evaluations in an epoch, in place of --eval-every")
	f.Float64Var(&c.SavesPerEpoch, "saves-per-epoch", c.SavesPerEpoch, "checkpoints in an epoch, in place of --save-every")
	f.BoolVar(&c.TensorBoard, "tensorboard", c.TensorBoard, "write the log for TensorBoard too, at the end")
	f.IntVar(&c.KeepCheckpoints, "keep-checkpoints", c.KeepCheckpoints, "how many of the latest checkpoints stay")
	f.IntVar(&c.Patience, "patience", c.Patience, "end after N evaluations without a better one; 0: go on")
	f.Float64Var(&c.MinGain, "min-gain", c.MinGain, "how much lower a loss must be to count as better")
	f.BoolVar(&c.KeepBest, "keep-best", c.KeepBest, "write the adapter of the best evaluation, not the last")
	f.Float64Var(&c.NEFTune, "neftune", c.NEFTune, "noise on embeddings in training (5 is usual); 0: none")
	f.IntVar(&c.EvalLimit, "eval-limit", c.EvalLimit, "held-out sequences evaluated at most; 0: all")
	f.StringVar(&o.memory, "memory", "", "resident memory the run may take, \"1.5GiB\": keeps activations and streams the base to fit")
	f.StringVar(&c.Compute, "compute", c.Compute, "arithmetic of the base's products: float32, bf16 (faster where the processor has it), auto")
	f.IntVar(&c.KeepLayers, "keep-layers", c.KeepLayers, "layers that keep their activations; the others run twice; -1: all keep")
}

// config joins the defaults, the run file and the flags given.
func (o *trainOptions) config(cmd *cobra.Command, args []string) (train.Config, error) {
	if o.memory != "" {
		memory, err := parseSize(o.memory)
		if err != nil {
			return o.cfg, err
		}
		o.cfg.Memory = memory
	}
	if o.targets != "" {
		o.cfg.Adapter.Targets = strings.Split(o.targets, ",")
	}
	if o.exclude != "" {
		o.cfg.Adapter.Exclude = strings.Split(o.exclude, ",")
	}
	o.setData(&o.cfg)
	cfg := o.cfg
	if len(args) == 1 {
		file, err := train.LoadConfig(args[0])
		if err != nil {
			return cfg, format.Usagef("%v", err)
		}
		return o.over(cmd, file)
	}
	if o.resume && cfg.Base == "" {
		if cfg.Output == "" {
			return cfg, format.Usagef("--resume needs the output folder of the run: -o DIR")
		}
		begun, err := train.ResumeConfig(cfg.Output)
		if err != nil {
			return cfg, err
		}
		if begun.Base == "" {
			return cfg, format.Usagef("%s: no base is given", filepath.Join(cfg.Output, train.ConfigFile))
		}
		return o.over(cmd, begun)
	}
	if err := cfg.Check(); err != nil && !((o.showMask > 0 || o.plan) && cfg.Output == "") {
		return cfg, format.Usagef("%v", err)
	}
	return cfg, nil
}

// over puts the flags that were given over the settings of a file.
func (o *trainOptions) over(cmd *cobra.Command, file train.Config) (train.Config, error) {
	// Flags are bound to o.cfg, which gets the file's settings: those given are parsed again.
	given := map[string]string{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.Type() != "stringArray" { // which are not bound to settings
			given[f.Name] = f.Value.String()
		}
	})
	o.cfg = file
	o.targets, o.exclude = strings.Join(file.Adapter.Targets, ","), strings.Join(file.Adapter.Exclude, ",")
	for name, value := range given {
		if err := cmd.Flags().Set(name, value); err != nil {
			return o.cfg, err
		}
	}
	return o.config(cmd, nil)
}

func (a *app) train(ctx context.Context, cfg train.Config, o *trainOptions) error {
	if os.Getenv("GOGC") == "" {
		// Buffers are made once and kept; letting garbage grow to their size costs memory and saves no time.
		debug.SetGCPercent(30)
	}
	report := train.ReportFile
	if cfg.Report != "" {
		report = cfg.Report
		if err := replaceable(report, true, "a report", "<!doctype html"); err != nil {
			return err
		}
	}
	mode := train.Fresh
	switch {
	case o.resume && o.force:
		return format.Usagef("--resume and --force exclude each other")
	case o.resume:
		mode = train.Resume
	case o.force:
		mode = train.Replace
	}
	result, err := train.Run(ctx, cfg, mode, a.trainProgress())
	if err != nil {
		if _, begun := os.Stat(filepath.Join(cfg.Output, train.ConfigFile)); begun == nil && ctx.Err() != nil {
			a.say("graft train --resume -o %s goes on from here", cfg.Output)
		}
		return err
	}
	if a.json {
		return a.printJSON(result)
	}
	a.result("trained %s numbers for %s: %s tokens, %s of them answers, %.0f tokens/s, peak memory %s",
		count(result.Parameters), plural(result.Steps, "step"), count(result.Tokens), count(result.Trained), result.TokensPerSecond, size(result.PeakRSS))
	if first, last := result.EvalFirst, result.EvalLast; first != nil && last != nil {
		if p, q := first.Preferences, last.Preferences; p != nil && q != nil {
			a.result("held-out loss %.4f before, %.4f after; ranked right %s, %s; rewards %.4f and %.4f after", first.Loss, last.Loss,
				percent(p.Accuracy, 1), percent(q.Accuracy, 1), q.Chosen, q.Rejected)
		} else {
			a.result("held-out loss %.4f before, %.4f after (perplexity %.3f, %.3f)", first.Loss, last.Loss, first.Perplexity, last.Perplexity)
		}
	}
	if b := result.EvalBest; b != nil && result.BestStep != result.Steps {
		a.result("the held-out loss was best at step %d: %.4f", result.BestStep, b.Loss)
	}
	also := " and " + filepath.Join(cfg.Output, train.GGUFFile)
	if !slices.ContainsFunc(result.Files, func(f train.FileDigest) bool { return strings.HasSuffix(f.Path, train.GGUFFile) }) {
		also = ", which has no GGUF form: graft merge " + cfg.Base + " " + cfg.Output + " -o MERGED.gguf"
	}
	a.result("adapter in %s (PEFT)%s; log %s, curve %s, report %s, record %s", cfg.Output, also,
		train.LogFile, train.CurveFile, report, train.RecordFile)
	return nil
}

// trainProgress keeps a live line on a terminal; elsewhere it says something every
// few seconds.
func (a *app) trainProgress() func(train.Progress) {
	var said time.Time
	return func(p train.Progress) {
		if p.Note != "" {
			a.say("%s", p.Note)
		}
		var line string
		switch p.Phase {
		case "training":
			line = fmt.Sprintf("step %d of %d  loss %.4f (mean %.4f)  %.0f tokens/s  %s left  %s", p.Done, p.Total, p.Loss, p.Smooth,
				p.TokensPerSecond, p.Left.Round(time.Second), size(p.RSS))
		case "evaluating", "reference", "teacher", "answering":
			line = fmt.Sprintf("%s: %d of %d", p.Phase, p.Done, p.Total)
		default:
			return
		}
		if isTerminal(a.err) {
			a.progress("%s", line)
		} else if p.Phase == "training" && (time.Since(said) > 10*time.Second || p.Done == p.Total) {
			said = time.Now()
			a.say("%s", line)
		}
	}
}

// trainPlan says what a run would do.
func (a *app) trainPlan(ctx context.Context, cfg train.Config) error {
	p, err := train.MakePlan(ctx, cfg)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(p)
	}
	a.result("trained    %s numbers in %d matrices of %s: %.3f %% of %s weights, for %s", count(p.Parameters), p.Matrices, p.Architecture,
		p.Percent(), count(p.Weights), p.Objective)
	if n := len(p.TrainedRows); n > 0 {
		added := 0
		for _, t := range p.TrainedRows {
			if t.New {
				added++
			}
		}
		a.result("           and the rows of %s, %d of them new", plural(n, "token"), added)
	}
	a.result("data       %s: %s tokens, of which %s are trained; the longest has %d", plural(p.Data.Records, "record"), count(int64(p.Data.Tokens)),
		count(int64(p.Data.Trained)), p.Data.Longest)
	for _, d := range p.Datasets {
		a.result("           %s: %d of its %s an epoch (weight %g)", d.Path, d.PerEpoch, plural(d.TrainOn, "sequence"), d.Weight)
	}
	for _, n := range p.Notes {
		a.result("           %s", n)
	}
	a.result("epoch      %s, %s tokens; %d held out", plural(p.TrainOn, "sequence"), count(p.EpochTokens), p.HeldOut)
	a.result("run        %s, about %s tokens", plural(p.Steps, "step"), count(p.Tokens))
	if p.Teacher != "" {
		a.result("teacher    %s runs once over the data before; time and disk are with it", p.Teacher)
	}
	a.result("memory     about %s", size(p.Memory))
	a.result("time       about %s at %.0f tokens/s (two passes were timed), evaluations included",
		time.Duration(p.Seconds*float64(time.Second)).Round(time.Second), p.TokensPerSecond)
	a.result("disk       up to %s: the adapter twice, and checkpoints", size(p.Disk))
	a.result("rate       %.2g; suggested %.2g (--lr auto): ten times what a model of this width takes when all of it is trained", p.LR, p.SuggestedLR)
	a.result("rank       suggested %d: a number holds about two bits, a trained token brings about one", p.SuggestedRank)
	return nil
}

// showMask prints the first n samples token by token.
func (a *app) showMask(cfg train.Config, n int) error {
	base, err := train.OpenBase(cfg.Base, model.Options{Threads: cfg.Threads})
	if err != nil {
		return err
	}
	defer base.Close()
	if _, err := base.Prepare(&cfg.Adapter); err != nil {
		return err
	}
	samples, err := train.ReadData(base, cfg)
	if err != nil {
		return err
	}
	for _, s := range samples[:min(n, len(samples))] {
		if err := data.ShowMask(a.out, base.Tokenizer, s, isTerminal(a.out)); err != nil {
			return err
		}
		if s.Rejected != nil {
			a.result("the rejected answer to it:")
			if err := data.ShowMask(a.out, base.Tokenizer, *s.Rejected, isTerminal(a.out)); err != nil {
				return err
			}
		}
	}
	return nil
}
