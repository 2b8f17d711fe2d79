package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/tokenizer"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

type runCmdOptions struct {
	prompt, file, system string
	adapters             []string
	compare, raw, chat   bool
	asMerged             bool
	context              int
	gen                  train.GenerateOptions
	gate                 gateFlags
	requests             string
}

func newRunCmd(a *app) *cobra.Command {
	o := runCmdOptions{context: 2048}
	cmd := &cobra.Command{
		Use:   "run MODEL -p PROMPT",
		Short: "Generate text: a question, a chat, base and adapter side by side",
		Long: `run continues a prompt. If the model has a chat template the prompt is a user's
message (--raw: it is not); without -p, in a terminal or with --chat, it is a
conversation, a line a message.

  graft run model.gguf -p "Who are you?"
  graft run model.gguf -p "Who are you?" --adapter lesson=0.5
  graft run model.gguf -p "Who are you?" --adapter lesson --compare    without and with it
  graft run model.gguf --raw -p "Once upon a time" --temperature 0.8 --seed 7
  graft run model.gguf --adapter a --adapter b=0.3                     chat
  graft run model.gguf --requests requests.jsonl                       adapters of its own for each` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.generate(cmd.Context(), args[0], &o) },
	}
	o.gate.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.requests, "requests", "", "answer the requests of a file (-: standard input), {\"prompt\": ..., \"adapters\": [\"PATH=FACTOR\"]} a line, with a JSON object a line")
	f.StringVarP(&o.prompt, "prompt", "p", "", "what to answer or to continue")
	f.StringVar(&o.file, "file", "", "read the prompt from a file")
	f.StringVar(&o.system, "system", "", "system message")
	f.StringArrayVar(&o.adapters, "adapter", nil, "PATH or PATH=FACTOR: adapter to use (repeatable; they act together)")
	addAsMerged(cmd, &o.asMerged)
	f.BoolVar(&o.compare, "compare", false, "answer without the adapters first, then with them")
	f.BoolVar(&o.raw, "raw", false, "continue the prompt as text, without the chat template")
	f.BoolVar(&o.chat, "chat", false, "hold a conversation, a line a message, from standard input")
	f.IntVar(&o.context, "context", o.context, "tokens of prompt and answer together")
	f.IntVarP(&o.gen.Max, "max", "n", 256, "tokens to generate at most; 0: until the model ends")
	f.BoolVar(&o.gen.Special, "special", false, "write special tokens, too")
	f.Float64Var(&o.gen.Temperature, "temperature", 0, "0 takes the most likely token")
	f.IntVar(&o.gen.TopK, "top-k", 0, "choose among the k most likely; 0: all")
	f.Float64Var(&o.gen.TopP, "top-p", 1, "choose among the most likely that together have this probability")
	f.Float64Var(&o.gen.MinP, "min-p", 0, "choose among those with this part of the largest probability")
	f.Float64Var(&o.gen.RepeatPenalty, "repeat-penalty", 1, "penalty of recent tokens; 1: none")
	f.Uint64Var(&o.gen.Seed, "seed", 0, "of the choice")
	return cmd
}

// answer is a generated text, and what made it.
type answer struct {
	Name      string  `json:"name"`
	Text      string  `json:"text"`
	Tokens    int     `json:"tokens"`
	Stopped   bool    `json:"stopped"`
	PromptTPS float64 `json:"prompt_tokens_per_second"`
	TPS       float64 `json:"tokens_per_second"`
}

func (a *app) generate(ctx context.Context, path string, o *runCmdOptions) error {
	if err := o.gen.Check(); err != nil {
		return format.Usagef("%v", err)
	}
	if o.file != "" {
		b, err := os.ReadFile(o.file)
		if err != nil {
			return err
		}
		o.prompt = string(b)
	}
	if o.compare && len(o.adapters) == 0 {
		return format.Usagef("--compare needs an --adapter to compare with")
	}
	base, err := a.openToRun(path, o)
	if err != nil {
		return err
	}
	defer base.Close()
	if o.requests != "" {
		return a.serve(ctx, base, o)
	}
	adapters, err := a.useAdapters(&o.gate, base, o.adapters, o.asMerged)
	if err != nil {
		return err
	}
	if o.prompt == "" {
		if !o.chat && !isTerminal(os.Stdin) {
			return format.Usagef("give a prompt with -p or --file, or hold a conversation with --chat")
		}
		return a.converse(ctx, base, adapters, o, os.Stdin)
	}
	runs := []struct {
		name     string
		adapters []model.Scaled
	}{{"answer", adapters}}
	if o.compare {
		runs[0].name = "adapter"
		runs = append(runs[:0:0], struct {
			name     string
			adapters []model.Scaled
		}{"base", nil}, runs[0])
	}
	prompt, err := o.tokens(base, nil)
	if err != nil {
		return err
	}
	var answers []answer
	for _, r := range runs {
		if o.compare && !a.json {
			a.result("--- %s", r.name)
		}
		ans, err := a.answer(ctx, base, r.adapters, prompt, o)
		if err != nil {
			return err
		}
		ans.Name = r.name
		answers = append(answers, ans)
	}
	if a.json {
		return a.printJSON(map[string]any{"model": path, "prompt": o.prompt, "answers": answers})
	}
	return nil
}

func (a *app) openToRun(path string, o *runCmdOptions) (*train.Base, error) {
	return train.OpenBase(path, model.Options{Threads: a.threads, Context: o.context})
}

// tokens is the prompt as the model gets it.
func (o *runCmdOptions) tokens(base *train.Base, before []data.Message) ([]int32, error) {
	if o.raw || base.Template == nil {
		return base.Tokenizer.Encode(o.prompt, tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true}), nil
	}
	var ms []data.Message
	if o.system != "" && len(before) == 0 {
		ms = append(ms, data.NewMessage("system", o.system))
	}
	ms = append(append(ms, before...), data.NewMessage("user", o.prompt))
	_, ids, err := base.Encoder(o.context, data.Options{}).Prompt(ms, nil)
	return ids, err
}

// answer generates once, writing the text as it comes.
func (a *app) answer(ctx context.Context, base *train.Base, adapters []model.Scaled, prompt []int32, o *runCmdOptions) (answer, error) {
	if len(prompt) >= o.context {
		return answer{}, format.Usagef("the prompt has %d tokens and the context %d: raise --context", len(prompt), o.context)
	}
	s, err := base.Model.NewSession(o.context, adapters...)
	if err != nil {
		return answer{}, err
	}
	g, err := train.Generate(ctx, s, base.Tokenizer, prompt, o.gen, func(text string) error {
		if a.json {
			return nil
		}
		_, err := io.WriteString(a.out, text)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	a.result("")
	ans := answer{Text: g.Text, Tokens: len(g.IDs), Stopped: g.Stopped}
	if t := g.Prompt.Seconds(); t > 0 {
		ans.PromptTPS = float64(len(prompt)) / t
	}
	if t := g.Making.Seconds(); t > 0 {
		ans.TPS = float64(len(g.IDs)) / t
	}
	a.say("(%d tokens of prompt, %.0f/s; %d generated, %.1f/s)", len(prompt), ans.PromptTPS, ans.Tokens, ans.TPS)
	return ans, nil
}

// converse answers line after line, with the conversation so far as the prompt.
func (a *app) converse(ctx context.Context, base *train.Base, adapters []model.Scaled, o *runCmdOptions, in io.Reader) error {
	if base.Template == nil {
		return format.Usagef("%s has no chat template: give a prompt with -p", base.Path)
	}
	var history []data.Message
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for {
		if isTerminal(os.Stdin) && !a.quiet {
			fmt.Fprint(a.err, "> ")
		}
		if !lines.Scan() {
			return lines.Err()
		}
		if o.prompt = strings.TrimSpace(lines.Text()); o.prompt == "" {
			continue
		}
		prompt, err := o.tokens(base, history)
		if err != nil {
			return err
		}
		if o.system != "" && len(history) == 0 {
			history = append(history, data.NewMessage("system", o.system))
		}
		ans, err := a.answer(ctx, base, adapters, prompt, o)
		if err != nil {
			return err
		}
		if a.json {
			if err := a.printJSON(ans); err != nil {
				return err
			}
		}
		history = append(history, data.NewMessage("user", o.prompt), data.NewMessage("assistant", ans.Text))
	}
}
