package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graft-lora/graft/train"
)

// survivalDir keeps what the survival table is made from: the adapters, and each row as it
// was measured, so that a table that was interrupted goes on.
var survivalDir, survivalOnly, survivalRows string

func init() {
	home, _ := os.UserCacheDir()
	flag.StringVar(&survivalDir, "survival-dir", filepath.Join(home, "graft-survival"), "survival-table: adapters and rows measured before; rows are measured again when results.jsonl is removed")
	flag.StringVar(&survivalOnly, "survival-only", "", "survival-table: adapters to measure, by comma; \"none\" prints what there is")
	flag.StringVar(&survivalRows, "survival-rows", "", "survival-table: rows to measure, TYPE/METHOD/MOMENTS by comma; all if empty")
}

// survivalCase is an adapter and the types that it is merged into.
type survivalCase struct {
	model, adapter string
	targets        []string
	steps          int
	seed           uint64
	moments        string // task, other: the text that moments are taken from
	types          []string
	methods        []string
}

// survivalCases are the lines of the table. The K types and IQ4_XS have blocks of 256, and
// rows of that length are in ffn_down of SmolLM2 (1536 inputs), and in ffn_down and attn_output
// of Gemma 3 270M (2048 and 1024): for them an adapter changes these alone.
func survivalCases() []survivalCase {
	const smol, gemma = "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"
	all, down, wide := []string{"all-linear"}, []string{"ffn_down"}, []string{"attn_output", "ffn_down"}
	legacy := []string{"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"}
	k := []string{"Q4_K", "Q5_K", "Q6_K", "Q3_K", "IQ4_XS", "Q2_K"}
	methods := []string{"requantize", "keep", "fit"}
	return []survivalCase{
		{smol, "smol-1", all, 100, 1, "task", legacy, methods},
		{smol, "smol-down-1", down, 100, 1, "task", k, methods},
		{gemma, "gemma-down-1", wide, 60, 1, "task", k, methods},
		{gemma, "gemma-1", all, 60, 1, "task", []string{"SAME"}, methods},
		{smol, "smol-2", all, 100, 2, "task", legacy, methods},
		{smol, "smol-down-2", down, 100, 2, "task", k, methods},
		{gemma, "gemma-1", all, 60, 1, "task", []string{"Q4_0", "Q5_1"}, []string{"fit"}},
		{smol, "smol-1", all, 100, 1, "other", []string{"Q4_0", "Q4_1"}, []string{"fit"}},
		{smol, "smol-down-1", down, 100, 1, "other", []string{"Q4_K", "Q3_K"}, []string{"fit"}},
		{smol, "smol-1", all, 100, 1, "adapter", []string{"Q4_0", "Q4_1"}, []string{"fit"}},
		{smol, "smol-down-1", down, 100, 1, "adapter", []string{"Q4_K", "Q3_K"}, []string{"fit"}},
		{smol, "smol-1", all, 100, 1, "task", []string{"Q4_0", "Q4_1"}, []string{"nest"}},
		{gemma, "gemma-2", all, 60, 2, "task", []string{"SAME"}, methods},
		{gemma, "gemma-down-2", wide, 60, 2, "task", k, methods},
	}
}

// tableRow is a row with what it is a row of.
type tableRow struct {
	Model   string `json:"model"`
	Adapter string `json:"adapter"`
	Moments string `json:"moments"`
	survivalRow
}

func (r *tableRow) key() string {
	moments := r.Moments
	if r.Method != "fit" && r.Method != "nest" {
		moments = ""
	}
	return strings.Join([]string{r.Adapter, r.Type, r.Method, moments}, " ")
}

// survivalTable measures what was not measured before and prints all.
func survivalTable() error {
	ctx := context.Background()
	rows, err := readRows(filepath.Join(survivalDir, "results.jsonl"))
	if err != nil {
		return err
	}
	for _, c := range survivalCases() {
		if survivalOnly != "" && !slices.Contains(strings.Split(survivalOnly, ","), c.adapter) {
			continue
		}
		if err := c.run(ctx, &rows); err != nil {
			return fmt.Errorf("%s: %w", c.adapter, err)
		}
	}
	printRows(rows)
	return nil
}

func readRows(path string) (rows []tableRow, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var r tableRow
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// run trains the adapter if there is none yet and measures the rows that are missing.
func (c *survivalCase) run(ctx context.Context, rows *[]tableRow) error {
	shared := os.Getenv("GRAFT_SHARED")
	if shared == "" {
		shared = "../shared"
	}
	text := func(name string) string { return filepath.Join(shared, "text", name) }
	home, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	base := filepath.Join(home, "graft-models", c.model)
	adapter := filepath.Join(survivalDir, c.adapter)
	if _, err := os.Stat(filepath.Join(adapter, train.GGUFFile)); err != nil {
		if err := c.train(ctx, base, adapter, text("gsm8k-train.jsonl")); err != nil {
			return err
		}
	}
	s := survivalFlags
	s.adapter, s.task, s.other = adapter, text("gsm8k-test.jsonl"), text("wiki.test.raw")
	switch c.moments {
	case "task":
		s.moments = text("gsm8k-train.jsonl")
	case "other":
		s.moments = text("tinyshakespeare.txt")
	case "adapter":
		s.moments = ""
	}
	dir, err := os.MkdirTemp("", "graft-survival")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out, err := os.OpenFile(filepath.Join(survivalDir, "results.jsonl"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	for _, typ := range c.types {
		known := func(method string) int {
			r := tableRow{Adapter: c.adapter, Moments: c.moments, survivalRow: survivalRow{Type: typ, Method: method}}
			return slices.IndexFunc(*rows, func(x tableRow) bool { return x.key() == r.key() })
		}
		var missing []string
		for _, m := range c.methods {
			asked := survivalRows == "" || slices.Contains(strings.Split(survivalRows, ","), typ+"/"+m+"/"+c.moments)
			if known(m) < 0 && asked {
				missing = append(missing, m)
			}
		}
		if len(missing) == 0 {
			continue
		}
		s.methods, s.without, s.with = strings.Join(missing, ","), nil, nil
		if b, a := known("base"), known("adapter"); b >= 0 && a >= 0 {
			s.without = &score{(*rows)[b].Task, (*rows)[b].Other}
			s.with = &score{(*rows)[a].Task, (*rows)[a].Other}
		}
		err := survivalOf(ctx, dir, base, typ, &s, func(r survivalRow) error {
			if known(r.Method) >= 0 {
				return nil
			}
			t := tableRow{Model: c.model, Adapter: c.adapter, Moments: c.moments, survivalRow: r}
			*rows = append(*rows, t)
			b, err := json.Marshal(t)
			if err == nil {
				_, err = out.Write(append(b, '\n'))
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", typ, err)
		}
	}
	return nil
}

func (c *survivalCase) train(ctx context.Context, base, adapter, data string) error {
	t := train.DefaultConfig()
	t.Base, t.Data, t.Output, t.HeldOutPart, t.EvalLimit = base, data, adapter, 0.001, 4
	t.Fields.Prompt, t.Fields.Completion = "question", "answer"
	t.Context, t.Samples.Long, t.Accumulate, t.Steps, t.LR, t.Seed = 320, "drop", 2, c.steps, 4e-4, c.seed
	t.Adapter.Rank, t.Adapter.Targets, t.SaveEvery, t.KeepCheckpoints = 8, c.targets, 10, 1
	mode := train.Fresh
	if _, err := os.Stat(filepath.Join(adapter, train.ConfigFile)); err == nil {
		mode = train.Resume
	}
	_, err := train.Run(ctx, t, mode, nil)
	return err
}

// printRows prints a line in Markdown for each adapter and type: recovery, and in brackets the
// loss on unrelated text against the unmerged adapter's.
func printRows(rows []tableRow) {
	columns := []struct{ title, method, moments string }{
		{"`requantize`", "requantize", ""}, {"`keep`", "keep", ""}, {"`fit`", "fit", "task"},
		{"`fit`, other text", "fit", "other"}, {"`fit`, no text", "fit", "adapter"}, {"`nest`", "nest", "task"},
	}
	fmt.Print("| model | adapter | type | loss: base, adapter |")
	for _, c := range columns {
		fmt.Printf(" %s |", c.title)
	}
	fmt.Println("\n|---|---|---|---" + strings.Repeat("|--:", len(columns)) + "|")
	done := map[string]bool{}
	for _, c := range survivalCases() {
		for _, typ := range c.types {
			find := func(method, moments string) *tableRow {
				want := tableRow{Adapter: c.adapter, Moments: moments, survivalRow: survivalRow{Type: typ, Method: method}}
				for i := range rows {
					if rows[i].key() == want.key() {
						return &rows[i]
					}
				}
				return nil
			}
			base, with := find("base", ""), find("adapter", "")
			if base == nil || with == nil || done[c.adapter+" "+typ] {
				continue
			}
			done[c.adapter+" "+typ] = true
			model, _, _ := strings.Cut(c.model, "-")
			fmt.Printf("| %s | %s | %s | %.4f, %.4f |", model, c.adapter, typ, base.Task, with.Task)
			for _, col := range columns {
				r := find(col.method, col.moments)
				if r == nil {
					fmt.Print(" |")
					continue
				}
				fmt.Printf(" %.3f (%+.2f %%", r.Recovery, 100*r.Elsewhere)
				if r.Growth > 0.0005 {
					fmt.Printf(", file +%.1f %%", 100*r.Growth)
				}
				fmt.Print(") |")
			}
			fmt.Println()
		}
	}
}
